"""Full fine-tuning as a fair baseline: held at first, masked inside, with its own learning rate; and what is refused."""

import pytest
import torch
from torch import nn

from hfftools.config import conf_file
from hfftools.data import datadir
from hfftools.data.batch import Speech
from hfftools.log import UserError
from hfftools.model import Model, check
from hfftools.nn.adapter import Bottleneck
from hfftools.nn.attention import Prefix
from hfftools.text import units
from hfftools.train import checkpoint, job, optim
from hfftools.train.experiment import configure
from hfftools.tune import lora
from hfftools.upstream import conformer, graft
from hfftools.upstream.extract import extract
from hfftools.upstream.names import load_upstream
from hfftools.upstream.transformer import Attention, Block

FULL, CPU = "tune.name=full", torch.device("cpu")


def build(options, *more):
    config = configure([], [*options, *more])
    torch.manual_seed(0)
    model, table = Model(config, units.load(config.data.units)), units.load(config.data.units)
    data = Speech(datadir.read(config.data.train)[:4], table)
    return model, data.collate([data[i] for i in range(4)]), config


def test_held_for_the_first_steps_it_does_not_move_and_then_it_does(options, encoder, tmp_path):
    more = [FULL, "data.batch_seconds=6", "train.epochs=1", "optim.upstream.lr=1e-3", "train.average=1"]
    base = dict(load_upstream(str(encoder)).named_parameters())

    def moved(freeze):
        exp = job.train(tmp_path / str(freeze), [], [*options, *more, f"optim.upstream.freeze_steps={freeze}"])
        state = checkpoint.read(exp.final)[0]
        return any(not torch.equal(state[f"upstream.{n}"], p) for n, p in base.items() if f"upstream.{n}" in state)

    assert moved(0) and moved(2) and not moved(1000)


def test_while_held_it_runs_as_if_frozen(options):
    model, batch, _ = build(options, FULL)
    model.train()
    dropouts = [m for m in model.upstream.blocks().modules() if isinstance(m, torch.nn.Dropout)]
    assert dropouts and all(module.training for module in dropouts)
    model.hold(True)
    assert not any(module.training for module in model.upstream.modules())
    model.loss(batch).mean().backward()
    assert all(p.grad is None for p in model.upstream.parameters())
    assert all(p.grad is not None for p in model.task.parameters())
    model.hold(False)
    model.loss(batch).mean().backward()
    assert any(p.grad is not None for p in model.upstream.parameters())


@pytest.mark.parametrize("form", ["wav2vec2_base", "wavlm_large", "hf_wav2vec2conformer_rot"])
def test_its_dropout_is_on_and_that_of_what_stays_frozen_is_off(options, spelled, form):
    def trains(tune):
        model, _, _ = build(options, *tune, f"upstream={spelled(form)}")
        model.train()
        blocks = model.upstream.blocks()
        kinds = (torch.nn.Dropout, Attention, Block)
        inside = [m for m in blocks.modules() if isinstance(m, kinds) and id(m) in model.base_modules]
        norms = [m for m in model.modules() if isinstance(m, torch.nn.modules.batchnorm._BatchNorm)]
        assert not any(m.training for m in [*model.upstream.front_end(), *norms])
        return {m.training for m in inside}

    assert trains([FULL]) == {True}
    assert trains([FULL, "tune.layers=top2"]) == {True, False}
    for tune in ("bitfit", "houlsby", "lora"):
        assert trains([f"tune.name={tune}"]) == {False}


def test_its_schedule_begins_when_it_is_let_go():
    shape = optim.shape(optim.Group(schedule="tri_stage", warmup=0.1, hold=0.4, freeze_steps=50), 150)
    assert [shape(step) for step in (0, 49)] == [0.0, 0.0]
    assert shape(50) == pytest.approx(0.1) and shape(60) == pytest.approx(1.0) and shape(150) == pytest.approx(0.05)
    with pytest.raises(UserError, match="only the upstream can be held"):
        optim.Config(head=optim.Group(freeze_steps=3))


