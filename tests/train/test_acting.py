"""Every trainable part is proved to act: a dead one is an error that names it, for every way to tune and every fusion."""

import json

import pytest
import torch

from hfftools.config import plugin_names
from hfftools.data import datadir
from hfftools.data.batch import Speech
from hfftools.expdir import ExpDir
from hfftools.log import UserError
from hfftools.model import Model
from hfftools.text import units
from hfftools.train import acting, job
from hfftools.train.experiment import configure

INSERTED = [name for name in plugin_names("tune") if name not in ("frozen", "full", "bitfit")]
SIZES = {"compacter": ["tune.width=8"], "lora_dora": ["tune.variant=dora"], "lora_pissa": ["tune.variant=pissa"]}
TUNES = sorted({*INSERTED, *SIZES, "full", "bitfit"})
FUSES = [name for name in plugin_names("fuse") if name != "layer"]


def plant(module, how):
    """Let a module compute with its parameters detached or, with gradients of zero, multiplied by zero and added again."""
    change = {"detached": torch.Tensor.detach, "times zero": lambda p: 0.0 * p + p.detach()}[how]
    original = module.forward

    def forward(*args, **kwargs):
        module.forward = original
        try:
            changed = {name: change(p) for name, p in module.named_parameters()}
            return torch.func.functional_call(module, changed, args, kwargs)
        finally:
            module.forward = forward

    module.forward = forward


def build(options, tmp_path, *more):
    config = configure([], [*options, "task.head=linear", *more])
    table = units.load(config.data.units)
    torch.manual_seed(0)
    model = Model(config, table).train()
    return model, Speech(datadir.read(config.data.train)[:3], table), acting.Acting(ExpDir(tmp_path / "exp"), model)


def step(model, data, watch, optimizer):
    model.loss(data.batch([0, 1])).mean().backward()
    watch.see()
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)


def train(model, data, watch, steps=3):
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    for _ in range(steps):
        step(model, data, watch, optimizer)


def choice(tune):
    return [f"tune.name={tune.partition('_')[0] if tune.startswith('lora') else tune}", *SIZES.get(tune, [])]


@pytest.mark.parametrize("tune", TUNES)
def test_each_part_of_each_way_to_tune_acts_and_a_dead_one_is_named(options, tmp_path, tune):
    model, data, watch = build(options, tmp_path, *choice(tune), "fuse.name=weighted_sum")
    inside = [part for part in watch.parts if "upstream" in part]
    assert len(inside) >= 3 and {"task", "fuse.sum"} <= {*watch.parts}
    assert sum(map(len, watch.parts.values())) == sum(p.requires_grad for p in model.parameters())
    watch.begin()
    train(model, data, watch, 3)  # behind factors of zero gradients arrive in the second step
    assert not watch.waiting
    before = model.trained_state()
    report = watch.finish(data)
    assert all(torch.equal(before[name], value) for name, value in model.trained_state().items())
    assert report["acting"] == report["parts"] == len(watch.parts) and report["least_change"] > 0


@pytest.fixture(autouse=True)
def short(monkeypatch):
    """Three steps are enough for gradients to pass factors of zero, which ten have to in a training."""
    monkeypatch.setattr(acting, "GRACE", 3)


def refused(model, data, watch, part, how):
    """Plant a fault in the module that `part` names, and check the error of the training."""
    path = part.partition("'s own")[0]
    module = model.fuse if path in dict(model.named_parameters()) else model.get_submodule(path)
    for planted in module.children() if part == "task" else [module]:
        plant(planted, how)
    with pytest.raises(UserError) as caught:
        train(model, data, watch)
    assert f"no gradient has reached {part} in 3 steps" in str(caught.value)
    why = {"detached": "the loss does not depend on it", "times zero": "multiplied by zero"}[how]
    assert why in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("how", ["detached", "times zero"])
