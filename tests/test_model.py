"""Upstream, tune, fuse and task together: who trains, who stays frozen, what is saved."""

import pytest
import torch

from hfftools.config import plugin_names
from hfftools.data import datadir
from hfftools.data.batch import Speech
from hfftools.log import UserError
from hfftools.model import Model, choose_layers
from hfftools.text import units
from hfftools.train import checkpoint
from hfftools.train.experiment import configure
from hfftools.upstream.names import load_upstream

METHODS = plugin_names("fuse")


def build(options, *more):
    config = configure([], [*options, *more])
    torch.manual_seed(0)
    return Model(config, units.load(config.data.units)), config


def first_batch(config, model, count=4):
    data = Speech(datadir.read(config.data.train), units.load(config.data.units))
    return data.collate([data[i] for i in range(count)])


@pytest.mark.parametrize("head", ["linear", "blstm", "conformer"])
@pytest.mark.parametrize("fuse", METHODS)
def test_one_step_moves_what_trains_and_nothing_else(options, fuse, head):
    model, config = build(options, f"fuse.name={fuse}", f"task.head={head}")
    model.train()
    with torch.no_grad():  # off the zeros that they start from
        for parameter in model.fuse.parameters():
            parameter += 0.05 * torch.randn_like(parameter)
    batch = first_batch(config, model)
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    model.loss(batch, batch.random_seeds(0, 0)).mean().backward()
    softmax_cancels = [n for n in before if n.endswith("attention.k_proj.bias")]  # a key bias shifts all scores alike
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            assert parameter.grad is None
        elif name not in softmax_cancels:
            assert torch.isfinite(parameter.grad).all() and parameter.grad.abs().max() > 0, name
    optimizer.step()
    for name, parameter in model.named_parameters():
        if name not in softmax_cancels:
            assert torch.equal(parameter, before[name]) != parameter.requires_grad, name
    assert all(n.startswith(("fuse.", "task.")) for n, p in model.named_parameters() if p.requires_grad)


def test_frozen_modules_stay_in_eval_mode(options):
    model, _ = build(options)
    model.train()
    assert not any(module.training for module in model.upstream.modules())
    assert model.fuse.training and model.task.training
    model.eval().train()
    assert not any(module.training for module in model.upstream.modules())


def test_hff_starts_as_the_weighted_sum(options):
    batch = None
    streams = []
    for fuse in ("weighted_sum", "hff"):
        model, config = build(options, f"fuse.name={fuse}")
        batch = batch or first_batch(config, model)
        streams.append(model.eval().encode(batch)[0])
    assert torch.allclose(*streams, atol=1e-5)


@pytest.mark.parametrize("head", ["linear", "blstm", "conformer"])
@pytest.mark.parametrize(
    "fuse", [*([f"fuse.name={name}"] for name in METHODS), ["fuse.name=hff", "fuse.time_kernel=3"]]
)
def test_padding_changes_no_valid_frame(options, fuse, head):
    model, config = build(options, *fuse, f"task.head={head}")
    with torch.no_grad():
        for parameter in model.fuse.parameters():
            parameter += 0.05 * torch.randn_like(parameter)
        model.eval()
        data = Speech(datadir.read(config.data.train), units.load(config.data.units))
        together = data.collate([data[i] for i in range(4)])
        x_BTF, lens_B = model.encode(together)
        scores_BTU = model.task.log_probs(x_BTF, lens_B)
        for row in range(4):
            alone = model.task.log_probs(*model.encode(data.collate([data[row]])))
            assert (scores_BTU[row, : lens_B[row]] - alone[0]).abs().max() < 1e-4


def test_only_the_layers_asked_for_are_computed(options):
    model, config = build(options, "fuse.name=layer", "fuse.layers=[1]")
    ran = []
    for number, block in enumerate(model.upstream.blocks(), 1):
        block.register_forward_hook(lambda *_, number=number: ran.append(number))
    model.encode(first_batch(config, model))
    assert ran == [1]


def test_layers_are_named_from_either_end(encoder):
    upstream = load_upstream(str(encoder))
    assert choose_layers("all", upstream) == [0, 1, 2, 3]
    assert choose_layers("last", upstream) == [3]
    assert choose_layers([-1, 1], upstream) == [1, 3]
    assert choose_layers(["2", "0"], upstream) == [0, 2]
    for wrong in ([4], [], "some", [-5], [1.5], [True], "12", 2, None, {1: 2}, [[1]]):
        with pytest.raises(UserError, match="fuse.layers"):
            choose_layers(wrong, upstream)


@pytest.mark.parametrize("fuse", METHODS)
def test_saved_and_loaded_it_gives_the_same_hypotheses(options, fuse, tmp_path):
    model, config = build(options, f"fuse.name={fuse}")
    with torch.no_grad():
        for parameter in [*model.fuse.parameters(), *model.task.parameters()]:
            parameter += 0.1 * torch.randn_like(parameter)
    path = tmp_path / "a.safetensors"
    checkpoint.save(path, model.trained_state(), model)
    other, _ = build(options, f"fuse.name={fuse}")
    batch = first_batch(config, model)
    other.eval(), model.eval()
    assert not torch.equal(model.task.log_probs(*model.encode(batch)), other.task.log_probs(*other.encode(batch)))
    checkpoint.load(path, other)
    assert torch.equal(model.task.log_probs(*model.encode(batch)), other.task.log_probs(*other.encode(batch)))
    assert model.predict(batch) == other.predict(batch)
    tensors, info = checkpoint.read(path)
    assert {n.split(".")[0] for n in tensors} <= {"fuse", "task"} and info["upstream_hash"] == model.upstream.hash


def test_a_wrong_checkpoint_is_refused_by_name(options, tmp_path):
    model, _ = build(options)
    path = tmp_path / "a.safetensors"
    checkpoint.save(path, model.trained_state(), model)
    other, _ = build(options, "task.head_layers=2")
    with pytest.raises(UserError, match="has no 'task.head.lstm"):
        checkpoint.load(path, other)
    other, _ = build(options, "task.head_dim=8")
    with pytest.raises(UserError, match="the model needs"):
        checkpoint.load(path, other)
    other, _ = build(options)
    other.upstream.hash = "another"
    with pytest.raises(UserError, match="was trained on upstream"):
        checkpoint.load(path, other)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(UserError, match="a.safetensors is damaged .*remove it and run hff-train"):
        checkpoint.read(path)
    with pytest.raises(UserError, match="does not exist"):
        checkpoint.read(tmp_path / "none.safetensors")
