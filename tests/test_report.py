"""The report: seeds share a row, figures are those of the runs, unfinished experiments are named."""

import json
from pathlib import Path

import pytest

from hfftools.log import UserError
from hfftools.report import report
from hfftools.train import job


def test_seeds_share_a_row_and_figures_are_those_of_the_runs(options, tmp_path):
    roots = []
    for name, fuse, seed in (("last", "layer", 1), ("fusion", "hff", 1), ("fusion_seed2", "hff", 2)):
        exp = job.train(tmp_path / name, [], [*options, f"fuse.name={fuse}", f"seed={seed}", "train.epochs=1"])
        job.decode(exp.root, [], [])
        roots.append(exp.root)
    table, points = report([*roots, tmp_path / "other"], tmp_path / "RESULTS.md", "Tiny", "./run.sh")
    assert len(table) == 4 and table[3].startswith("| fusion | 2 |")
    text = (tmp_path / "RESULTS.md").read_text()
    assert "| fusion_seed2/test | 6 |" in text and "torch" in text and "command: `./run.sh`" in text
    parameters = json.loads((tmp_path / "fusion" / "resources.json").read_text())["parameters"]
    assert parameters["trainable_encoder"] == parameters["fuse"] > 0
    assert f"| {parameters['fuse']:,} |" in table[3]
    wer = json.loads((tmp_path / "last" / "decode" / "test" / "decode.json").read_text())["scores"]["wer"]
    errors = wer["substitutions"] + wer["deletions"] + wer["insertions"]
    assert points["test"][0] == ("last", pytest.approx(100 * errors / wer["words"]), 0)


def test_an_unfinished_experiment_is_named(tmp_path):
    with pytest.raises(UserError, match="is a finished experiment"):
        report([Path(tmp_path)], tmp_path / "RESULTS.md", "None")