@pytest.mark.parametrize("tune", TUNES)
def test_a_dead_part_of_a_way_to_tune_is_an_error_that_names_it(options, tmp_path, tune, how):
    model, data, watch = build(options, tmp_path, *choice(tune), "fuse.name=weighted_sum")
    dead = [part for part in watch.parts if part.startswith("upstream")][-1]
    refused(model, data, watch, dead, how)


@pytest.mark.parametrize("how", ["detached", "times zero"])
@pytest.mark.parametrize("fuse", FUSES)
def test_a_dead_part_of_a_fusion_or_head_is_an_error_that_names_it(options, tmp_path, fuse, how):
    for dead in (["task"] if fuse == FUSES[0] else []) + ["fuse"]:
        model, data, watch = build(options, tmp_path, f"fuse.name={fuse}")
        modules, inside = dict(model.named_modules()), [p for p in watch.parts if p.startswith("fuse.")]
        part = "task" if dead == "task" else ([p for p in inside if p in modules] or inside)[-1]
        refused(model, data, watch, part, how)


@pytest.mark.parametrize("fuse", FUSES)
def test_each_part_of_each_fusion_acts(options, tmp_path, fuse):
    model, data, watch = build(options, tmp_path, f"fuse.name={fuse}")
    watch.begin()
    train(model, data, watch)
    assert not watch.waiting
    report = watch.finish(data)
    assert report["acting"] == report["parts"] == len(watch.parts)


def test_one_layer_has_no_share_to_learn(options, tmp_path):
    for fuse in ("weighted_sum", "hff", "l_adapter", "grouped", "dynamic_sum"):
        groups = ["fuse.groups=1"] if fuse == "grouped" else []
        model, data, watch = build(options, tmp_path, f"fuse.name={fuse}", "fuse.layers=[2]", *groups)
        train(model, data, watch)
        assert not watch.waiting and not any("logits" in n or "a_L" in n for n, _ in model.parts()["fuse"])


def test_a_part_that_is_trained_but_not_used_is_an_error_at_the_end(options, tmp_path):
    model, data, watch = build(options, tmp_path, "fuse.name=concat")
    watch.begin()
    train(model, data, watch, 3)
    used = model.fuse.forward
    mean = lambda hidden, lens_B: torch.stack(list(hidden.values())).mean(0)  # noqa: E731
    model.fuse.forward = lambda *args: used(*args) if model.training else mean(*args)
    with pytest.raises(UserError, match="fuse.project changes nothing: once trained, the model does not use it"):
        watch.finish(data)


def test_parts_are_held_until_the_upstream_is_released(options, tmp_path):
    model, data, watch = build(options, tmp_path, "tune.name=lora", "fuse.name=weighted_sum")
    watch.begin()
    model.hold(True)
    train(model, data, watch, 4)
    assert {part.partition(".")[0] for part in watch.waiting} == {"upstream"}
    report = watch.finish(data)
    assert report["acting"] == 2 == report["parts"] - 6
    model.hold(False)
    train(model, data, watch, 1)
    assert not watch.waiting


def test_a_part_that_has_learned_too_little_is_a_warning(options, tmp_path):
    exp = job.train(tmp_path / "exp", [], [*options, "fuse.name=hff", "optim.fuse.lr=1e-9", "train.epochs=1"])
    found = json.loads(exp.resources.read_text())["acting"]
    assert 1 < found["acting"] < found["parts"] and found["least_change"] == 0
    assert "too little to change the output" in exp.log.read_text()


def test_a_training_reports_its_parts_and_keeps_no_initial_values(options, tmp_path):
    exp = job.train(tmp_path / "exp", [], [*options, "tune.name=houlsby", "fuse.name=hff", "tune.width=8"])
    found = json.loads(exp.resources.read_text())["acting"]
    assert found["acting"] == found["parts"] > 12 and found["least_part"] and not exp.initial.exists()
    lines = exp.log.read_text()
    assert f"a gradient has reached each of the {found['parts']} trainable parts" in lines
    assert f"{found['parts']} of {found['parts']} trainable parts act; the output changes least, by " in lines
