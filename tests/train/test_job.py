"""Whole training and decoding jobs: killed, resumed, refused, decoded."""

import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from checkpoints import needs_bf16
from omegaconf import OmegaConf

from hfftools.audio import waveform
from hfftools.data import datadir
from hfftools.data.batch import Speech, plan
from hfftools.data.perturb import Perturb
from hfftools.data.table import read_table, write_table
from hfftools.expdir import ExpDir
from hfftools.infer import decode_sets
from hfftools.log import UserError, log
from hfftools.nn.ctc import frames_needed
from hfftools.records import read_json_lines
from hfftools.text import units
from hfftools.train import checkpoint, job, loop
from hfftools.train.experiment import device_of
from hfftools.upstream.extract import extract
from hfftools.upstream.names import load_upstream
from hfftools.upstream.state_cache import HiddenCache


def train(root, options, *more):
    return job.train(root, [], [*options, *more])


def same(a, b):
    one, two = checkpoint.read(a)[0], checkpoint.read(b)[0]
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


def test_killed_at_any_moment_it_ends_with_the_same_weights(options, tmp_path):
    """SIGKILL, several times, wherever it is; dropout, SpecAugment, speeds and noise on, gradients accumulated."""
    more = ["task.dropout=0.3", "train.save_minutes=0", "train.accumulate=2", "train.epochs=3", "fuse.name=hff"]
    more += ["perturb.speeds=[0.9,1.0]", "perturb.noise_share=0.5"]
    whole = train(tmp_path / "whole", options, *more)
    exp = ExpDir(tmp_path / "killed")
    command = [sys.executable, "-m", "hfftools.bin.train", str(exp.root), *options, *more]
    kills = 0
    for _ in range(30):
        process = subprocess.Popen(command, stderr=subprocess.PIPE, env={**os.environ, "OMP_NUM_THREADS": "1"})
        stamp = exp.state.stat().st_mtime_ns if exp.state.exists() else 0
        while process.poll() is None:
            now = exp.state.stat().st_mtime_ns if exp.state.exists() else 0
            if kills < 4 and now != stamp:
                time.sleep(0.05 * kills)
                process.send_signal(signal.SIGKILL)
                kills += 1
                break
            time.sleep(0.005)
        if process.wait() == 0:
            break
    assert kills >= 2 and exp.final.exists()
    assert same(whole.final, exp.final)
    keys = ("epoch", "loss", "dev_error", "metric", "dev_loss")
    a, b = ([{k: r[k] for k in keys} for r in read_json_lines(e.history)] for e in (whole, exp))
    assert a == b and len(a) == 3


def test_a_second_seed_is_another_run_and_the_same_seed_the_same(options, tmp_path):
    first, again, other = (train(tmp_path / n, options, f"seed={s}") for n, s in (("a", 1), ("b", 1), ("c", 2)))
    assert same(first.final, again.final)
    assert not same(first.final, other.final)


def test_a_changed_option_is_refused_by_name_and_a_harmless_one_is_not(options, tmp_path):
    exp = train(tmp_path / "exp", options)
    before = exp.final.read_bytes()
    with pytest.raises(UserError, match=r"optim.head.lr was 0.001 and is now 0.5"):
        train(exp.root, options, "optim.head.lr=0.5")
    train(exp.root, options, "train.save_minutes=9")
    assert exp.final.read_bytes() == before


def test_cached_states_give_the_run_that_waveforms_give(options, corpus, encoder, tmp_path):
    sets = [f"{corpus}/{name}" for name in ("train", "dev", "test")]
    extract(str(encoder), sets, tmp_path / "feats", "all", 30.0, torch.device("cpu"))
    live = train(tmp_path / "live", options)
    cached = train(tmp_path / "cached", options, f"data.features={tmp_path}/feats")
    one, two = checkpoint.read(live.final)[0], checkpoint.read(cached.final)[0]
    assert all(torch.allclose(one[name], two[name], atol=2e-3) for name in one)
    assert len((tmp_path / "feats" / "dev" / "utt2shard").read_text().splitlines()) == 6
    cache = HiddenCache(tmp_path / "feats", "dev")
    cache.info_file.write_text(cache.info_file.read_text().replace('"upstream": "', '"upstream": "0'))
    with pytest.raises(UserError, match="run stage 2 again"):
        train(tmp_path / "stale", options, f"data.features={tmp_path}/feats")


