"""A disk that takes no more: one line with the path and the reason, nothing older lost, and the same command goes on."""

import errno
import os
import re
import resource
import shutil
import subprocess
import sys
import tarfile

import numpy as np
import pytest
import soundfile
import torch
from safetensors.torch import save_file

from hfftools.cli import run_main
from hfftools.corpora import download
from hfftools.corpora.download import fetch
from hfftools.corpora.prepare import prepare
from hfftools.corpora.unpacking import unpack
from hfftools.decode import ngram
from hfftools.expdir import append_json_line, write_aside
from hfftools.figure import plt
from hfftools.infer.decode_sets import decode
from hfftools.infer.export import export
from hfftools.log import setup_logging
from hfftools.pretrain.masked import pretrain
from hfftools.probe.job import probe
from hfftools.report.results import report
from hfftools.text import units
from hfftools.train import checkpoint
from hfftools.train.job import train
from hfftools.upstream.extract import extract
from hfftools.upstream.state_cache import HiddenCache

NOISE = np.random.default_rng(0).random(50_000).astype(np.float32)


def picture(path):
    figure, axes = plt.subplots()
    axes.imshow(NOISE.reshape(200, 250))
    figure.savefig(path, format="png", dpi=150)


def numbers(path):
    with open(path, "wb") as file:
        np.savez(file, noise=NOISE)


WRITERS = {
    "torch": lambda path: torch.save({"w": torch.from_numpy(NOISE)}, path),
    "safetensors": lambda path: save_file({"w": torch.from_numpy(NOISE)}, path),
    "numpy": numbers,
    "soundfile": lambda path: soundfile.write(str(path), NOISE, 16000, format="WAV"),
    "matplotlib": picture,
    "text": lambda path: path.write_text("x" * 50_000),
}


@pytest.fixture
def limited():
    """Let no file become larger than 10,000 bytes."""
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, old[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, old)


@pytest.mark.parametrize("writer", WRITERS)
def test_every_writer_gives_the_path_and_the_reason(writer, tmp_path, limited):
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(OSError) as raised, write_aside(path) as aside:
        WRITERS[writer](aside)
    assert (raised.value.errno, raised.value.filename) == (errno.EFBIG, str(path))
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["file"]


def test_a_read_file_keeps_its_name_and_other_errors_stay(tmp_path, limited):
    with pytest.raises(FileNotFoundError) as raised, write_aside(tmp_path / "file"):
        open(tmp_path / "none")
    assert raised.value.filename == str(tmp_path / "none")
    append_json_line(tmp_path / "lines", {"a": "x" * 9_000})
    with pytest.raises(OSError) as raised:
        append_json_line(tmp_path / "lines", {"a": "x" * 9_000})
    assert raised.value.filename == str(tmp_path / "lines")
    cache = HiddenCache(tmp_path, "dev")
    with pytest.raises(OSError) as raised:
        cache.write([("u", {0: NOISE[None]})], [0], "x", {"upstream": "hash"})
    assert raised.value.filename == str(cache.folder / "states_00000.safetensors") and not cache.info_file.exists()


def refusal(function):
    """Return the line with which a command ends; None if it succeeds."""
    try:
        run_main(function)
    except SystemExit as end:
        assert isinstance(end.code, str) and "\n" not in end.code
        return end.code
    return None


def test_an_estimate_comes_before_extraction(corpus, encoder, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: shutil._ntuple_diskusage(10**9, 10**9, 10_000))
    cpu = torch.device("cpu")
    line = refusal(lambda: extract(str(encoder), [f"{corpus}/dev"], tmp_path, "all", 60, cpu))
    assert f"{tmp_path}/dev: what extraction writes takes about 6.66e-05 GB" in line and "1e-05 GB are free" in line
    assert not list(tmp_path.rglob("states_*"))


def test_standard_output_is_named(tmp_path):
    code = "from hfftools.cli import run_main; run_main(lambda: print('x' * 3))"
    with open("/dev/full", "w") as full:
        done = subprocess.run([sys.executable, "-c", code], stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 1
    assert done.stderr.endswith("standard output: No space left on device; make room, and run the same command again\n")
    assert done.stderr.count("\n") == 1


@pytest.fixture
def small_disk(tmp_path):
    """Return the folder of a disk of its own, and a function that sets its size in KiB, and other options."""
    place = tmp_path / "disk"
    place.mkdir()
    if os.geteuid() or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "test", place]).returncode:
        pytest.skip("only root can mount a small disk")
    yield place, lambda kib, how="rw": subprocess.run(["mount", "-o", f"remount,size={kib}k,{how}", place], check=True)
    setup_logging()  # closes the log files on it
    subprocess.run(["umount", "-l", place], check=True)


