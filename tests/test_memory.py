"""Where memory runs out, one line names the longest utterance of the batch and the option that helps."""

import os
import re
import signal
import subprocess
import sys

import pytest
import torch

from hfftools import memory
from hfftools.audio import waveform
from hfftools.audio.segment import Piece
from hfftools.bin import extract as bin_extract
from hfftools.cli import run_main
from hfftools.data import datadir
from hfftools.data.batch import Speech, plan
from hfftools.infer.transcribe import Recording, _recognise
from hfftools.log import UserError
from hfftools.model import Model
from hfftools.probe.job import probe
from hfftools.records import readable
from hfftools.text import units
from hfftools.train.experiment import configure
from hfftools.train.job import train
from hfftools.upstream.extract import extract

GPU = "CUDA out of memory. Tried to allocate 20.00 GiB. GPU 0 has a total capacity of 79.10 GiB of which 1 GiB is free."
CPU = "[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"


@pytest.fixture(autouse=True)
def no_batch():
    memory.work_on((), ())


def last_line(capsys, main) -> str:
    """The message with which a command ends that meets an error."""
    with pytest.raises(SystemExit) as stopped:
        run_main(main)
    assert "\n" not in stopped.value.code
    return stopped.value.code


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError(GPU), RuntimeError(CPU), MemoryError(), MemoryError("std::bad_alloc"),
        RuntimeError("could not create a primitive"), OSError(12, "Cannot allocate memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. "),
        MemoryError("Caught MemoryError in DataLoader worker process 0.\nOriginal Traceback:\n x\nMemoryError"),
    ],
    ids=lambda error: f"{type(error).__name__} {str(error)[:20]}",
)  # fmt: skip
def test_every_way_to_run_out_names_the_longest_utterance(error):
    memory.work_on(["a", "long", "b"], [2.0, 3600.0, 5.0])
    line = memory.explain(error)
    assert "\n" not in line and "batch of 3 utterances, the longest long of 3600.0 s" in line
    assert "lower data.batch_seconds" in line and "enforce fail" not in line and len(line) < 400


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("DataLoader worker (pid 7) is killed by signal: Bus error. It is possible that dataloader's …"),
        RuntimeError("unable to open shared memory object </torch_7_1_0> in read-write mode: Too many open files (24)"),
        RuntimeError("unable to write to file </torch_7_1_0>: No space left on device (28)"),
        RuntimeError("unable to mmap 640 bytes from file </torch_7_1_0>: Cannot allocate memory (12)"),
        RuntimeError("DataLoader worker (pid(s) 7) exited unexpectedly"),
        OSError(24, "Too many open files"), RuntimeError("received 0 items of ancdata"),
    ],
    ids=lambda error: str(error)[:30],
)  # fmt: skip
def test_shared_memory_is_told_from_memory(error):
    assert "set data.workers=0 (hff-probe: workers=0, hff-extract: --workers 0)" in memory.explain(error)


@pytest.mark.parametrize(
    "message", ["could not create a primitive descriptor for the LSTM", "shape '[2]' is invalid for input of size 3"]
)
def test_other_errors_are_not_explained_by_memory(message):
    assert memory.explain(RuntimeError(message)) is None

    def main():
        raise RuntimeError(message)

    with pytest.raises(RuntimeError, match=re.escape(message)):
        run_main(main)


def test_an_utterance_alone_in_its_batch_is_to_be_divided():
    memory.work_on(["long"], [3600.0])
    assert "at long of 3600.0 s, alone in its batch" in memory.explain(MemoryError())
    memory.work_on((), ())
    assert memory.explain(MemoryError()).startswith("out of memory; lower data.batch_seconds")


@pytest.mark.parametrize("error", [torch.OutOfMemoryError(GPU), RuntimeError(CPU)])
def test_a_file_is_not_to_blame_for_too_little_memory(tmp_path, error):
    (tmp_path / "state.pt").write_text("whole")
    with pytest.raises(type(error), match="allocate"), readable(tmp_path / "state.pt"):
        raise error


def longest(folder, utterances) -> str:
    chosen = [u for u in datadir.read(folder) if u.id in utterances]
    return max(chosen, key=lambda u: u.duration_s).id