def test_speech_is_perturbed_in_training_alone_and_not_from_a_cache(
    options, corpus, encoder, tmp_path, caplog, monkeypatch
):
    extract(
        str(encoder), [f"{corpus}/{s}" for s in ("train", "dev")], tmp_path / "feats", "all", 30.0, device_of("cpu")
    )
    perturbed, change = set(), Perturb.__call__
    monkeypatch.setattr(
        Perturb, "__call__", lambda self, wav, utt, n: perturbed.add((utt, n)) or change(self, wav, utt, n)
    )
    changed = ["perturb.speeds=[0.7,0.8]", "perturb.noise_share=1"]
    plain, live = train(tmp_path / "plain", options), train(tmp_path / "live", options, *changed)
    monkeypatch.setattr(logging.getLogger("hff"), "propagate", True)
    kept = train(tmp_path / "kept", options, *changed, f"data.features={tmp_path}/feats")
    assert sum("perturb changes the training speech" in line for line in caplog.messages) == 1
    assert perturbed == {(utt.id, epoch) for utt in datadir.read(corpus / "train") for epoch in (0, 1)}
    losses = [[r["loss"] for r in read_json_lines(exp.history)] for exp in (plain, live, kept)]
    assert losses[0] != losses[1] == losses[2]
    used = [json.loads(exp.resources.read_text()) for exp in (plain, live, kept)]
    assert not used[2]["cached"]
    assert 1.25 < used[1]["audio_seconds"] / used[0]["audio_seconds"] < 1.43, "seconds of the perturbed speech"
    assert used[1]["steps"] > used[0]["steps"], "batches are planned by them too"


def test_labels_that_the_highest_speed_leaves_no_frames_for_are_named(
    options, corpus, encoder, tmp_path, caplog, monkeypatch
):
    data = Speech(datadir.read(corpus / "train"), units.load(corpus / "units"))
    upstream, samples_B = load_upstream(str(encoder)), 16000 * torch.tensor(data.durations_s)
    needed_B = torch.tensor([frames_needed(row) for row in data.targets])
    lost = {
        f: (upstream.out_lens((samples_B / f).long()) < needed_B).nonzero() for f in np.arange(1.0, 2.0, 0.02).round(2)
    }
    assert not len(lost[1.0])
    few, many = (next(f for f in lost if len(lost[f]) >= n) for n in (1, 0.1 * len(data) + 1))
    first = data.utterances[lost[few][0]].id
    monkeypatch.setattr(logging.getLogger("hff"), "propagate", True)
    train(tmp_path / "fast", options, f"perturb.speeds=[1.0,{few}]", "train.epochs=1")
    assert len({line for line in caplog.messages if "left out" in line and " needs " in line}) == len(lost[few])
    assert f"{first} needs" in caplog.text and f"at speed {few}; left out" in caplog.text
    with pytest.raises(
        UserError, match=rf"{len(lost[many])} of .* too few frames for their labels at speed {many}, first"
    ):
        train(tmp_path / "faster", options, f"perturb.speeds=[1.0,{many}]")


def test_other_noise_is_refused_by_name(options, tmp_path):
    (tmp_path / "noise").mkdir()
    waveform.save(tmp_path / "noise" / "a.wav", np.random.default_rng(0).standard_normal(16000) / 10)
    noisy = [*options, f"perturb.noise={tmp_path}/noise", "perturb.noise_share=0.5", "train.epochs=1"]
    train(tmp_path / "exp", noisy)
    train(tmp_path / "exp", noisy)
    waveform.save(tmp_path / "noise" / "b.wav", np.zeros(16000))
    with pytest.raises(UserError, match="content of perturb.noise: segments, perturb.noise: audio has changed since"):
        train(tmp_path / "exp", noisy)


