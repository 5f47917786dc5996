"""A sweep is a queue: it goes on where it stopped, leaves out what diverges, and its choice is what training takes."""

import json

import pytest
from omegaconf import OmegaConf

from hfftools.log import UserError
from hfftools.records import read_json_lines
from hfftools.train import job
from hfftools.train.loop import Loop
from hfftools.train.sweep import sweep

KEYS = ["optim.fuse.lr", "optim.head.lr"]


def test_the_best_value_is_chosen_and_nothing_is_trained_twice(options, tmp_path):
    best = sweep(tmp_path / "lr", [], options, KEYS, ["1e-7", "1e-2"])
    runs = json.loads((tmp_path / "lr" / "sweep.json").read_text())["runs"]
    chosen = min(runs, key=lambda value: (runs[value]["dev_error"], runs[value]["dev_loss"]))
    assert {run["metric"] for run in runs.values()} == {"wer"}
    assert chosen == "1e-2" and OmegaConf.load(best) == {"optim": {"fuse": {"lr": 0.01}, "head": {"lr": 0.01}}}
    assert (tmp_path / "lr" / "best").resolve() == tmp_path / "lr" / "1e-2"
    stamps = {path: path.stat().st_mtime_ns for path in (tmp_path / "lr").glob("1e*/checkpoints/final.safetensors")}
    assert len(stamps) == 2
    assert sweep(tmp_path / "lr", [], options, KEYS, ["1e-7", "1e-2", "3e-2"]) == best
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in stamps.items())
    exp = job.train(tmp_path / "exp", [best], options)
    assert OmegaConf.load(exp.config).optim.head.lr == 0.01


def test_a_value_that_fails_is_left_out_and_a_mistake_is_not(options, tmp_path):
    best = sweep(tmp_path / "lr", [], options, ["optim.head.lr"], ["1e-3", "1e30"])
    assert OmegaConf.load(best).optim.head.lr == 1e-3
    with pytest.raises(UserError, match="no value of optim.head.lr could be trained with"):
        sweep(tmp_path / "hot", [], options, ["optim.head.lr"], ["1e30"])
    with pytest.raises(UserError, match="there is no option 'optim.head.rate'"):
        sweep(tmp_path / "wrong", [], options, ["optim.head.rate"], ["1e-3"])


def test_a_value_that_cannot_name_a_folder_is_refused(options, tmp_path):
    for value in ("/abs", "../x", "best", ""):
        with pytest.raises(UserError, match="cannot name a folder"):
            sweep(tmp_path / "lr", [], options, ["data.train"], ["1e-3", value])
    assert not (tmp_path / "lr").exists()


def test_killed_at_the_cap_it_still_ends(options, tmp_path, monkeypatch):
    """The state is saved by the step that crosses the cap, and the process dies before dev is scored."""
    capped = [*options, "train.epochs=50", "train.minutes=0.0001", "train.save_minutes=0", "data.batch_seconds=4"]
    end = Loop._end_epoch
    monkeypatch.setattr(Loop, "_end_epoch", lambda self: self._save() or (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        job.train(tmp_path / "exp", [], capped)
    monkeypatch.setattr(Loop, "_end_epoch", end)
    exp = job.train(tmp_path / "exp", [], capped)
    assert exp.final.exists() and len(read_json_lines(exp.history)) == 1


def test_a_cap_on_minutes_ends_a_run_with_what_there_is(options, tmp_path):
    exp = job.train(tmp_path / "exp", [], [*options, "train.epochs=50", "train.minutes=0.001"])
    history = read_json_lines(exp.history)
    assert exp.final.exists() and 1 <= len(history) < 50
    assert json.loads(exp.resources.read_text())["epochs"] == len(history)
    assert "stopped by train.minutes" in exp.log.read_text()
