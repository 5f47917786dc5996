"""Probing: each layer's result is its own, an interrupted probe goes on, a layer that diverges spoils no other."""

import json

import pytest
import torch

from hfftools.analysis.probe import probe
from hfftools.log import UserError


def rows(folder, options):
    return json.loads(probe(folder, [], options).probe.read_text())["layers"]


@pytest.fixture
def probing(corpus, encoder):
    sets = [f"{name}={corpus}/{name}" for name in ("train", "dev", "units")]
    return [f"upstream={encoder}", *sets, "epochs=3", "batch_seconds=12", "lr=0.02", "device=cpu"]


def test_a_layer_probed_with_others_is_as_one_probed_alone(probing, tmp_path):
    together = rows(tmp_path / "all", probing)
    assert [row["layer"] for row in together] == [0, 1, 2, 3]
    alone = rows(tmp_path / "one", [*probing, "layers=[2]"])
    assert alone[0] == together[2]
    one = torch.load(tmp_path / "one" / "checkpoints" / "state.pt")["probes"]["heads"][2]
    four = torch.load(tmp_path / "all" / "checkpoints" / "state.pt")["probes"]["heads"][2]
    assert all(torch.equal(one[k], four[k]) for k in one)
    assert (tmp_path / "all" / "layers.png").stat().st_size > 1000
    assert len((tmp_path / "all" / "table.txt").read_text().splitlines()) == 7


def test_an_interrupted_probe_goes_on_to_the_same_weights(probing, tmp_path, monkeypatch):
    whole = rows(tmp_path / "whole", probing)
    import hfftools.analysis.probe as module

    real, calls = module.write_aside, []

    def stop_after_one(path):
        if len(calls) == 1:
            raise KeyboardInterrupt  # at the end of the second epoch
        calls.append(path)
        return real(path)

    monkeypatch.setattr(module, "write_aside", stop_after_one)
    with pytest.raises(KeyboardInterrupt):
        probe(tmp_path / "cut", [], probing)
    monkeypatch.undo()
    assert torch.load(tmp_path / "cut" / "checkpoints" / "state.pt")["epoch"] == 1
    assert rows(tmp_path / "cut", probing) == whole
    a, b = (torch.load(tmp_path / n / "checkpoints" / "state.pt")["probes"]["heads"] for n in ("whole", "cut"))
    assert all(torch.equal(a[layer][k], b[layer][k]) for layer in a for k in a[layer])


def test_a_layer_that_diverges_spoils_no_other(probing, tmp_path, monkeypatch):
    import hfftools.analysis.probe as module

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
    assert [row["diverged"] for row in sick] == [False, True, False, False]
    assert [r for r in sick if not r["diverged"]] == [r for r in healthy if r["layer"] != 1]


def test_a_changed_probe_is_refused_and_a_finished_one_kept(probing, tmp_path):
    probe(tmp_path / "p", [], probing)
    stamp = (tmp_path / "p" / "probe.json").stat().st_mtime_ns
    probe(tmp_path / "p", [], probing)
    assert (tmp_path / "p" / "probe.json").stat().st_mtime_ns == stamp
    assert json.loads((tmp_path / "p" / "probe.json").read_text())["layers"]
    with pytest.raises(UserError, match="lr was 0.02 and is now 0.5"):
        probe(tmp_path / "p", [], [*probing, "lr=0.5"])


def test_a_pair_of_upstreams_of_different_widths_is_probed_layer_by_layer(probing, encoder, tmp_path):
    found = rows(tmp_path / "pair", [*probing, f"upstream={encoder}+fbank", "epochs=1"])
    assert [row["layer"] for row in found] == [0, 1, 2, 3, 4]
