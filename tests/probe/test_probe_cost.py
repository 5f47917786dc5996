"""Probing at full size with random weights: many layers cost little more than one, and fit in memory. By hand: -m slow."""

import json
import re
import time
from pathlib import Path

import pytest
import torch

from hfftools.corpora.prepare import prepare
from hfftools.data.batch import Batch
from hfftools.probe.heads import Probes
from hfftools.probe.job import Config, probe
from hfftools.probe.probing_tasks import Words
from hfftools.text import units
from hfftools.upstream.names import parse


@pytest.mark.slow
def test_25_layers_cost_at_most_half_as_much_again_as_one(tmp_path):
    """A step on 2 × 10 s of wav2vec2-large: the forward pass to the top, a linear CTC probe on one layer or on all."""
    upstream = parse("wav2vec2_large").random().requires_grad_(False)
    task = Words(
        units.train("char", ["THE QUICK BROWN FOX JUMPS OVER THE LAZY DOG'S BACK"], None, tmp_path), "linear", 1, 1, 0
    )
    lens_B = torch.tensor([160000, 160000])
    batch = Batch(
        ["a", "b"], ["", ""], 20.0, torch.randn(2, 160000), lens_B, None, None,
        torch.randint(2, len(task.units), (2, 150)), torch.tensor([150, 150]),
    )  # fmt: skip
    seconds = {}
    for _ in range(3):  # one after the other, so that what drifts weighs on both
        for name, layers in (("one", [24]), ("all", upstream.all_layers)):
            probes = Probes(task, {layer: upstream.dims[layer] for layer in layers}, Config(), 10, torch.device("cpu"))
            for step in range(2):
                start = time.monotonic()
                with torch.no_grad():
                    hidden, lens_B = upstream(batch.wav_BN, batch.num_samples_B, layers)
                probes.step(hidden, lens_B, batch)
                if step:  # the first warms up
                    seconds.setdefault(name, []).append(time.monotonic() - start)
    one, many = (min(seconds[name]) for name in ("one", "all"))
    print(f"one layer {one:.2f} s, 25 layers {many:.2f} s a step: {many / one:.2f} times as much")
    assert many <= 1.5 * one


@pytest.mark.slow
@pytest.mark.timeout(3600)  # about ten minutes each on two cores, more beside other work
@pytest.mark.parametrize("name", ["hubert_base", "hubert_large", "wav2vec2_large"])
def test_every_part_of_a_full_size_probe_within_6_gib(name, tmp_path, monkeypatch):
    """One epoch over 40 spoken sentences: enough frames for PWCCA with log-mel at 1024 dimensions."""
    monkeypatch.setattr("hfftools.probe.inputs.load_upstream", lambda _: parse(name).random())
    prepare("mini", None, tmp_path / "data", 40)
    sets = [f"train={tmp_path}/data/train", f"dev={tmp_path}/data/dev"]
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak of earlier tests of this process
    exp = probe(tmp_path / "probe", [], [f"upstream={name}", *sets, "epochs=1", "device=cpu", "frames=4500"])
    rows = json.loads(exp.probe.read_text())["layers"]
    assert len(rows) == (13 if name == "hubert_base" else 25)
    for key in ("wer", "per", "speaker_accuracy", "cka_mel", "pwcca_mel", "pwcca_first", "isoscore"):
        assert all(row[key] is not None for row in rows), key
    peak_bytes = 1024 * int(re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())[1])
    print(f"{name}: {peak_bytes / 2**30:.2f} GiB at most")
    assert peak_bytes < 6 * 2**30