def commands(disk, corpus, encoder, options):
    """Return {name: (KiB that are too little, function)} of what writes, in an order in which each finds what it needs."""
    probing = [f"upstream={encoder}", f"train={corpus}/train", f"dev={corpus}/dev", f"units={corpus}/units"]
    probing += ["epochs=1", "device=cpu", "parts=[asr]"]
    small = ["encoder.dim=32", "encoder.layers=1", "encoder.heads=2", "steps=4", "save_steps=2", "targets.clusters=8"]
    return {
        "prepare": ([64], lambda: prepare("mini", None, disk / "data", 4)),
        "units": ([4], lambda: units.train("bpe", ["one two three"] * 9, 16, disk / "units").save(disk / "units")),
        "lm": ([4], lambda: ngram.make(["a b c d"] * 50, 3, None, disk / "lm")),
        "extract": ([64], lambda: extract(str(encoder), [f"{corpus}/dev"], disk / "f", "all", 60, torch.device("cpu"))),
        "probe": ([256], lambda: probe(disk / "probe", [], probing)),
        "pretrain": ([64, 1024], lambda: pretrain(disk / "pre", [], [f"data=[{corpus}/train]", "bf16=false", *small])),
        "train": ([16, 32, 64, 128, 256], lambda: train(disk / "exp", [], options)),
        "decode": ([8, 64], lambda: decode([disk / "exp"], [], ["device=cpu"])),
        "export": ([64], lambda: export(disk / "exp", disk / "exp.onnx")),
        "report": ([0], lambda: report([disk / "exp"], disk / "RESULTS.md", "R")),
    }


def test_commands_end_in_one_line_and_go_on_once_there_is_room(small_disk, corpus, encoder, options, tmp_path):
    disk, resize = small_disk
    for name, (sizes, command) in commands(disk, corpus, encoder, options).items():
        if name == "export":
            pytest.importorskip("onnx")
        used = shutil.disk_usage(disk).used >> 10
        for free in sizes:
            resize(max(4, used + free))
            line = refusal(command)
            assert str(disk) in line and ("No space left on device; make room" in line or "GB are free" in line), name
            assert not list(disk.rglob("*.tmp")), name
        resize(64 << 10)
        assert refusal(command) is None, name
    never_full = train(tmp_path / "exp", [], options)
    assert checkpoint.digest(never_full.final) == checkpoint.digest(disk / "exp" / "checkpoints" / "final.safetensors")


def test_a_disk_that_is_read_only_is_named(small_disk, corpus, encoder, options):
    disk, resize = small_disk
    resize(64 << 10, "ro")
    for name, (_, command) in commands(disk, corpus, encoder, options).items():
        if name not in ("decode", "export", "report"):  # which need an experiment
            assert re.search(rf"{disk}\S*: Read-only file system", refusal(command)), name


def test_a_full_disk_is_not_blamed_on_an_archive_or_a_server(small_disk, tmp_path, server, monkeypatch):
    disk, resize = small_disk
    resize(128)
    (tmp_path / "a").write_bytes(bytes(1 << 20))
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as tar:
        tar.add(tmp_path / "a", "a")
    line = refusal(lambda: unpack(tmp_path / "a.tar.gz", disk / "out"))
    assert f"{disk}/out: No space left on device" in line
    shutil.rmtree(disk / "out")
    server.files["/a"] = bytes(1 << 20), 1 << 20
    assert "the rest of a takes about 0.00105 GB" in refusal(lambda: fetch(f"{server.url}/a", disk / "a"))
    monkeypatch.setattr(download, "check_room", lambda *_: None)
    assert f"{disk}/a.part: No space left on device" in refusal(lambda: fetch(f"{server.url}/a", disk / "a"))
    resize(4096)
    assert refusal(lambda: fetch(f"{server.url}/a", disk / "a")) is None
