from collections.abc import Callable

import pytest
import torch
from kornia.augmentation import RandomHorizontalFlip, RandomMixUpV2
from torch import Tensor
from torch.nn import functional as F

from d3hr.evaluation.augmentation import Mixed, augmentation, mixing
from d3hr.evaluation.protocols import Protocol

PLAIN = Protocol(name="plain", steps=1, batch_size=64, learning_rate=0.1)
CLASSES = 5


def test_cross_entropy_of_mixed_targets_by_hand() -> None:
    """A linear network of one image of ones has logits 0, log 2, log 5: probabilities 1/8, 1/4, 5/8.

    With a share of 0.3 of class 1 and the rest of class 2 the loss is 0.3 log 4 + 0.7 log 1.6.
    """
    network = torch.nn.Linear(4, 3)
    with torch.no_grad():
        network.weight.copy_(torch.tensor([1.0, 2.0, 5.0]).log()[:, None].expand(3, 4) / 4)
        network.bias.zero_()
    logits = network(torch.ones(1, 4))
    pair = Mixed(torch.ones(2, 4), partners=torch.tensor([1, 0]), shares=torch.tensor([0.3, 1.0]))
    targets = pair.targets(torch.eye(3)[[1, 2]])
    torch.testing.assert_close(targets, torch.tensor([[0.0, 0.3, 0.7], [0.0, 0.0, 1.0]]))
    expected = 0.3 * torch.tensor(4.0).log() + 0.7 * torch.tensor(1.6).log()
    torch.testing.assert_close(F.cross_entropy(logits, targets[:1]), expected)


def class_pictures(size: int = 8) -> tuple[Tensor, Tensor]:
    """Twenty pictures of one colour, which is their class as a number."""
    labels = torch.arange(20) % CLASSES
    return labels.float()[:, None, None, None].expand(20, 3, size, size).clone(), labels


@pytest.mark.parametrize("kind", ["mixup", "cutmix"])
def test_targets_tell_what_the_pixels_hold(kind: str) -> None:
    """Pictures whose colour is their class: the mean colour of a mixed one is the mean class of its target, share by share."""
    torch.manual_seed(0)
    images, labels = class_pictures()
    made = mixing(PLAIN.model_copy(update={"mix": kind}))(images)
    mixed, targets = made.images, made.targets(F.one_hot(labels, CLASSES).float())
    torch.testing.assert_close(targets.sum(dim=1), torch.ones(20))
    assert float(targets.min()) >= 0
    torch.testing.assert_close(mixed.mean(dim=(1, 2, 3)), targets @ torch.arange(float(CLASSES)))
    assert (targets.max(dim=1).values < 1).any()
    whole = mixed.eq(mixed.round()).all()
    assert bool(whole) == (kind == "cutmix")


def test_cutmix_has_one_rectangle_for_a_batch_cut_off_at_the_border() -> None:
    """Its area is uniform and its centre anywhere, so at the border it loses a part: along one axis of side 1, a rectangle of side s keeps
    s - s^2 / 4 on average, so that of both axes E (s - s^2 / 4)^2 is left, with s^2 uniform: 1/2 - 2/5 * 1/2 + 1/16 * 1/3 = 0.320833."""
    torch.manual_seed(0)
    mix = mixing(PLAIN.model_copy(update={"mix": "cutmix"}))
    images = torch.arange(4.0)[:, None, None, None].expand(4, 3, 32, 32)
    lost = []
    for _ in range(2000):
        made = mix(images)
        foreign = made.images[:, 0] != images[:, 0]
        moved = made.partners != torch.arange(4)
        assert foreign[~moved].sum() == 0
        if moved.any():
            masks = foreign[moved]
            assert masks.eq(masks[0]).all()
            assert masks[0].sum() == masks[0].any(dim=0).sum() * masks[0].any(dim=1).sum()
        assert made.shares.unique().numel() == 1
        lost.append(1 - float(made.shares[0]))
    assert sum(lost) / len(lost) == pytest.approx(0.320833, abs=0.015)
    assert min(lost) < 0.01 and max(lost) > 0.9


