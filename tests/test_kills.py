"""Commands that are killed at some moment and run again leave what an uninterrupted run leaves.

tests/kills.py does the same with all stages of egs/mini, for as long as one likes; test_job.py with a training.
"""

import os
import shutil
import signal
import traceback
from pathlib import Path

import pytest
import torch
from kills import contents, differences

from hfftools.infer.decode_sets import decode
from hfftools.pretrain.masked import pretrain
from hfftools.probe.job import probe
from hfftools.train.job import train
from hfftools.upstream.extract import extract

SHARES = (0.5, 0.5, 0.9, 0.6)  # of the renamings that are left, at which a command is killed, once for each


@pytest.fixture
def commands(corpus, encoder, options):
    """{name: a function that works in the folder exp of the current directory}."""
    small = ["encoder.dim=32", "encoder.layers=2", "encoder.heads=2", "targets.clusters=12", "steps=12"]
    small += ["save_steps=3", "log_steps=2"]  # so that a line of history.jsonl is a mean over steps of two calls
    sets = [f"{name}={corpus}/{name}" for name in ("train", "dev", "units")]
    probing = [f"upstream={encoder}", *sets, "parts=[asr]", "epochs=2", "batch_seconds=12", "workers=0", "device=cpu"]

    def train_and_decode():
        decode([train(Path("exp/a"), [], [*options, "train.save_minutes=0"]).root], [], ["device=cpu"])

    def keep_states():
        for name in ("train", "dev"):
            extract(str(encoder), [f"{corpus}/{name}"], Path("exp/feats"), "all", 4.0, torch.device("cpu"), workers=0)

    return {
        "extract": keep_states,
        "pretrain": lambda: pretrain(Path("exp/pretrain"), [], [f"data=[{corpus}/train]", "device=cpu", *small]),
        "probe": lambda: probe(Path("exp/probe"), [], probing),
        "train and decode": train_and_decode,
    }


def renamings(command, monkeypatch):
    """Run a command; return how often it gave a file its final name."""
    count, replace = [], os.replace
    with monkeypatch.context() as watch:
        watch.setattr(os, "replace", lambda *names: (count.append(names), replace(*names)))
        command()
    return len(count)


def killed(command, number):
    """Run a command in a process of its own, killed at its renaming of this number; return whether there were so many."""
    child = os.fork()
    if not child:
        os.setsid()  # its own processes are killed with it
        left, replace = iter(range(number)), os.replace

        def replace_or_end(*names):
            if next(left, None) is None:
                os.killpg(0, signal.SIGKILL)
            replace(*names)

        os.replace = replace_or_end
        try:
            command()
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    assert os.WIFSIGNALED(status) or os.WEXITSTATUS(status) == 0  # not killed, it must succeed
    return os.WIFSIGNALED(status)


@pytest.mark.parametrize("name", ["extract", "pretrain", "probe", "train and decode"])
def test_a_killed_command_that_is_run_again_leaves_the_same(name, commands, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    count, wanted = renamings(commands[name], monkeypatch), contents(tmp_path)
    shutil.rmtree("exp")
    kills = [killed(commands[name], round(share * count / 2)) for share in SHARES]
    assert kills[0] and sum(kills) >= 2  # the last calls may have less to do than the first
    commands[name]()
    assert wanted and differences(wanted, contents(tmp_path)) == []
    assert not list(tmp_path.rglob("*.tmp"))
