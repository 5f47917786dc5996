"""The report: seeds share a row, figures are those of the runs, unfinished experiments are named."""

import json
from pathlib import Path

import pytest

from hfftools.log import UserError
from hfftools.report import report
from hfftools.train import decoding, job
from hfftools.train.ledger import three_digits


def test_seeds_share_a_row_and_figures_are_those_of_the_runs(options, tmp_path):
    roots = []
    for name, fuse, seed in (("last", "layer", 1), ("fusion", "hff", 1), ("fusion_seed2", "hff", 2)):
        exp = job.train(tmp_path / name, [], [*options, f"fuse.name={fuse}", f"seed={seed}", "train.epochs=1"])
        decoding.decode([exp.root], [], [])
        roots.append(exp.root)
    table, points = report([*roots, tmp_path / "other"], tmp_path / "RESULTS.md", "Tiny", "./run.sh")
    cells = [[cell.strip() for cell in line.split("|")] for line in table]
    assert len(table) == 4 and cells[3][1:3] == ["fusion", "2"]
    text = (tmp_path / "RESULTS.md").read_text()
    assert "| fusion_seed2/test | 6 |" in text and "torch" in text and "command: `./run.sh`" in text
    parameters = json.loads((tmp_path / "fusion" / "resources.json").read_text())["parameters"]
    assert parameters["trainable_encoder"] == parameters["fuse"] > 0
    assert f"{parameters['fuse']:,}" in cells[3]
    wer = json.loads((tmp_path / "last" / "decode" / "test" / "decode.json").read_text())["scores"]["wer"]
    errors = wer["substitutions"] + wer["deletions"] + wer["insertions"]
    name, wers, count, gflop = points["test"][0]
    used = json.loads((tmp_path / "last" / "resources.json").read_text())
    assert (name, wers, count) == ("last", [pytest.approx(100 * errors / wer["words"])], 0)
    assert gflop == pytest.approx((used["forward_flops_per_s"] + used["backward_flops_per_s"]) / 1e9)


def costs(path: Path) -> list[dict[str, str]]:
    """The table of costs in a written report."""
    lines = path.read_text().split("## Costs\n")[1].split("\n\n")[0].splitlines()
    titles, _, *rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return [dict(zip(titles, row, strict=True)) for row in rows]


def test_costs_are_those_of_the_runs_and_what_an_older_run_does_not_tell_is_left_open(options, tmp_path):
    for name in ("old", "new"):  # of different learning rates, so that they are no seeds of one another
        job.train(
            tmp_path / name, [], [*options, "train.epochs=1", f"optim.head.lr={0.001 if name == 'old' else 0.002}"]
        )
    used = json.loads((tmp_path / "new" / "resources.json").read_text())
    path = tmp_path / "old" / "resources.json"
    known = ("flops", "checkpoint", "per_second")
    path.write_text(json.dumps({k: v for k, v in used.items() if not any(word in k for word in known)}))
    report([tmp_path / "old", tmp_path / "new"], tmp_path / "RESULTS.md", "Tiny")
    old, new = costs(tmp_path / "RESULTS.md")
    open_cells = {title for title, cell in old.items() if cell == "–"}
    assert open_cells == {"forward GFLOP", "backward GFLOP", "upstream's GFLOP", "checkpoint MB"}
    assert new["forward GFLOP"] == three_digits(used["forward_flops_per_s"] / 1e9)
    assert (new["inserted"], new["upstream"]) == ("0", "0") and new["fusion"] == f"{used['parameters']['fuse']:,}"
    assert new["checkpoint MB"] == three_digits(used["checkpoint_bytes"] / 1e6)


def test_an_unfinished_experiment_is_named(tmp_path):
    with pytest.raises(UserError, match="is a finished experiment"):
        report([Path(tmp_path)], tmp_path / "RESULTS.md", "None")
