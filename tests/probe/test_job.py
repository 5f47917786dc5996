"""Probing: each layer's result is its own, an interrupted probe goes on, a layer that diverges spoils no other."""

import json
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from hfftools.data import datadir
from hfftools.log import UserError
from hfftools.probe.job import probe
from hfftools.train.experiment import configure


def rows(folder, options):
    return json.loads(probe(folder, [], options).probe.read_text())["layers"]


def saved(folder):
    """{(task's number, layer): the head's weights}."""
    probes = torch.load(folder / "checkpoints" / "state.pt")["probes"]
    return {(n, layer): p["head"] for n, one in enumerate(probes) for layer, p in one["probes"].items()}


def same(a, b):
    return all(torch.equal(a[k], b[k]) for k in a.keys() | b.keys())


@pytest.fixture
def probing(corpus, encoder):
    sets = [f"{name}={corpus}/{name}" for name in ("train", "dev", "units")]
    return [
        f"upstream={encoder}",
        *sets,
        "parts=[asr,speaker]",
        "epochs=3",
        "batch_seconds=12",
        "lr=0.02",
        "device=cpu",
    ]


@pytest.mark.parametrize(
    "head", [[], ["head=blstm", "head_dim=8", "head_layers=2", "dropout=0.3"]], ids=["linear", "blstm"]
)
def test_a_layer_probed_with_others_is_as_one_probed_alone(probing, tmp_path, head):
    together = rows(tmp_path / "all", [*probing, *head])
    assert [row["layer"] for row in together] == [0, 1, 2, 3]
    torch.manual_seed(5)  # the outer generator plays no part
    alone = rows(tmp_path / "one", [*probing, *head, "layers=[2]"])
    assert alone[0] == together[2]
    one, four = saved(tmp_path / "one"), saved(tmp_path / "all")
    assert all(same(one[n, 2], four[n, 2]) for n in (0, 1))
    assert not same(four[0, 1], four[0, 2])


def test_every_part_in_one_folder(probing, corpus, tmp_path, monkeypatch):
    rounds = (("ctc", 20, 3e-3), ("frames", 5, 2e-3))  # test_alignment.py runs all
    monkeypatch.setattr("hfftools.probe.alignment_model.ROUNDS", rounds)
    exp = probe(tmp_path / "p", [], [*probing, "parts=[asr,phone,speaker,similarity,geometry]", "clusters=4"])
    found = json.loads(exp.probe.read_text())
    for key in (
        "wer",
        "wer_low",
        "cer",
        "per",
        "frame_accuracy",
        "speaker_accuracy",
        "cka_mel",
        "isoscore",
        "norm_mean",
    ):
        assert all(isinstance(row[key], float) for row in found["layers"]), key
    assert found["cka"]["names"] == ["0", "1", "2", "3", "mel"]
    for path in (exp.layers_image, exp.curves_image, exp.cka_image, exp.page):
        assert path.stat().st_size > 1000
    assert len([line for line in exp.table.read_text().splitlines() if line.strip()[:1].isdigit()]) % 4 == 0
    config = configure([exp.recommendation], [])
    assert config.fuse.layers == found["recommendation"]["layers"] and config.data.train == f"{corpus}/train"
    words = {line.split()[0] for line in (exp.alignments / "train" / "words.ctm").read_text().splitlines()}
    assert words == {u.id for u in datadir.read(corpus / "train")}


def test_an_interrupted_probe_goes_on_to_the_same_weights(probing, tmp_path, monkeypatch):
    probing = [*probing, "head=conformer", "head_dim=8", "dropout=0.3"]
    whole = rows(tmp_path / "whole", probing)
    import hfftools.probe.job as module

    real, calls = module.write_state, []

    def stop_after_one(path, state):
        if len(calls) == 1:
            raise KeyboardInterrupt  # at the end of the second epoch
        calls.append(path)
        return real(path, state)

    monkeypatch.setattr(module, "write_state", stop_after_one)
    with pytest.raises(KeyboardInterrupt):
        probe(tmp_path / "cut", [], probing)
    monkeypatch.undo()
    assert torch.load(tmp_path / "cut" / "checkpoints" / "state.pt")["epoch"] == 1
    assert rows(tmp_path / "cut", probing) == whole
    a, b = saved(tmp_path / "whole"), saved(tmp_path / "cut")
    assert a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)


def test_a_layer_that_diverges_spoils_no_other(probing, tmp_path, monkeypatch):
    import hfftools.probe.inputs as module

    probing = [*probing, "parts=[asr,speaker,geometry]"]
    healthy = rows(tmp_path / "healthy", probing)
    load = module.load_upstream

    def poisoned(name):
        upstream = load(name)
        forward = upstream.forward

        def spoil(wav_BN, num_samples_B, layers):
            hidden, lens_B = forward(wav_BN, num_samples_B, layers)
            return {k: h * float("nan") if k == 1 else h for k, h in hidden.items()}, lens_B

        upstream.forward = spoil
        return upstream

    monkeypatch.setattr(module, "load_upstream", poisoned)
    sick = rows(tmp_path / "sick", probing)
    assert [row["diverged"] for row in sick] == [[], ["asr", "speaker"], [], []]
    assert sick[1]["wer"] is sick[1]["speaker_accuracy"] is sick[1]["isoscore"] is None
    assert [r for r in sick if not r["diverged"]] == [r for r in healthy if r["layer"] != 1]
    assert "diverged" in (tmp_path / "sick" / "table.txt").read_text()


