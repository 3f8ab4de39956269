"""Chunks are listed without a list, and merged in their order whoever comes first."""

import functools
import itertools

import pytest
import torch

from d3hr.distillation.chunks import ChunkStatistics, ClassChunk, ClassChunks, Division, MergedChunks
from d3hr.distillation.estimation import StandardError
from d3hr.distillation.gaussian import ClassGaussian
from d3hr.distillation.mixture import ClassMixture

ANT = [ClassChunk("ant", 0, 8), ClassChunk("ant", 8, 16), ClassChunk("ant", 16, 20)]


def measured(chunk: ClassChunk) -> ChunkStatistics:
    latents = torch.randn(20, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)[chunk.start : chunk.stop]
    return ChunkStatistics(ClassMixture((ClassGaussian.empty(3).update(latents),)), StandardError(0.5, 0.25))


def test_chunks_of_several_classes_follow_one_another() -> None:
    chunks = ClassChunks({"ant": Division(20, 8), "bee": Division(8, 8), "cat": Division(3, 8)})
    assert list(chunks) == [*ANT, ClassChunk("bee", 0, 8), ClassChunk("cat", 0, 3)]
    assert (len(chunks), chunks[-1], [chunk.num_images for chunk in ANT]) == (5, ClassChunk("cat", 0, 3), [8, 8, 4])
    with pytest.raises(IndexError):
        chunks[5]


def test_ten_thousand_million_images_are_divided_without_a_list() -> None:
    chunks = ClassChunks({str(index): Division(10**7, 512) for index in range(1000)})
    assert len(chunks) == 1000 * 19_532
    assert chunks[19_532 * 999 + 7] == ClassChunk("999", 3584, 4096)
    assert (len(ClassChunks({})), list(ClassChunks({}))) == (0, [])


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_the_order_of_arrival_changes_no_bit(order: tuple[int, ...]) -> None:
    merging, expected = MergedChunks(), functools.reduce(ClassGaussian.merge, (measured(chunk).mixture.pooled for chunk in ANT))
    for position in order:
        merging.add(ANT[position], measured(ANT[position]))
    assert merging.merged is not None
    result = merging.merged.mixture.pooled
    assert torch.equal(result.mean, expected.mean) and torch.equal(result.std, expected.std)
    assert (result.count, merging.images, merging.merged.error) == (20, 20, StandardError(0.0, 0.0))


def test_a_chunk_is_held_only_until_those_before_it_have_come() -> None:
    merging = MergedChunks()
    for position, (images, held) in {1: (0, 1), 2: (0, 2), 0: (20, 0)}.items():
        merging.add(ANT[position], measured(ANT[position]))
        assert (merging.images, merging.held) == (images, held)


def test_a_class_of_one_chunk_keeps_its_error() -> None:
    merging = MergedChunks()
    merging.add(ANT[0], measured(ANT[0]))
    assert merging.merged is not None and merging.merged.error == StandardError(0.5, 0.25)
