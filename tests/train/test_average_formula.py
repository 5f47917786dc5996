"""Check the average of checkpoints against the mean of their tensors written out."""

from types import SimpleNamespace

import pytest
import torch

from hfftools.train import checkpoint

MODEL = SimpleNamespace(upstream=SimpleNamespace(name="none", hash="0", settings=""))


def saved(folder, states):
    """Write each state as a checkpoint and return the paths."""
    paths = [folder / f"epoch_{number}.safetensors" for number in range(len(states))]
    for path, state in zip(paths, states, strict=True):
        checkpoint.save(path, state, MODEL)
    return paths


@pytest.mark.parametrize("count", [2, 3, 5])
def test_average_is_the_mean_of_every_tensor(count, tmp_path):
    torch.manual_seed(count)
    states = [{"weight": torch.randn(3, 4), "bias": 5 + torch.randn(7), "scale": torch.randn(())} for _ in range(count)]
    paths = saved(tmp_path, states)
    found = checkpoint.average(paths)
    assert found.keys() == states[0].keys()
    for name, tensor in found.items():
        wanted = sum(state[name].double() for state in states) / count
        assert tensor.dtype == torch.float32 and torch.allclose(tensor, wanted.float(), atol=1e-7), name
    backwards = checkpoint.average(paths[::-1])
    assert all(torch.allclose(backwards[name], found[name], atol=1e-7) for name in found)


def test_average_of_one_file_is_that_file(tmp_path):
    state = {"weight": torch.randn(3, 4)}
    assert torch.equal(checkpoint.average(saved(tmp_path, [state]))["weight"], state["weight"])


def test_small_differences_survive_in_half_precision(tmp_path):
    """Average 1, 1 and 1 + 3 / 128 in bfloat16, whose exact mean is 1 + 1 / 128."""
    states = [{"weight": torch.full((2,), value, dtype=torch.bfloat16)} for value in (1.0, 1.0, 1 + 3 / 128)]
    found = checkpoint.average(saved(tmp_path, states))["weight"]
    assert found.dtype == torch.bfloat16 and found.tolist() == [1 + 1 / 128] * 2


def test_whole_numbers_are_those_of_the_first_file(tmp_path):
    states = [{"weight": torch.full((2,), float(n)), "batches": torch.tensor(n)} for n in (4, 6, 11)]
    found = checkpoint.average(saved(tmp_path, states))
    assert found["batches"].item() == 4 and found["weight"].tolist() == [7.0, 7.0]


def test_the_average_is_taken_in_double_precision(tmp_path):
    """Average 1e8, 1 and -1e8: their sum in single precision is 0, since 1e8 + 1 has more digits than a float32."""
    states = [{"weight": torch.full((2,), value)} for value in (1e8, 1.0, -1e8)]
    found = checkpoint.average(saved(tmp_path, states))["weight"]
    assert found.dtype == torch.float32 and found.tolist() == pytest.approx([1 / 3] * 2, rel=1e-6)
