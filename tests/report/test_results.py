"""The report: seeds share a row, figures are those of the runs, only what compares shares a table."""

import itertools
import json
import re
from pathlib import Path

import pytest

from hfftools.data.table import write_table
from hfftools.infer import decode_sets
from hfftools.log import UserError, log
from hfftools.meter.resources import three_digits
from hfftools.recorded import save_config
from hfftools.report.cost_plot import error_against_cost
from hfftools.report.results import environment, report
from hfftools.train import job
from hfftools.train.experiment import configure


def cells(lines: list[str]) -> list[dict[str, str]]:
    """The rows of the first table in `lines`."""
    start = next(n for n, line in enumerate(lines) if line.startswith("|"))
    table = itertools.takewhile(lambda line: line.startswith("|"), lines[start:])
    titles, _, *rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table]
    return [dict(zip(titles, row, strict=True)) for row in rows]


def test_seeds_share_a_row_and_figures_are_those_of_the_runs(options, tmp_path, caplog, monkeypatch):
    roots = []
    for name, fuse, seed in (("last", "layer", 1), ("fusion", "hff", 1), ("fusion_seed2", "hff", 2)):
        exp = job.train(tmp_path / name, [], [*options, f"fuse.name={fuse}", f"seed={seed}", "train.epochs=1"])
        decode_sets.decode([exp.root], [], [])
        roots.append(exp.root)
    (tmp_path / "probe_fbank").mkdir()
    monkeypatch.setattr(log, "propagate", True)  # training has turned it off
    with caplog.at_level("INFO", logger="hff"):
        table, plots = report(
            [*roots, tmp_path / "probe_fbank", tmp_path / "RESULTS.md"], tmp_path / "RESULTS.md", "Tiny", "./run.sh"
        )
    [line] = [message for message in caplog.messages if "left out" in message]
    assert line == f"no experiments, left out: {tmp_path}/probe_fbank, {tmp_path}/RESULTS.md"
    last, fusion = cells(table)
    assert (last["method"], fusion["method"], last["seeds"], fusion["seeds"]) == ("last", "fusion", "1", "2")
    text = (tmp_path / "RESULTS.md").read_text()
    assert "| fusion_seed2/test | 6 |" in text and "torch" in text and "command: `./run.sh`" in text
    parameters = json.loads((tmp_path / "fusion" / "resources.json").read_text())["parameters"]
    assert parameters["trainable_encoder"] == parameters["fuse"] > 0
    assert any(f" {parameters['fuse']:,} " in line for line in table if line.startswith("| fusion"))
    stored = json.loads((tmp_path / "last" / "decode" / "test" / "decode.json").read_text())["scores"]["wer"]
    errors = stored["substitutions"] + stored["deletions"] + stored["insertions"]
    wer = 100 * errors / stored["words"]
    [plot] = plots
    assert plot.path == tmp_path / "error_vs_cost_test.png" and f"]({plot.path.name})" in text and plot.metric == "WER"
    name, column, count, gflop = plot.points[0]
    used = json.loads((tmp_path / "last" / "resources.json").read_text())
    assert (name, column.rates, count) == ("last", [pytest.approx(wer)], 0)
    assert gflop == pytest.approx((used["forward_flops_per_s"] + used["backward_flops_per_s"]) / 1e9)
    # of one run, the interval is that of its score
    assert last["test WER %"] == f"{wer:.1f} [{100 * stored['low']:.1f}, {100 * stored['high']:.1f}]"
    assert fusion["test WER %"].startswith(f"{sum(plot.points[1][1].rates) / 2:.1f} ± ")


def finished(root: Path, seed: int = 1, upstream: str = "hff_tiny", metric: str = "wer", **options) -> Path:
    """An experiment's folder as training leaves it, with invented costs and without a model."""
    config = configure([], [f"seed={seed}", f"upstream={upstream}", *(f"{k}={v}" for k, v in options.items())])
    root.mkdir(parents=True)
    save_config(config, root / "config.yaml")
    parts = dict.fromkeys(("upstream", "inserted", "fuse", "head", "trainable_encoder", "upstream_total"), 1000)
    used = {"parameters": parts, "dev_error": 0.5, "metric": metric, "cached": True, "audio_seconds": 1.0}
    (root / "resources.json").write_text(json.dumps({**used, "train_seconds": 1.0, "wall_seconds": 60.0}))
    return root


def decoded(root: Path, name: str, refs: dict[str, str], hyps: dict[str, str]) -> None:
    folder = root / "decode" / name
    folder.mkdir(parents=True)
    write_table(folder / "ref", refs)
    write_table(folder / "text", hyps)
    (folder / "decode.json").write_text('{"scores": {}}')
    decode_sets.rescore(folder)


REFS = {"a-1": "one two three four", "a-2": "five six", "b-1": "seven eight nine ten"}