@pytest.mark.parametrize("form", ["conformer", "wav2vec2_base", "wavlm_large", "hf_wav2vec2conformer_rot"])
def test_masks_inside_the_upstream_are_for_training_alone(options, spelled, encoder, form):
    name = str(encoder) if form == "conformer" else spelled(form)
    nothing_else = ["augment.time_masks=0", "augment.channel_masks=0"]
    model, batch, _ = build(options, FULL, f"upstream={name}", "mask.time=0.5", "mask.channel=0.3", *nothing_else)
    seeds = batch.random_seeds(0, 0)
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        elif isinstance(getattr(module, "dropout", None), float):
            module.dropout = 0.0
    with torch.no_grad():
        plain, _ = model.eval().encode(batch)
        assert torch.equal(model.encode(batch, seeds)[0], plain)
        model.train()
        assert (model.encode(batch)[0] - plain).abs().max() < 1e-5
        one, again = (model.encode(batch, seeds)[0] for _ in range(2))
        other, _ = model.encode(batch, batch.random_seeds(0, 1))
    assert torch.equal(one, again)
    assert (one - plain).abs().max() > 1e-2 and (one - other).abs().max() > 1e-2


def test_masks_that_nothing_would_see_are_refused(options, tmp_path):
    with pytest.raises(UserError, match="mask: fbank has nothing inside to mask"):
        check(configure([], ["upstream=fbank", "mask.time=0.5"]))
    extract(options[0].partition("=")[2], [word.partition("=")[2] for word in options[1:3]], tmp_path, "all", 30.0, CPU)
    with pytest.raises(UserError, match="mask: with data.features the upstream is not run"):
        job.train(tmp_path / "exp", [], [*options, f"data.features={tmp_path}", "mask.time=0.5"])


@pytest.mark.parametrize(
    "tune", [["tune.name=lora", "fuse.layers=[0]"], ["tune.name=houlsby", "tune.layers=top1", "fuse.layers=[1]"]]
)
def test_a_method_of_which_nothing_is_left_is_refused(options, tune):
    with pytest.raises(UserError, match="changes nothing that the tapped layers"):
        (
            build(options, "fuse.name=layer", "tune.train_norms=false", *tune)
            if "houlsby" in tune[0]
            else build(options, "fuse.name=layer", *tune)
        )


def test_of_two_upstreams_each_has_its_top_and_its_input(options, encoder):
    model, _, _ = build(
        options, f"upstream={encoder}+{encoder}", "tune.name=lora", "tune.layers=top1", "fuse.layers=blocks"
    )
    assert model.layers == [1, 2, 3, 5, 6, 7]
    assert {name.split(".")[1] for name, _ in model.parts()["inserted"]} == {"first", "second"}
    assert {name.split(".")[3] for name, _ in model.parts()["inserted"]} == {"2"}
    model, batch, _ = build(options, f"upstream={encoder}+fbank", FULL, "mask.time=0.5", "fuse.layers=[1,2]")
    assert not any("mask_D" in name for name, _ in model.parts()["upstream"])
    assert torch.isfinite(model.train().loss(batch, batch.random_seeds(0, 0))).all()


def test_groups_have_their_own_rates(options):
    model, _, config = build(
        options, "tune.name=houlsby", "optim.upstream.lr=1e-5", "optim.fuse.lr=2e-3", "optim.head.lr=3e-3"
    )
    optimizer, _ = optim.build(model, config.optim, 10)
    rates = {group["name"]: (group["initial_lr"], len(group["params"])) for group in optimizer.param_groups}
    parts = {part: len(named) for part, named in model.parts().items()}
    assert rates["upstream"] == (1e-5, parts["upstream"]) and parts["upstream"] > 0  # the blocks' LayerNorms
    assert rates["fuse"] == (2e-3, parts["inserted"] + parts["fuse"]) and parts["inserted"] > 0
    assert rates["head"] == (3e-3, parts["head"])


