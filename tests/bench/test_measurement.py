"""Costs before training: what a measurement says is what training says, and methods stand beside full fine-tuning."""

import json
import re
import subprocess
import sys

import pytest
import torch
from checkpoints import needs_bf16

from hfftools.bench import measurement, methods
from hfftools.config import conf_file
from hfftools.log import UserError
from hfftools.meter.resources import columns, table, three_digits
from hfftools.model import Model
from hfftools.nn.ctc import frames_needed
from hfftools.text import units
from hfftools.train import job
from hfftools.train.experiment import configure
from hfftools.upstream.names import load_upstream


@pytest.fixture
def small(encoder) -> list[str]:
    return [f"upstream={encoder}", "task.head_dim=16", "task.head_layers=1", "device=cpu", "train.bf16=false"]


def rows(lines: list[str]) -> list[dict[str, str]]:
    titles, _, *cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return [dict(zip(titles, row, strict=True)) for row in cells]


def test_made_up_units_and_labels_are_such_as_ctc_can_learn(encoder):
    made_up = measurement.made_up_units()
    assert len(made_up) == measurement.UNITS and len(set(made_up.symbols)) == measurement.UNITS
    model = Model(configure([], [f"upstream={encoder}"]), made_up, load_upstream(str(encoder)))
    for seconds in (0.5, 3.0):
        batch = measurement.made_up_batch(model, made_up, seconds, 2)
        frames = int(model.upstream.out_lens(batch.num_samples_B)[0])
        assert all(0 < frames_needed(row) <= frames for row in batch.targets_BL.tolist())
        assert [made_up.encode(text) for text in batch.texts] == batch.targets_BL.tolist()
        assert torch.isfinite(model.loss(batch)).all()


@pytest.mark.parametrize("method", ["hff", "full"])
def test_the_forecast_equals_what_training_records(method, small, options, corpus, tmp_path):
    """Parameters and checkpoint to the byte; memory, of another batch, within reason."""
    exp = job.train(tmp_path / "exp", [conf_file("method", method)], [*options, "train.epochs=1"])
    used = json.loads(exp.resources.read_text())
    forecast = measurement.measure(configure([conf_file("method", method)], small), 2.0, 2)
    letters = (
        len(units.load(corpus / "units")) - measurement.UNITS
    )  # the head's last layer, and nothing else, has a row for each
    more = letters * (2 * 16 + 1)
    assert used["parameters"]["head"] == forecast["parameters"].pop("head") + more
    assert used["parameters"]["trainable"] == forecast["parameters"].pop("trainable") + more
    assert forecast["parameters"].items() <= used["parameters"].items()
    assert used["checkpoint_bytes"] == forecast["checkpoint_bytes"] + 4 * more
    header = exp.final.stat().st_size - used["checkpoint_bytes"]
    assert 0 < header < 200 * len(exp.final.read_bytes().split(b'"dtype"'))
    assert used["steps_per_second"] == pytest.approx(used["steps"] / used["train_seconds"])
    assert used["audio_seconds_per_second"] == pytest.approx(used["audio_seconds"] / used["train_seconds"])
    for key in ("forward_flops_per_s", "backward_flops_per_s", "upstream_forward_flops_per_s"):
        assert used[key] == pytest.approx(forecast[key], rel=0.35)  # padding, and the number of letters
    assert 0 < forecast["peak_less_model_bytes"] < forecast["peak_bytes"]


def test_a_cached_run_leaves_out_the_upstream(small):
    live, cached = (
        measurement.measure_here(configure([conf_file("method", "hff")], [*small, *more]), 2.0, 2)
        for more in ([], ["data.features=anywhere"])
    )
    upstream = live["upstream_forward_flops_per_s"]
    assert cached["cached"] and cached["upstream_forward_flops_per_s"] == upstream
    assert live["forward_flops_per_s"] - cached["forward_flops_per_s"] == pytest.approx(upstream)
    changed = configure([conf_file("method", "full")], [*small, "data.features=anywhere"])
    assert not measurement.measure_here(changed, 1.0, 1)["cached"]  # what it changes cannot be kept


@needs_bf16
def test_a_method_carries_options_of_its_own(small):
    words = ["hff", "houlsby:tune.layers=top1,fuse.layers=[1,2],train.bf16=true"]
    plain, own = methods.configure(words, [], small).values()
    assert own.tune.layers == "top1" and list(own.fuse.layers) == [1, 2] and own.train.bf16 and not plain.train.bf16
    with pytest.raises(UserError, match="no option 'tune.layerz'"):
        methods.configure(["houlsby:tune.layerz=top1"], [], small)
    with pytest.raises(UserError, match="there is no method 'hf'; did you mean hff"):
        methods.configure(["hf"], [], small)


@pytest.mark.parametrize("words, more", [(["hff"], ["upstream=fbank"]), (["hff:upstream=fbank"], [])])
def test_the_costs_of_a_second_upstream_are_refused(words, more, small):
    with pytest.raises(UserError, match="'upstream=fbank': name the upstream by --upstream alone"):
        methods.configure(words, [], [*small, *more])