def test_recipes_and_upstreams_have_sections_and_decodes_of_a_set_stand_side_by_side(tmp_path):
    libri = [
        finished(tmp_path / "libri" / "exp" / "a"),
        finished(tmp_path / "libri" / "exp" / "a_seed2", seed=2),
        finished(tmp_path / "libri" / "exp" / "b", **{"optim.head.lr": 0.5}),
    ]
    large = finished(tmp_path / "libri" / "exp_fbank" / "a", upstream="fbank")
    chinese = finished(tmp_path / "zh" / "exp" / "a", metric="cer")
    for root in libri:
        for name in ("test_other", "test_lm", "test", "test-clean_lm", "test-clean", "test-clean_beam", "dev"):
            decoded(root, name, REFS, {**REFS, "a-2": "five" if root.name == "a" else "five seven eight"})
    decoded(libri[2], "extra", {"a-1": "else"}, {"a-1": "else"})
    decoded(libri[0], "extra", REFS, REFS)
    decoded(libri[1], "extra", REFS, REFS)
    decoded(large, "test", REFS, REFS)
    decoded(chinese, "test", {"a-1": "今天天气很好", "b-1": "再见"}, {"a-1": "今天气很好", "b-1": "再见"})
    table, plots = report([*libri, large, chinese], tmp_path / "out" / "RESULTS.md", "All")
    text = (tmp_path / "out" / "RESULTS.md").read_text()
    titles = ["libri with hff_tiny", "libri with fbank", "zh with hff_tiny"]
    assert [line[3:] for line in text.splitlines() if line.startswith("## ")] == ["Environment", *titles]
    ours = [cells(text.split(f"## {title}\n")[1].splitlines()) for title in titles]
    assert [len(rows) for rows in ours] == [2, 1, 1]
    names = "dev test-clean test-clean_beam test-clean_lm extra test test_lm test_other".split()
    order = [title for title in ours[0][0] if title not in ("method", "seeds")]
    assert order[0] == "dev WER %, training" and set(order[1:]) == {f"{name} WER %" for name in names}
    assert [n for n in order if n.startswith("test-")] == [f"{n} WER %" for n in names[1:4]]
    assert order.index("test_lm WER %") == order.index("test WER %") + 1
    # one error of ten words, and two: a mean over seeds, and a row without
    assert ours[0][0]["test WER %"].startswith("15.0 ± 7.1 [") and ours[0][1]["test WER %"].startswith("20.0 [")
    assert ours[0][1]["extra WER %"].endswith("\\*") and not ours[0][0]["extra WER %"].endswith("*")
    assert "not to be compared" in text.split("## libri with fbank")[0]
    assert "not to be compared" not in text.split("## libri with fbank")[1]
    assert ours[1][0]["test WER %"] == "0.0 [0.0, 0.0]" and "test CER %" not in ours[1][0]
    assert ours[2][0]["test CER %"].startswith("12.5 [") and "test WER %" not in ours[2][0]
    assert ours[1][0]["dev WER %"] == ours[2][0]["dev CER %"] == "50.0" and "dev WER %" not in ours[2][0]
    assert table[0] == titles[0] and len({plot.path for plot in plots}) == len(plots) == 8 + 1 + 1
    extra = next(plot for plot in plots if plot.path.stem.endswith("hff_tiny_extra"))
    assert [name for name, *_ in extra.points] == ["a"]
    assert plots[-1].metric == "CER" and error_against_cost(plots[-1]).stat().st_size > 1000


def test_a_cer_among_wers_says_so_and_is_no_seed_of_them(tmp_path):
    """The Chinese one stands first, with the very options of the second: its dev and test had other transcripts."""
    zh, one, two = (tmp_path / "exp" / name for name in ("zh", "one", "two"))
    roots = [finished(zh, metric="cer"), finished(one), finished(two, **{"optim.head.lr": 0.5})]
    decoded(zh, "test", {"a-1": "今天天气很好", "b-1": "再见"}, {"a-1": "今天气很好", "b-1": "再见"})
    for root in (one, two):
        decoded(root, "test", REFS, REFS)
    table, [plot] = report(roots, tmp_path / "RESULTS.md", "Mixed")
    rows = cells(table)
    assert [row["method"] for row in rows] == ["zh", "one", "two"]
    assert [row["dev WER %"] for row in rows] == ["50.0 CER", "50.0", "50.0"]
    assert rows[0]["test WER %"].startswith("12.5 [") and rows[0]["test WER %"].endswith("] CER \\*")
    assert rows[1]["test WER %"] == "0.0 [0.0, 0.0]"
    assert plot.metric == "WER" and [name for name, *_ in plot.points] == ["one", "two"]
    assert "CER stands where" in (tmp_path / "RESULTS.md").read_text()


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


def test_the_same_run_counts_once(tmp_path, caplog, monkeypatch):
    first, second = finished(tmp_path / "a", seed=1), finished(tmp_path / "b", seed=2)
    copy = finished(tmp_path / "copy", seed=1)
    (tmp_path / "link").symlink_to(first)
    monkeypatch.setattr(log, "propagate", True)
    with caplog.at_level("INFO", logger="hff"):
        table, _ = report([first, second, first, tmp_path / "link", copy], tmp_path / "RESULTS.md", "Twice")
    assert cells(table)[0]["seeds"] == "2"
    left_out = {message for message in caplog.messages if "left out" in message}
    assert left_out == {f"{copy} has the options and the seed of {first}: left out"}


def test_an_unfinished_experiment_is_named(tmp_path):
    with pytest.raises(UserError, match="is a finished experiment"):
        report([Path(tmp_path)], tmp_path / "RESULTS.md", "None")


@pytest.mark.skipif(not (Path(__file__).parents[2] / ".git").exists(), reason="not in a git checkout")
def test_the_environment_names_the_commit_of_the_checkout():
    """A digest of at least seven digits, after the last tag where there is one, and -dirty for changed files."""
    assert re.fullmatch(r"- commit: (.*-g)?[0-9a-f]{7,}(-dirty)?", environment()[-1])