@pytest.mark.parametrize("method", ["lora", "houlsby", "full", "bitfit", "prefix", "compacter", "conv_adapter"])
def test_what_a_family_cannot_do_is_said_before_anything_is_loaded(method, monkeypatch):
    def load(*_):
        raise AssertionError("something was loaded")

    monkeypatch.setattr(conformer, "load", load)
    with pytest.raises(UserError, match=f"'{method}|{'houlsby' if method.startswith('h') else method}.*fbank has none"):
        check(configure([conf_file("method", method)], ["upstream=fbank"]))
    check(configure([conf_file("method", method)], ["upstream=hff_tiny+fbank"]))
    with pytest.raises(UserError, match="hff_tiny has no 'value' in its blocks; .*known|did you mean"):
        check(configure([conf_file("method", "lora")], ["upstream=hff_tiny", "tune.projections=[value]"]))


def test_classes_that_grafting_does_not_know_are_refused(spelled):
    class OtherBlock(Block):
        pass

    class OtherAttention(Attention):
        pass

    block = load_upstream(spelled("wav2vec2_base")).blocks()[0]
    block.attention.__class__ = OtherAttention
    with pytest.raises(UserError, match="OtherAttention is no attention that prefix tuning knows"):
        graft.prefix(block, Prefix(2, 32, False))
    block.__class__ = OtherBlock
    with pytest.raises(UserError, match="OtherBlock is no block that tune methods know"):
        graft.after(block, "attention", Bottleneck(32, 4))


def test_blocks_are_named_from_either_end(encoder):
    upstream = load_upstream(str(encoder))
    blocks = list(upstream.blocks())
    assert (
        graft.choose_blocks(upstream, "all") == blocks and graft.choose_blocks(upstream, "all_but_top") == blocks[:-1]
    )
    assert graft.choose_blocks(upstream, "top2") == blocks[1:] == graft.choose_blocks(upstream, [-1, 2])
    assert graft.choose_blocks(upstream, 1) == graft.choose_blocks(upstream, [1]) == blocks[:1]
    for wrong in ("top4", "some", [0], [], [4], "top0"):
        with pytest.raises(UserError, match="tune.layers"):
            graft.choose_blocks(upstream, wrong)


@pytest.mark.parametrize(
    "method, wrong",
    [
        ("houlsby", "tune.places=[ears]"), ("houlsby", "tune.width=-1"), ("lora", "tune.rank=0"),
        ("lora", "tune.variant=vera"), ("lora", "tune.variant=pissa tune.rank=1000"),
        ("lora", "tune.projections=[attention]"), ("compacter", "tune.products=5"), ("prefix", "tune.length=0"),
        ("adapter_bias", "tune.form=wide"), ("conv_adapter", "tune.width=0"), ("full", "tune.layers=top9"),
    ],
)  # fmt: skip
def test_wrong_options_are_refused_in_one_line(options, method, wrong):
    with pytest.raises(UserError, match="tune") as caught:
        config = configure([conf_file("method", method)], [*options, *wrong.split()])
        Model(config, units.load(config.data.units))
    assert "\n" not in str(caught.value)


def test_lora_drops_what_enters_a():
    """Check that dropout acts on x, section 4 of arXiv:2106.09685: with A and B of ones all outputs are 2 α / r Σ x kept."""
    torch.manual_seed(0)
    part = lora.LowRank(nn.Linear(3, 5), lora.Config(rank=4, alpha=4.0, dropout=0.5)).train()
    with torch.no_grad():
        part.a.fill_(1.0)
        part.b.fill_(1.0)
    # rank 4 times the sum of some of 2 · (1, 10, 100): one that drops a row of A would give multiples of 111
    sums = {round(part.change(torch.tensor([1.0, 10.0, 100.0]))[0].item() / 8) for _ in range(200)}
    assert sums == {0, 1, 10, 11, 100, 101, 110, 111}
