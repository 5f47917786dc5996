"""The transducer task inside a model and through whole jobs: gradients, padding, checkpoints, resumed and refused runs."""

import dataclasses
import json

import pytest
import torch
from checkpoints import needs_bf16

from hfftools.bench import measurement
from hfftools.data import datadir
from hfftools.data.batch import Speech
from hfftools.decode.search import Search
from hfftools.expdir import ExpDir
from hfftools.infer import decode_sets
from hfftools.infer.bank import Bank
from hfftools.log import UserError
from hfftools.meter import flops
from hfftools.model import Model
from hfftools.records import read_json_lines
from hfftools.text import units
from hfftools.train import checkpoint, job
from hfftools.train.experiment import configure


@pytest.fixture
def here(options) -> list[str]:
    return [*options, "task.name=asr_transducer", "task.joint_dim=16"]


def build(options, *more, scale=1.0):
    config = configure([], [*options, *more])
    torch.manual_seed(0)
    model = Model(config, units.load(config.data.units))
    with torch.no_grad():
        for parameter in [*model.task.parameters(), *model.fuse.parameters()]:
            parameter += (scale - 1) * parameter + 0.05 * torch.randn_like(parameter)
    return model, Speech(datadir.read(config.data.train), units.load(config.data.units))


def batch_of(data, rows):
    return data.collate([data[row] for row in rows])


@pytest.mark.parametrize("more", [["task.ctc=1"], ["task.ctc=0"], ["task.joint_scores=1"], ["task.context=1"]])
@pytest.mark.parametrize("head", ["linear", "blstm", "conformer"])
def test_every_parameter_gets_a_finite_gradient(here, head, more):
    model, data = build(here, f"task.head={head}", *more)
    model.train()
    batch = batch_of(data, range(4))
    loss_B = model.loss(batch, batch.random_seeds(0, 0))
    assert loss_B.shape == (4,) and torch.isfinite(loss_B).all() and (loss_B > 0).all()
    loss_B.sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.requires_grad != name.startswith("upstream.")
        if parameter.requires_grad and not name.endswith("k_proj.bias"):  # a key bias shifts all scores alike
            assert torch.isfinite(parameter.grad).all() and parameter.grad.abs().max() > 0, name


@pytest.mark.parametrize("head", ["linear", "blstm", "conformer"])
def test_padding_changes_neither_loss_nor_hypotheses(here, head):
    model, data = build(here, f"task.head={head}", scale=2.0)
    for mode, search in ((True, None), (False, None), (False, Search("beam", beam_size=3, nbest=2))):
        model.train(mode)
        model.task.head.eval()  # no dropout
        model.fuse.eval()
        with torch.no_grad():
            together = batch_of(data, range(4))
            loss_B, readings = model.loss(together), model.task.hypotheses(*model.encode(together), search)
            for row in range(4):
                alone = batch_of(data, [row])
                assert model.loss(alone)[0].item() == pytest.approx(loss_B[row].item(), abs=1e-3, rel=1e-4)
                (found,) = model.task.hypotheses(*model.encode(alone), search)
                assert [(h.text, h.words) for h in found] == [(h.text, h.words) for h in readings[row]]
                assert [h.score for h in found] == pytest.approx([h.score for h in readings[row]], rel=1e-4, abs=1e-3)


def test_without_a_search_hypotheses_are_what_decode_gives(here):
    model, data = build(here, scale=2.0)
    model.eval()
    batch = batch_of(data, range(4))
    x_BTF, lens_B = model.encode(batch)
    texts = model.predict(batch)
    assert any(texts)
    for search in (None, Search(name="greedy")):
        assert [some[0].text for some in model.task.hypotheses(x_BTF, lens_B, search)] == texts
    beams = model.task.hypotheses(x_BTF, lens_B, Search("beam", beam_size=3, nbest=2))
    greedy = model.task.hypotheses(x_BTF, lens_B)
    assert all(some[0].score >= one[0].score - 1e-3 for some, one in zip(beams, greedy, strict=True))
    score_B = -model.task.loss(lambda _: (x_BTF, lens_B), dataclasses.replace(batch, **targets(model, greedy)))
    assert [one[0].score for one in greedy] == pytest.approx(score_B.tolist(), rel=1e-4, abs=1e-3)


def targets(model, readings) -> dict[str, torch.Tensor]:
    """The best readings as if they were the transcripts of a batch."""
    ids = [torch.tensor(model.task.units.encode(some[0].text), dtype=torch.long) for some in readings]
    lens_B = torch.tensor([len(row) for row in ids])
    return {"targets_BL": torch.nn.utils.rnn.pad_sequence(ids, batch_first=True), "target_lens_B": lens_B}


@pytest.mark.parametrize("given", [["lm"], ["lexicon"], ["lm", "lexicon"]])
def test_a_search_that_it_has_not_is_refused_in_one_line(here, given):
    model, data = build(here)
    with pytest.raises(UserError, match=f"search.{given[0]}: the search of task asr_transducer takes no {given[0]}"):
        model.task.hypotheses(*model.encode(batch_of(data, [0])), Search("beam", **dict.fromkeys(given, "file")))