NOISE = torch.randn(50, 3, 24, 24, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("seed", range(5))
def test_mixup_and_flips_are_kornias(seed: int) -> None:
    """Of the same random numbers: the same pictures, partners and shares, bit for bit, and the same random numbers afterwards."""

    def seeded(apply: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
        torch.manual_seed(seed)
        return apply(NOISE), torch.rand(1)

    def mixed(images: Tensor) -> Tensor:
        made = mixing(PLAIN.model_copy(update={"mix": "mixup"}))(images)
        rows.append(torch.stack([torch.arange(50), made.partners, 1 - made.shares], dim=1))
        return made.images

    def mixed_by_kornia(images: Tensor) -> Tensor:
        made, labels = RandomMixUpV2(data_keys=["input", "class"])(images, torch.arange(50))
        rows.append(labels.reshape(-1, 3))
        return torch.as_tensor(made)

    rows = list[Tensor]()
    flip = augmentation(PLAIN.model_copy(update={"flip": True}), 24)
    for ours, theirs in ((mixed, mixed_by_kornia), (flip, RandomHorizontalFlip())):
        for a, b in zip(seeded(ours), seeded(theirs), strict=True):
            assert torch.equal(a, b)
    torch.testing.assert_close(*rows)


@pytest.mark.parametrize("seed", range(5))
def test_cutmix_is_a_choice_by_a_mask(seed: int) -> None:
    """A rectangle that is copied is the same as the partner's pixels wherever both coordinates are inside, from the same random numbers."""
    torch.manual_seed(seed)
    made = mixing(PLAIN.model_copy(update={"mix": "cutmix"}))(NOISE)
    torch.manual_seed(seed)
    area, down, right = torch.rand(3).tolist()
    half, place = round(area**0.5 * 24) / 2, torch.arange(24)
    inside = [(place >= round(at * 24 - half)) & (place < round(at * 24 + half)) for at in (down, right)]
    mask = inside[0][:, None] & inside[1]
    partners = torch.randperm(50)
    assert torch.equal(made.images, torch.where(mask, NOISE[partners], NOISE)) and torch.equal(made.partners, partners)
    torch.testing.assert_close(made.shares, (1 - mask.float().mean()).expand(50))


def test_shares_are_uniform() -> None:
    """Beta(1, 1) is uniform: mean 1/2 and variance 1/12 over 4,000 pairs."""
    torch.manual_seed(0)
    shares = mixing(PLAIN.model_copy(update={"mix": "mixup"}))(torch.zeros(4000, 3, 2, 2)).shares
    assert shares.mean().item() == pytest.approx(1 / 2, abs=0.03)
    assert shares.var().item() == pytest.approx(1 / 12, abs=0.005)


def test_a_batch_of_one_mixes_with_itself() -> None:
    for kind in ("mixup", "cutmix"):
        made = mixing(PLAIN.model_copy(update={"mix": kind}))(torch.ones(1, 3, 8, 8))
        torch.testing.assert_close(made.images, torch.ones(1, 3, 8, 8))
        torch.testing.assert_close(made.targets(torch.tensor([[0.0, 0.0, 1.0]])), torch.tensor([[0.0, 0.0, 1.0]]))


def test_no_mixing_leaves_labels_alone() -> None:
    images, labels = class_pictures()
    made, rows = mixing(PLAIN)(images), F.one_hot(labels, CLASSES).float()
    assert made.images is images
    assert torch.equal(made.targets(rows), rows)


def test_a_resized_crop_magnifies_a_part() -> None:
    """Of a ramp from 0 to 1 over 32 columns a crop is a ramp over a part; a quarter of the area spans at most sqrt(4/3) / 2 of the side."""
    torch.manual_seed(0)
    ramp = torch.linspace(0, 1, 32).expand(50, 3, 32, 32)
    crops = augmentation(PLAIN.model_copy(update={"crop_scale": (0.25, 0.25)}), 32)(ramp)
    assert crops.shape == ramp.shape
    spans = crops[:, 0, 0, -1] - crops[:, 0, 0, 0]
    assert 0.35 < float(spans.min()) < float(spans.max()) < 0.6
    assert crops[:, 0, 0, 0].unique().numel() > 10


def test_a_crop_of_a_larger_image_is_resized_once() -> None:
    """Of noise of std 1 at 64 pixels: the whole image at 16 is antialiased by a triangle of 8 pixels, which leaves 1/6 (squares of its
    weights add up to 1/6 along each axis); a crop of about 11 pixels is magnified, and keeps most of it."""
    torch.manual_seed(0)
    noise = torch.randn(40, 3, 64, 64)
    whole, small = (augmentation(PLAIN.model_copy(update={"crop_scale": (share, share)}), 16)(noise) for share in (1.0, 0.03))
    assert whole.shape == small.shape == (40, 3, 16, 16)
    assert float(whole.std()) == pytest.approx(1 / 6, rel=0.1)
    assert float(small.std()) > 0.5


def test_flips_mirror_half_of_the_images() -> None:
    torch.manual_seed(0)
    ramp = torch.linspace(0, 1, 8).expand(400, 3, 8, 8)
    flipped = augmentation(PLAIN.model_copy(update={"flip": True}), 8)(ramp)[:, 0, 0, 0] == 1
    assert flipped.float().mean().item() == pytest.approx(0.5, abs=0.1)