def test_a_changed_probe_is_refused_and_a_finished_one_kept(probing, tmp_path, corpus):
    probe(tmp_path / "p", [], probing)
    stamp = (tmp_path / "p" / "probe.json").stat().st_mtime_ns
    probe(tmp_path / "p", [], probing)
    assert (tmp_path / "p" / "probe.json").stat().st_mtime_ns == stamp
    with pytest.raises(UserError, match="lr was 0.02 and is now 0.5"):
        probe(tmp_path / "p", [], [*probing, "lr=0.5"])
    shorter = datadir.read(corpus / "dev")[1:]
    datadir.write(tmp_path / "dev", shorter)
    begun = [*probing, f"dev={tmp_path}/dev"]
    probe(tmp_path / "q", [], begun)
    datadir.write(tmp_path / "dev", shorter[1:])
    with pytest.raises(UserError, match="content of dev: segments, .* has changed since"):
        probe(tmp_path / "q", [], begun)


def test_a_pair_of_upstreams_of_different_widths_is_probed_layer_by_layer(probing, encoder, tmp_path):
    found = rows(tmp_path / "pair", [*probing, f"upstream={encoder}+fbank", "epochs=1"])
    assert [row["layer"] for row in found] == [0, 1, 2, 3, 4]


def test_states_are_kept_where_a_folder_is_named_and_change_nothing(probing, tmp_path):
    run = rows(tmp_path / "run", probing)
    kept = rows(tmp_path / "kept", [*probing, f"features={tmp_path}/feats"])
    assert 3 in json.loads((tmp_path / "feats" / "train" / "cache.json").read_text())["layers"]
    for a, b in zip(run, kept, strict=True):
        assert a["wer"] == pytest.approx(b["wer"], abs=0.05)  # padding moves the sums by a rounding


def test_bare_it_speaks_a_set_of_its_own_and_says_so(encoder, tmp_path, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("hfftools.probe.inputs.BUILT_IN", 12)
    exp = probe(None, [], [f"upstream={encoder}", "epochs=1", "parts=[asr]", "device=cpu"])
    found = json.loads(exp.probe.read_text())
    assert exp.root == Path("exp") / f"probe_{encoder.parent.name}"
    assert "eSpeak" in found["assumed"][0] and "BPE pieces" in found["assumed"][1]
    assert "eSpeak" in exp.page.read_text()
    probe(None, [], [f"upstream={encoder}", "epochs=1", "parts=[asr]", "device=cpu"])  # done: nothing is made again
    assert not exp.kept_states.exists() and (exp.built_in / "train" / "wav.scp").exists()
    done = subprocess.run(
        ["hff-train", "exp/fusion", "--config", exp.recommendation, "train.epochs=1", "task.head=linear", "device=cpu"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr  # as it is: upstream, data and units are in it
    assert f"upstream: {encoder}" in Path("exp/fusion/config.yaml").read_text()


def test_what_cannot_be_measured_is_said_before_any_work(probing, corpus, tmp_path):
    empty = [replace(u, text="") for u in datadir.read(corpus / "dev")]
    datadir.write(tmp_path / "empty", empty)
    lexicon = tmp_path / "lexicon.txt"
    lexicon.write_text("turn t ɜː n\n", encoding="utf-8")
    datadir.write(tmp_path / "alone", [replace(u, speaker=u.id) for u in datadir.read(corpus / "train")])
    for options, message in (
        ([f"dev={corpus}/train"], "utterances are in"),
        ([f"dev={tmp_path}/empty"], "empty/text: every transcript is empty"),
        (["parts=[phone]", f"phones={lexicon}"], "words are missing"),
        (["parts=[speaker]", f"train={tmp_path}/alone"], "nothing is left to measure"),
        (["parts=[words]"], "is not some of asr, phone"),
        (["head=conformer", "head_dim=6"], "no multiple of 4"),
    ):
        with pytest.raises(UserError, match=message):
            probe(tmp_path / "p", [], [*probing, *options])
    assert not (tmp_path / "p" / "checkpoints").exists()


def test_parts_that_need_no_text_take_speech_without(probing, corpus, tmp_path):
    for name in ("train", "dev"):
        datadir.write(tmp_path / name, [replace(u, text=None) for u in datadir.read(corpus / name)])
    bare = [*probing, f"train={tmp_path}/train", f"dev={tmp_path}/dev", "units=", "parts=[speaker,geometry]"]
    assert all(row["norm_mean"] > 0 and row["speaker_accuracy"] is not None for row in rows(tmp_path / "p", bare))


def test_one_of_two_sets_is_refused(probing, tmp_path):
    with pytest.raises(UserError, match="without dev"):
        probe(tmp_path / "p", [], [*probing, "dev="])
    assert not (tmp_path / "p").exists()