@pytest.mark.parametrize("option", ["head=gru", "joint_dim=0", "context=0", "symbols=0", "joint_scores=0", "ctc=-1"])
def test_options_out_of_range_are_named(here, option):
    with pytest.raises(UserError, match=f"task.{option.partition('=')[0]}: "):
        configure([], [*here, f"task.{option}"])


def test_trained_and_resumed_it_has_the_same_weights_and_loaded_the_same_hypotheses(here, tmp_path, monkeypatch):
    more = ["train.save_minutes=0", "task.dropout=0.3", "optim.head.lr=0.01"]
    whole = job.train(tmp_path / "whole", [], [*here, *more])
    states = []

    class Killed(Exception):
        pass

    def save(loop, save=job.Loop._save):
        save(loop)
        states.append((loop.epoch, loop.position))
        if len(states) in (2, 4):
            raise Killed

    monkeypatch.setattr(job.Loop, "_save", save)
    for _ in range(2):
        with pytest.raises(Killed):
            job.train(tmp_path / "killed", [], [*here, *more])
    again = job.train(tmp_path / "killed", [], [*here, *more])
    one, two = checkpoint.read(whole.final)[0], checkpoint.read(again.final)[0]
    assert one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)
    losses = [[(r["loss"], r["dev_loss"], r["dev_error"]) for r in read_json_lines(e.history)] for e in (whole, again)]
    assert losses[0] == losses[1] and len(losses[0]) == 2
    models = [Bank().add(exp.root) for exp in (whole, again)]
    _, data = build(here)
    batch = batch_of(data, range(4))
    found = [model.task.hypotheses(*model.encode(batch), Search("beam", beam_size=3, nbest=2)) for model in models]
    assert found[0] == found[1]
    (folder,) = decode_sets.decode([whole.root], [], [])
    assert decode_sets.read_scores(folder)["wer"].sentences == 6


def test_training_learns(here, tmp_path):
    """It knows a few utterances by heart in the end; else encoder, labels and update are not connected."""
    more = ["train.epochs=30", "data.batch_seconds=6", "task.head=linear", "task.joint_dim=64", "task.dropout=0"]
    rates = ["optim.head.lr=0.01", "optim.fuse.lr=0.01", "augment.time_masks=0", "augment.channel_masks=0"]
    exp = job.train(tmp_path / "exp", [], [*here, *more, *rates, "train.blank_epochs=0"])
    losses = [record["loss"] for record in read_json_lines(exp.history)]
    assert losses[-1] < 0.5 * losses[1]


def test_an_all_blank_collapse_stops_the_run_with_advice(here, tmp_path):
    with pytest.raises(UserError, match="empty for 2 epochs .the all-blank collapse"):
        job.train(tmp_path / "exp", [], [*here, "optim.head.lr=0.01", "train.blank_epochs=2", "train.epochs=12"])


@needs_bf16
@pytest.mark.parametrize("head", ["linear", "blstm", "conformer"])
def test_bf16_autocast_trains(here, tmp_path, head):
    exp = job.train(tmp_path / "exp", [], [*here, "train.bf16=true", f"task.head={head}", "train.epochs=1"])
    assert ExpDir(exp.root).final.exists()


def test_its_costs_are_reported_before_training(here, tmp_path):
    exp = job.train(tmp_path / "exp", [], [*here, "train.epochs=1"])
    used = json.loads(exp.resources.read_text())
    forecast = measurement.measure(
        configure([], here), 2.0, 2
    )  # in a process of its own, whose memory nothing has grown before
    assert forecast["parameters"]["trainable_encoder"] == used["parameters"]["trainable_encoder"]
    assert forecast["forward_flops_per_s"] > 0 and forecast["peak_less_model_bytes"] > 0


def test_the_joiner_is_counted_and_in_parts_twice(here):
    model, data = build(here, "fuse.name=weighted_sum", "task.head=linear", "task.ctc=0", "task.dropout=0")
    batch = batch_of(data, [0, 0])  # as long as each other: no padding
    whole = flops.count(model, batch)
    model.task.net.most_scores = 1
    parts = flops.count(model, batch)
    frames, places = int(model.encode(batch)[1][0]), int(batch.target_lens_B[0]) + 1
    joiner = 2 * 2 * frames * places * 16 * len(model.task.units) / batch.seconds
    assert whole["forward_flops_per_s"] > joiner
    assert parts["forward_flops_per_s"] == pytest.approx(whole["forward_flops_per_s"])
    again = parts["backward_flops_per_s"] - whole["backward_flops_per_s"]
    assert again == pytest.approx(joiner)


def test_in_training_the_loss_of_ctc_is_added_times_its_weight(here):
    model, data = build(here, "task.ctc=2.5", "task.dropout=0")
    batch = batch_of(data, range(3))
    alone_B = model.eval().loss(batch)
    together_B = model.train().loss(batch)
    x_BTF, lens_B = model.encode(batch)
    log_probs_BTV = model.task.ctc(model.task.head(x_BTF, lens_B)).log_softmax(-1)
    ctc_B = torch.nn.functional.ctc_loss(
        log_probs_BTV.transpose(0, 1), batch.targets_BL, lens_B, batch.target_lens_B, reduction="none"
    )
    torch.testing.assert_close(together_B, alone_B + 2.5 * ctc_B, rtol=1e-4, atol=1e-4)