def test_decoding_needs_the_experiment_alone_and_is_done_once(options, tmp_path):
    exp = train(tmp_path / "exp", options)
    (folder,) = decode_sets.decode([exp.root], [], [])
    assert folder == exp.decode("test")
    scores = decode_sets.read_scores(folder)
    assert scores["wer"].sentences == 6 and (folder / "score_wer" / "result.txt").exists()
    stamp = (folder / "text").stat().st_mtime_ns
    decode_sets.decode([exp.root], [], [])
    assert (folder / "text").stat().st_mtime_ns == stamp
    assert json.loads(exp.resources.read_text())["parameters"]["upstream"] == 0
    with pytest.raises(UserError, match="not an experiment"):
        decode_sets.decode([tmp_path / "nothing"], [], [])


def test_training_learns(options, tmp_path):
    """The loss on 24 utterances falls below that of the first epochs; else audio and update are not connected."""
    more = ["train.epochs=25", "data.batch_seconds=6", "task.head_dim=64", "optim.head.lr=0.01", "optim.fuse.lr=0.01"]
    exp = train(tmp_path / "exp", options, *more, "augment.time_masks=0", "augment.channel_masks=0", "task.dropout=0")
    losses = [record["loss"] for record in read_json_lines(exp.history)]
    assert losses[-1] < 0.6 * losses[1]


def test_unknown_symbols_are_named(options, corpus, tmp_path):
    units.train("char", ["abc"], None, tmp_path / "units")
    with pytest.raises(UserError, match="symbols that the units lack, first"):
        train(tmp_path / "exp", options, f"data.units={tmp_path}/units")


def test_references_that_no_hypothesis_can_equal_are_reported(options, corpus, tmp_path, caplog, monkeypatch):
    for name in ("dev", "test"):
        shutil.copytree(corpus / name, tmp_path / name)
        rows = read_table(tmp_path / name / "text")
        write_table(tmp_path / name / "text", {utt: text.upper() for utt, text in rows.items()})
    monkeypatch.setattr(log, "propagate", True)
    exp = train(tmp_path / "exp", options, f"data.dev={tmp_path}/dev", "train.epochs=1")
    monkeypatch.setattr(log, "propagate", True)  # training has turned it off
    decode_sets.decode([exp.root], [f"{tmp_path}/test"], [])
    for name in ("dev", "test"):
        count = len(read_table(tmp_path / name / "text"))
        clause = f"{tmp_path}/{name}/text: {count} of {count} utterances have symbols that the units lack, first "
        assert any(message.startswith(clause) and "count as errors" in message for message in caplog.messages), name


def test_labels_longer_than_frames_are_named_before_training(options, corpus, tmp_path):
    data = tmp_path / "train"
    shutil.copytree(corpus / "train", data)
    lines = (data / "text").read_text().splitlines()
    utt = lines[0].split()[0]
    (data / "text").write_text("\n".join([lines[0] + " set the light" * 40, *lines[1:]]) + "\n")
    exp = train(tmp_path / "exp", options, f"data.train={data}", "train.epochs=1")
    assert exp.final.exists()
    (data / "text").write_text("\n".join(line + " set the light" * 40 for line in lines) + "\n")
    with pytest.raises(UserError, match=rf"(\d+) of \1 utterances have too few frames for their labels, first {utt}"):
        train(tmp_path / "none", options, f"data.train={data}")


def test_a_loss_that_is_not_finite_stops_the_run_with_advice(options, tmp_path):
    with pytest.raises(UserError, match="not finite|loss is (nan|inf) in epoch .; lower optim"):
        train(
            tmp_path / "exp", options, "optim.head.lr=1e30", "optim.fuse.lr=1e30", "optim.clip=1e30", "train.epochs=5"
        )