@pytest.mark.parametrize("part", ["train", "dev"])
def test_training_that_runs_out_names_the_longest_utterance_of_its_batch(
    corpus, options, tmp_path, capsys, monkeypatch, part
):
    batches, encode = [], Model.encode

    def fail(self, batch, *more):
        if self.training == (part == "train"):
            batches.append(batch.ids)
            raise torch.OutOfMemoryError(GPU)
        return encode(self, batch, *more)

    monkeypatch.setattr(Model, "encode", fail)
    words = [*options, "tune.name=frozen", "fuse.name=hff", "train.accumulate=2"]
    line = last_line(capsys, lambda: train(tmp_path / "exp", [], words))
    named = longest(corpus / part, batches[0])
    assert f"batch of {len(batches[0])} utterances, the longest {named} of" in line and "CUDA out of memory" in line
    assert line.partition("error: ")[2] in (tmp_path / "exp/log.txt").read_text()


def test_extraction_names_the_utterance_and_keeps_no_half_cache(corpus, encoder, tmp_path, capsys, monkeypatch):
    def fail(*_):
        raise MemoryError

    monkeypatch.setattr(Speech, "collate", fail)
    cpu = torch.device("cpu")
    line = last_line(capsys, lambda: extract(str(encoder), [f"{corpus}/dev"], tmp_path / "feats", "all", 12.0, cpu))
    assert "out of memory in a batch of 2 utterances, the longest" in line
    assert not (tmp_path / "feats").exists()


def test_transcription_names_the_recording_and_the_time_in_it(capsys):
    class Full(torch.nn.Linear):
        def predict(self, batch):
            raise torch.OutOfMemoryError(GPU)

    recording = Recording("talk.wav", None, "talk")
    pool = [(recording, Piece(at_s, torch.zeros(16000 * seconds).numpy())) for at_s, seconds in ((0, 1), (7, 2))]
    line = last_line(capsys, lambda: _recognise(Full(1, 1), pool, 120.0, print))
    assert "batch of 2 utterances, the longest talk.wav at 7.0 s of 2.0 s" in line


@pytest.mark.parametrize("size", [10**12, 10**20])
@pytest.mark.parametrize(
    "words",
    [
        ["task.head_dim"], ["task.head=conformer", "task.head_dim"], ["tune.name=houlsby", "tune.width"],
        ["fuse.name=concat", "fuse.out_dim"],
    ],
    ids=lambda words: words[-1],
)  # fmt: skip
def test_a_size_beyond_the_memory_is_named(words, size, corpus):
    *others, option = words
    config = configure([], [*others, f"{option}={size}"])
    with pytest.raises(UserError, match=f"^{option}: {size} is too large"):
        Model(config, units.load(corpus / "units"))


def test_only_what_is_too_large_is_named_so():
    with pytest.raises(TypeError, match="unsupported"), memory.building({"dim": 3}):
        raise TypeError("unsupported")
    with pytest.raises(MemoryError), memory.building({"dropout": 0.1}):  # no size among the options
        raise MemoryError
    with pytest.raises(UserError, match="^task.dim: 30 is too large"), memory.building(
        {"dim": 30, "layers": 2}, "task."
    ):
        raise MemoryError


def test_extraction_and_probing_load_audio_without_processes_where_asked(corpus, encoder, tmp_path, monkeypatch):
    counts = []
    batches = Speech.batches

    def watched(self, order, workers=0):
        counts.append(workers)
        return batches(self, order, workers)

    monkeypatch.setattr(Speech, "batches", watched)
    monkeypatch.setattr("sys.argv", ["hff-extract", "--workers", "0", "--upstream", str(encoder), "--device", "cpu"])
    sys.argv += ["--out", str(tmp_path / "feats"), f"{corpus}/dev"]
    bin_extract.main()
    assert counts == [0]
    words = [f"upstream={encoder}", f"train={corpus}/train", f"dev={corpus}/dev", f"units={corpus}/units", "epochs=1"]
    parts = ["parts=[asr,speaker,geometry]", "workers=0", "device=cpu"]
    exp = probe(tmp_path / "probe", [], [*words, *parts])
    assert len(counts) > 4 and set(counts) == {0}
    exp.probe.unlink()
    probe(exp.root, [], [*words, *parts[:1], "workers=1", "device=cpu"])  # it changes no result