@pytest.mark.parametrize(
    "word",
    ["data.features=x", "data.batch_seconds=30", "train.accumulate=2", "perturb.noise_share=0.5", "optim.clip=1"],
)
def test_any_part_of_a_method_reaches_the_process_that_measures_it(word, small):
    (config,) = methods.configure([f"hff:{word}"], [], small).values()
    assert measurement.measure(config, 1.0, 1, with_flops=False)["cached"] == (word == "data.features=x")


@needs_bf16
def test_methods_stand_beside_full_fine_tuning_of_the_same_precision(small, monkeypatch):
    monkeypatch.setattr(measurement, "measure", measurement.measure_here)  # the tests above and below start processes
    run = methods.Bench(["hff", "hff:train.bf16=true", "houlsby:tune.layers=[9]"], [], small)
    assert run.full == {False: "full", True: "full:train.bf16=true"}  # neither was asked for
    saved = []
    run.run(1.0, 2, 1, 2, lambda: saved.append(run.table()))
    found = {row["method"]: row for row in rows([line for line in run.table() if line.startswith("|")])}
    assert found.keys() == run.configs.keys() - {"houlsby:tune.layers=[9]"}
    for word, full in (("hff", "full"), ("hff:train.bf16=true", "full:train.bf16=true")):
        mine, theirs = run.results[word], run.results[full]
        assert len(mine["step_seconds"]) == 2  # of two rounds
        ratio = theirs["step_seconds_median"] / mine["step_seconds_median"]
        assert found[word]["× speed of full"] == f"{ratio:.2f}" and found[full]["× speed of full"] == "1.00"
        assert float(found[word]["× GFLOP of full"]) < 1 == float(found[full]["× GFLOP of full"])
    assert run.table()[-1].startswith("- houlsby:tune.layers=[9]: tune.layers")
    assert len(saved) == 9 and saved[0] and saved[-1] == run.table()  # what failed once is not tried again


def test_tables_and_numbers():
    numbers = (None, 0, 0.01234, 1.234, 123.4, 12345.6)
    assert [three_digits(n) for n in numbers] == ["–", "0", "0.0123", "1.23", "123", "12,346"]
    counts = dict.fromkeys(("upstream", "inserted", "fuse", "head", "trainable_encoder", "upstream_total"), 0)
    forecast = columns({"parameters": {**counts, "head": 1234567}})
    assert forecast["head"] == "1,234,567" and forecast["% of upstream"] == forecast["peak MB"] == "–"
    lines = table([{"method": "a", "x": "1"}, {"method": "longer", "x": "22"}])
    assert lines == ["| method |   x |", "|--------|----:|", "| a      |   1 |", "| longer |  22 |"]


def command(name: str, *words: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-m", f"hfftools.bin.{name}", *words], capture_output=True, text=True)


def test_hff_account_on_the_bundled_upstream():
    done = command("account", "--upstream=hff_tiny", "--method=hff", "--seconds=2", "--batch=1", "task.head=linear")
    assert done.returncode == 0, done.stderr
    (row,) = rows([line for line in done.stdout.splitlines() if line.startswith("|")])
    assert row["method"] == "hff" and row["upstream"] == row["inserted"] == "0" and float(row["forward GFLOP"]) > 0
    assert not re.search(r"seconds a step|audio s/s", done.stdout) and "Random weights" in done.stdout


@pytest.mark.parametrize("size", ["--seconds=1e9", "--batch=1000000000"])
def test_what_does_not_fit_into_memory_is_one_line(size):
    done = command("account", "--upstream=fbank", "--method=last_layer", size)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert done.stderr.endswith(": error: out of memory; take fewer or shorter utterances\n")


def test_a_name_without_sizes_is_one_line():
    done = command("account", "--upstream=wav2vec2_base_s2st_es_voxpopuli", "--method=hff")
    assert done.returncode == 1 and "no sizes are known for it" in done.stderr and "Traceback" not in done.stderr


def test_hff_bench_writes_a_table_and_its_data(encoder, tmp_path):
    words = ["task.head=linear", "device=cpu", "--seconds=1", "--batch=1", "--steps=1", "--rounds=1"]
    done = command("bench", f"--upstream={encoder}", "--methods=hff full", f"--out={tmp_path}/costs.md", *words)
    assert done.returncode == 0, done.stderr
    data = json.loads((tmp_path / "costs.json").read_text())
    assert data["methods"].keys() == {"hff", "full"} and data["methods"]["full"]["times_as_fast_as_full"] == 1
    assert "× speed of full" in (tmp_path / "costs.md").read_text() and "× speed of full" in done.stdout
    done = command("bench", f"--upstream={encoder}", "--steps=0")
    assert done.returncode == 1 and "--steps: 0 is not above 0" in done.stderr


@pytest.mark.slow
def test_hff_account_on_a_large_shape():
    done = command("account", "--upstream=wav2vec2_large", "--method=hff", "--seconds=5", "--batch=1")
    assert done.returncode == 0, done.stderr
    (row,) = rows([line for line in done.stdout.splitlines() if line.startswith("|")])
    frames_per_s = 249 / 5
    blocks = 2 * 24 * 12 * 1024**2 * frames_per_s / 1e9  # but for attention's own, and the front end
    assert blocks < float(row["upstream's GFLOP"]) < 1.5 * blocks