def test_an_all_blank_collapse_stops_the_run_with_advice(options, tmp_path):
    with pytest.raises(UserError, match="empty for 2 epochs .the all-blank collapse"):
        train(tmp_path / "exp", options, "optim.head.lr=0.01", "train.blank_epochs=2", "train.epochs=12")


def test_a_model_that_recognises_nothing_is_warned_of(options, tmp_path):
    exp = train(tmp_path / "exp", options, "optim.head.lr=1e-9", "optim.fuse.lr=1e-9", "train.epochs=1")
    log = exp.log.read_text()
    assert "this model recognises nothing: on dev, " in log and "; train longer, or with another" in log


def test_time_may_end_a_training_of_any_number_of_epochs(options, tmp_path, monkeypatch):
    planned = []
    monkeypatch.setattr(loop, "plan", lambda *args: planned.append(args) or plan(*args))
    train(tmp_path / "exp", options, "train.epochs=200000", "train.minutes=1e-6")
    assert loop.PLANNED < len(planned) < loop.PLANNED + 5


def test_steps_are_counted_and_beyond_the_planned_epochs_estimated(monkeypatch):
    """Epoch n has n % 3 + 1 batches, of which two make a step: 1, 1, 2, 1, 1, 2, … steps."""
    monkeypatch.setattr(loop, "PLANNED", 6)
    for epochs, steps in ((1, 1), (4, 5), (6, 8), (9, 12), (600, 800)):
        run = object.__new__(loop.Loop)
        run.config = SimpleNamespace(train=SimpleNamespace(epochs=epochs, accumulate=2))
        run._plan = lambda epoch: [[0]] * (epoch % 3 + 1)
        assert run._count_steps() == steps


def test_auto_precision_is_recorded_and_kept_when_a_run_resumes(options, tmp_path, monkeypatch):
    monkeypatch.setattr("hfftools.nn.precision._native", lambda device: False)
    exp = train(tmp_path / "exp", options, "train.bf16=auto", "train.epochs=1")
    assert OmegaConf.load(exp.config).train.bf16 is False and json.loads(exp.resources.read_text())["bf16"] is False
    monkeypatch.setattr("hfftools.nn.precision._native", lambda device: True)  # as on another machine
    exp.final.unlink()
    train(exp.root, options, "train.bf16=auto", "train.epochs=1")
    assert OmegaConf.load(exp.config).train.bf16 is False and exp.final.exists()


@needs_bf16
@pytest.mark.parametrize("head", ["linear", "blstm", "conformer"])
def test_bf16_autocast_trains(options, tmp_path, head):
    exp = train(tmp_path / "exp", options, "train.bf16=true", f"task.head={head}", "train.epochs=1")
    assert exp.final.exists()


@pytest.mark.parametrize("workers", [0, 1])
def test_a_corrupt_recording_is_named_in_one_line(options, corpus, tmp_path, workers):
    data = tmp_path / "train"
    shutil.copytree(corpus / "train", data)
    bad = tmp_path / "bad.wav"
    bad.write_bytes(b"RIFF no audio")
    lines = (data / "wav.scp").read_text().splitlines()
    (data / "wav.scp").write_text("\n".join([f"{lines[0].split()[0]} {bad}", *lines[1:]]) + "\n")
    with pytest.raises(UserError) as caught:
        train(tmp_path / "exp", options, f"data.train={data}", f"data.workers={workers}")
    assert str(bad) in str(caught.value) and len(str(caught.value).splitlines()) == 1


def test_a_broken_state_is_refused(options, tmp_path):
    exp = train(tmp_path / "exp", options)
    exp.final.unlink()
    exp.state.write_bytes(b"no state")
    with pytest.raises(UserError, match="state.pt is damaged .*remove it"):
        train(exp.root, options)