def test_numbers_of_processes_and_seconds_are_checked(corpus, encoder):
    for option, value, words in (
        ("workers", -1, "--workers: -1 is below 0"),
        ("batch_seconds", 0.0, "--batch-seconds: 0.0"),
    ):
        given = {"batch_seconds": 12.0, "workers": 1, option: value}
        with pytest.raises(UserError, match=words):
            extract(
                str(encoder),
                [f"{corpus}/dev"],
                None,
                "all",
                given["batch_seconds"],
                torch.device("cpu"),
                given["workers"],
            )


def test_a_worker_killed_by_a_bus_error_asks_for_no_workers(corpus, capsys, monkeypatch):
    monkeypatch.setattr(waveform, "load", lambda *_: os.kill(os.getpid(), signal.SIGBUS))
    data = Speech(datadir.read(corpus / "dev"), None)
    line = last_line(capsys, lambda: list(data.batches(plan(data.durations_s, 12.0), workers=1)))
    assert "set data.workers=0" in line


LIMITED = """
import importlib, resource, sys
from pathlib import Path
import torch
import hfftools.infer.decode_sets, hfftools.infer.transcribe, hfftools.probe.job, hfftools.train.job
import hfftools.upstream.conformer
command = importlib.import_module(f"hfftools.bin.{sys.argv[1]}")
sys.argv[:2] = [f"hff-{sys.argv[1]}"]
pages = int(Path("/proc/self/statm").read_text().split()[0])
limit = pages * resource.getpagesize() + (1 << 30)
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
command.cli()
"""


def in_little_memory(*words) -> subprocess.CompletedProcess:
    """Run a command that may have 1 GB more of address space than its libraries take, an hour wants 100 GB."""
    return subprocess.run(
        [sys.executable, "-c", LIMITED, *map(str, words)], capture_output=True, text=True, timeout=300
    )


@pytest.fixture(scope="module")
def hour(corpus, tmp_path_factory):
    """A data directory with one utterance of an hour."""
    text = datadir.read(corpus / "train")[0].text
    root = tmp_path_factory.mktemp("hour")
    waveform.save(root / "long.wav", torch.zeros(3600 * waveform.RATE_HZ).numpy())
    datadir.write(root / "set", [datadir.Utterance("long", "s", str(root / "long.wav"), text, duration_s=3600.0)])
    return root / "set"


@pytest.fixture
def trained(options, tmp_path):
    return train(tmp_path / "trained", [], options).root


@pytest.mark.skipif(sys.platform != "linux", reason="reads the size of the process from /proc")
@pytest.mark.parametrize(
    "command",
    ["train", *(pytest.param(c, marks=pytest.mark.slow) for c in ("extract", "dev of train", "probe", "decode"))],
)
def test_an_hour_long_utterance_in_little_memory(tmp_path, corpus, encoder, options, trained, hour, command):
    common = [f"upstream={encoder}", "device=cpu"]
    probing = [f"train={hour}", f"dev={corpus}/dev", f"units={corpus}/units", "parts=[asr]", "epochs=1", "workers=0"]
    words = {
        "extract": ["--upstream", encoder, "--out", tmp_path / "feats", hour],
        "train": [tmp_path / "exp", *options, f"data.train={hour}", "data.workers=0"],
        "dev of train": [tmp_path / "exp", *options, f"data.dev={hour}", "data.workers=0"],
        "probe": ["--out", tmp_path / "probe", *common, *probing],
        "decode": [trained, "--data", hour, "device=cpu", "data.workers=0"],
    }[command]
    done = in_little_memory(command.split()[-1], *words)
    assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr
    assert "out of memory at long of 3600.0 s, alone in its batch" in done.stderr.strip().splitlines()[-1]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads the size of the process from /proc")
def test_an_hour_is_transcribed_in_little_memory(trained, hour):
    done = in_little_memory("transcribe", trained, hour.parent / "long.wav", "device=cpu")
    assert done.returncode == 0, done.stderr


def test_compiled_convolutions_of_past_lengths_are_dropped():
    """oneDNN keeps one for each length, by default up to 1024, each with its own memory."""
    script = """
import hfftools, torch
conv = torch.nn.Conv1d(64, 64, 3)
for length in [*range(100, 200), 199, 100]:
    conv(torch.zeros(4, 64, 800 + length))
"""
    told = os.environ | {"ONEDNN_VERBOSE": "2"}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, env=told)
    found = re.findall(r"create:(cache_hit|cache_miss),cpu,convolution,", done.stdout)
    assert found[-2:] == ["cache_hit", "cache_miss"]
