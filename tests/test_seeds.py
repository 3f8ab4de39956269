import pytest
import torch

from d3hr.seeds import seeded


def test_a_seed_holds_inside_the_context_alone() -> None:
    """The numbers are those of ``torch.manual_seed``; the global generator goes on afterwards as if nothing had been drawn."""
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(1)
    first, second = torch.rand(2), torch.rand(2)
    torch.manual_seed(1)
    assert torch.equal(torch.rand(2), first)
    with seeded(5):
        assert torch.equal(torch.rand(3), expected)
    assert torch.equal(torch.rand(2), second)


@pytest.mark.parametrize(("device", "used"), [("cpu", []), ("cuda:2", [2]), ("cuda", [1])])
def test_only_the_gpu_in_use_is_seeded(device: str, used: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Of three GPUs, the second of which is the current one; the others' generators are neither read nor seeded."""
    generators = [torch.Generator().manual_seed(7) for _ in range(3)]
    read, restored = list[int](), list[int]()

    def get_state(index: int) -> torch.Tensor:
        read.append(index)
        return torch.zeros(1)

    monkeypatch.setattr("torch.cuda.device_count", lambda: 3)
    monkeypatch.setattr("torch.cuda.current_device", lambda: 1)
    monkeypatch.setattr("torch.cuda.default_generators", generators)
    monkeypatch.setattr("torch.cuda.get_rng_state", get_state)
    monkeypatch.setattr("torch.cuda.set_rng_state", lambda state, index: restored.append(index))
    with seeded(5, torch.device(device)):
        assert [index for index, generator in enumerate(generators) if generator.initial_seed() == 5] == used
        assert (read, restored) == (used, [])
    assert restored == used
