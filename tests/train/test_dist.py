"""Training in two processes of torchrun, on the CPU: the weights of one, killed or not; an error is reported once."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hfftools import dist
from hfftools.expdir import ExpDir
from hfftools.log import UserError
from hfftools.records import read_json_lines
from hfftools.train import checkpoint, job

TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
MORE = [
    "train.accumulate=2", "train.save_minutes=0", "train.epochs=3", "task.dropout=0.3", "tune.name=houlsby",
    "optim.upstream.freeze_steps=3",
]  # fmt: skip


def start(*command):
    """Two processes of a script or of `-m MODULE`."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [*TORCHRUN, *map(str, command)]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)


def test_two_processes_have_the_weights_of_one_though_they_are_killed(options, tmp_path):
    whole = job.train(tmp_path / "whole", [], [*options, *MORE])
    exp = ExpDir(tmp_path / "killed")
    command = ("-m", "hfftools.bin.train", exp.root, *options, *MORE)
    process = start(*command)
    while not exp.state.exists() and process.poll() is None:
        time.sleep(0.01)
    for worker in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split():
        os.kill(int(worker), signal.SIGKILL)
    process.communicate()
    assert process.returncode != 0
    assert exp.state.exists() and not exp.final.exists()
    process = start(*command)
    report = process.communicate()[1]
    assert process.returncode == 0, report
    assert "resuming at epoch" in report and report.count("average of epochs") == report.count("wrote ") == 1
    spent = [json.loads(e.resources.read_text()) for e in (whole, exp)]
    assert spent[1]["audio_seconds"] == pytest.approx(spent[0]["audio_seconds"]) and spent[1]["processes"] == 2
    one, two = checkpoint.read(whole.final)[0], checkpoint.read(exp.final)[0]
    assert one.keys() == two.keys()
    assert max((one[name] - two[name]).abs().max().item() for name in one) < 1e-6
    for a, b in zip(*(read_json_lines(e.history) for e in (whole, exp)), strict=True):
        assert a["dev_error"] == b["dev_error"] and a["empty"] == b["empty"]
        assert [a[k] for k in ("loss", "dev_loss", "grad_norm")] == pytest.approx(
            [b[k] for k in ("loss", "dev_loss", "grad_norm")]
        )
    assert len(list(exp.tensorboard.iterdir())) <= 2, "one file a call: only the first process writes"


def test_an_error_of_the_second_process_is_reported_once_and_ends_both(options, corpus, tmp_path):
    data = tmp_path / "train"
    shutil.copytree(corpus / "train", data)
    (tmp_path / "bad.wav").write_bytes(b"RIFF no audio")
    lines = (data / "wav.scp").read_text().splitlines()
    (data / "wav.scp").write_text("".join(f"{line.split()[0]} {tmp_path}/bad.wav\n" for line in lines))
    more = ["train.accumulate=2", "train.epochs=1", f"data.train={data}"]
    process = start("-m", "hfftools.bin.train", tmp_path / "exp", *options, *more)
    report = process.communicate()[1]
    assert process.returncode != 0
    assert report.count("error: audio") == 1 and "Error" not in report.partition("torch/distributed")[0]
    assert any(f"{tmp_path}/bad.wav" in line for line in report.splitlines()[-4:]), "torchrun's report ends with it"


def test_a_step_that_cannot_be_dealt_evenly_is_refused(options, tmp_path, monkeypatch):
    monkeypatch.setattr(dist, "world", lambda: 2)
    with pytest.raises(UserError, match="the 3 batches of a step cannot be divided among 2 .* set train.accumulate=4,"):
        job.train(tmp_path / "exp", [], [*options, "train.accumulate=3"])
    assert not (tmp_path / "exp").exists()


SCRIPT = """
import torch
from hfftools import dist

with dist.join():
    items = [f"item {n}" for n in range(5)]
    assert list(dist.deal(items)) == items[dist.rank() :: 2]
    assert dist.collect([item.upper() for item in dist.deal(items)]) == [item.upper() for item in items]
    assert dist.collect(list(dist.deal(items[:1]))) == items[:1]
    assert dist.total(1.0, dist.rank()) == [2.0, 1.0]
    both, second, none = (torch.nn.Parameter(torch.zeros(2, n).t()) for n in (3, 1, 2))
    both.grad = torch.full_like(both, dist.rank() + 1.0)
    if dist.rank() == 1:
        second.grad = torch.ones_like(second)
    dist.add_gradients([both, second, none])
    assert (both.grad == 3).all() and (second.grad == 1).all() and none.grad is None
    assert both.grad.shape == both.shape
    assert dist.is_main() == (dist.rank() == dist.local_rank() == 0)
"""


def test_shares_sums_and_gradients(tmp_path):
    (tmp_path / "script.py").write_text(SCRIPT)
    process = start(tmp_path / "script.py")
    report = process.communicate()[1]
    assert process.returncode == 0, report


def test_alone_nothing_is_shared():
    assert dist.world() == 1 and dist.is_main() and dist.deal([1, 2]) == dist.collect([1, 2]) == [1, 2]
    assert dist.total(3.0) == [3.0]
    with dist.join():
        assert dist.world() == 1