def test_changed_data_or_units_are_refused_by_name(options, corpus, tmp_path):
    data = tmp_path / "train"
    shutil.copytree(corpus / "train", data)
    shutil.copytree(corpus / "units", tmp_path / "units")
    here = [*options, f"data.train={data}", f"data.units={tmp_path}/units"]
    train(tmp_path / "exp", here)
    (data / "text").write_text((data / "text").read_text().replace(" the ", " that "))
    with pytest.raises(UserError, match="content of data.train: text has changed since"):
        train(tmp_path / "exp", here)
    units.train("char", ["abcdefgh"], None, tmp_path / "units")
    with pytest.raises(UserError, match="data.units"):
        train(tmp_path / "exp", here)


def test_a_failed_start_does_not_lock_the_experiment(options, tmp_path):
    with pytest.raises(UserError, match="did you mean hff_tiny"):
        train(tmp_path / "exp", options, "upstream=hff_tny")
    assert not (tmp_path / "exp").exists()
    assert train(tmp_path / "exp", options).final.exists()


def test_a_collapsed_run_stays_collapsed(options, tmp_path):
    more = ["optim.head.lr=0.01", "train.blank_epochs=2", "train.epochs=12"]
    for _ in range(2):
        with pytest.raises(UserError, match="all-blank collapse"):
            train(tmp_path / "exp", options, *more)


def test_decoding_takes_no_option_that_changes_a_result(options, corpus, tmp_path):
    exp = train(tmp_path / "exp", options, "fuse.name=layer")
    with pytest.raises(UserError, match=r"'fuse.layers=\[0\]': after training only device"):
        decode_sets.decode([exp.root], [], ["fuse.layers=[0]"])
    shutil.copytree(corpus / "test", tmp_path / "other" / "test")
    with pytest.raises(UserError, match="two data directories are called test"):
        decode_sets.decode([exp.root], [f"{corpus}/test", f"{tmp_path}/other/test"], [])
    folders = decode_sets.decode([exp.root, exp.root / "."], [f"{corpus}/test", f"{corpus}/test/"], [])
    assert folders == [exp.root / "decode" / "test"], "a set or an experiment that is named twice counts once"


@pytest.mark.parametrize(
    "option, reason",
    [
        ("train.epochs=0", "train.epochs: 0 is below 1"),
        ("train.accumulate=0", "train.accumulate: 0 is below 1"),
        ("optim.clip=0", "optim.clip: 0"),
        ("task.dropout=2", "task.dropout"),
        ("task.head_layers=0", "task.head_layers"),
        ("seed=-1", "seed: -1 is not from 0 to "),
        ("seed=9223372036854775808", "seed: 9223372036854775808 is not from 0 to 9223372036854775807"),
        ("fuse.width=-3", "fuse.width"),
        ("augment.time_width=-1", "augment.time_width"),
        ("fuse=null", "fuse takes a name"),
        ("fuse.name=3", "there is no fuse '3'"),
        ("device=abacus", "device=abacus"),
        ("optim=3", "optim=3"),
    ],
)
def test_values_out_of_range_are_one_line(options, tmp_path, option, reason):
    with pytest.raises(UserError) as caught:
        train(tmp_path / "exp", options, option)
    assert reason in str(caught.value) and "\n" not in str(caught.value)
    assert not (tmp_path / "exp" / "config.yaml").exists()


@pytest.mark.parametrize("part", ["train", "dev"])
def test_a_set_in_which_every_transcript_is_empty_is_refused(options, corpus, tmp_path, part):
    shutil.copytree(corpus / part, tmp_path / part)
    write_table(tmp_path / part / "text", dict.fromkeys(read_table(tmp_path / part / "text"), ""))
    with pytest.raises(UserError, match=f"data.{part}: every line of {tmp_path}/{part}/text is empty"):
        train(tmp_path / "exp", options, f"data.{part}={tmp_path}/{part}")
