"""Finished experiments in, one RESULTS.md with their environment, costs and error rates out, and what to draw of them."""

import platform
import re
import shutil
import statistics
import subprocess
import time
from pathlib import Path

import torch

from hfftools import score
from hfftools.expdir import write_text
from hfftools.infer.decode_sets import read_scores
from hfftools.meter import resources
from hfftools.report import experiments
from hfftools.report.experiments import Plot, Section


def _mean(values: list[float]) -> str:
    """Mean ± standard deviation."""
    return f"{statistics.mean(values):.1f}" + (f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else "")


def environment() -> list[str]:
    """The block that says where figures were made: date, interpreter, torch, machine, commit."""
    here, commit = Path(__file__).resolve().parents[1], "not in a git checkout"
    if (here / ".git").exists() and shutil.which("git"):
        done = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=here, capture_output=True, text=True)
        commit = done.stdout.strip() or commit
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else f"CPU, {torch.get_num_threads()} threads"
    return [
        f"- date: {time.strftime('%Y-%m-%d %H:%M')}",
        f"- python {platform.python_version()}, torch {torch.__version__}, {platform.system()} {platform.machine()}",
        f"- device: {device}",
        f"- commit: {commit}",
    ]


def errors_table(section: Section) -> list[str]:
    """The table of methods: error rates of all decodes side by side; a WER among CERs, or the reverse, is marked."""
    names, dev = section.names(), section.dev_metric()
    decoded = not {"dev", *(group.dev_name for group in section.groups)}.isdisjoint(names)
    training = f"dev {score.heading(*dev)} %" + ", training" * decoded
    rows = []
    for group in section.groups:
        row = {"method": group.name, "seeds": str(len(group.runs))}
        row[training] = _mean(group.dev()) + _unlike(group.dev_metric, dev[0])
        for name in names:
            found, metric = group.columns.get(name), section.metric(name)
            cell = f"{_mean(found.rates)} [{found.low:.1f}, {found.high:.1f}]" if found else "–"
            cell += _unlike(found.metric, metric[0]) if found else ""
            row[f"{name} {score.heading(*metric)} %"] = cell + " \\*" * (group.name in section.odd(name))
        rows.append(row)
    return resources.table(rows)


def _unlike(metric: str, usual: str) -> str:
    return "" if metric == usual else f" {score.title(metric)}"


def short_costs(section: Section) -> list[str]:
    """The table of methods: what training took, in short."""
    rows = []
    for group in section.groups:
        used = group.costs()
        row = {"method": group.name, "trainable encoder": f"{used['parameters']['trainable_encoder']:,}"}
        row["less model MB"] = resources.columns(used)["less model MB"]
        speed = statistics.mean(r["audio_seconds"] / max(1e-9, r["train_seconds"]) for r in group.resources)
        rows.append(row | {"audio s/s": f"{speed:.0f}", "train min": f"{used['wall_seconds'] / 60:.1f}"})
    return resources.table(rows)


def report(roots: list[Path], out: Path, title: str, command: str = "") -> tuple[list[str], list[Plot]]:
    """Write `out` (RESULTS.md); the lines of its tables of methods, and the plots that it shows, beside it.

    Recipes and upstreams have a section each. UserError where none of `roots` is a finished experiment.
    """
    sections = experiments.read(roots)
    made = [f"- command: `{command}`"] if command else []
    lines = [f"# {title}", "", "## Environment", *environment(), *made, ""]
    tables: list[str] = []
    plots: list[Plot] = []
    for section in sections:
        depth = "##"
        if len(sections) > 1:
            lines += [f"## {section.title}", ""]
            depth = "###"
        table, drawn = [*errors_table(section), "", *short_costs(section)], _plots(section, out.parent, len(sections))
        tables += [*([section.title] if len(sections) > 1 else []), *table, ""]
        plots += drawn
        lines += [f"{depth} Methods", *table, "", *_legend(section), ""]
        lines += [f"![{plot.title}]({plot.path.name})" for plot in drawn]
        lines += ["", f"{depth} Costs", *_costs(section), "", *resources.LEGEND, ""]
        lines += [line for name in section.names() for line in _details(section, name, depth)]
    write_text(out, "\n".join(lines))
    return tables[:-1], plots


def _legend(section: Section) -> list[str]:
    cached = {r["cached"] for group in section.groups for r in group.resources}
    source = {frozenset({True}): "cached hidden states", frozenset({False}): "waveforms"}.get(
        frozenset(cached), "cached states or waveforms"
    )
    lines = [
        "Errors: mean over seeds ± standard deviation, then the 95 % bootstrap interval of the mean over utterances; each",
        "decode's score_*/result.txt has the one over speakers. Intervals that overlap do not show that two methods are",
        "level: `hff-score A B` compares them utterance by utterance. Trainable encoder: the upstream's own + inserted +",
        f"fusion parameters. Memory and speed are of training, each method in its own process, from {source}; less",
        "model: above what the process held with the model loaded; audio s/s: seconds of audio per second of forward,",
        "backward and update.",
    ]
    shown = {g.dev_metric for g in section.groups} | {c.metric for g in section.groups for c in g.columns.values()}
    if "cer" in shown:
        lines += ["CER stands where the transcripts put no space between words."]
    if any(section.odd(name) for name in section.names()):
        lines += ["\\*: scored on other transcripts than the rest of the column, and not to be compared with it."]
    return lines


def _costs(section: Section) -> list[str]:
    return resources.table([{"method": group.name, **resources.columns(group.costs())} for group in section.groups])


def _details(section: Section, name: str, depth: str) -> list[str]:
    """ESPnet's tables of one decode, a line a run."""
    found = [(run, read_scores(run.decode(name))) for group in section.groups for run in group.runs
             if run.decode(name) in run.decoded()]  # fmt: skip
    lines = []
    for kind in ("wer", "cer", "ter"):
        rows = []
        for run, told in found:
            counts = told.get(kind)
            if isinstance(counts, score.Score):
                rows.append(score.row(f"{run.root.name}/{name}", counts).rstrip())
        lines += [f"{depth} {name}: {kind.upper()}", *score.HEAD.splitlines(), *rows, ""] if rows else []
    return lines


def _plots(section: Section, folder: Path, sections: int) -> list[Plot]:
    plots = []
    for name in section.names():
        where = name if sections == 1 else f"{re.sub('[^A-Za-z0-9.-]+', '_', section.title).strip('_')}_{name}"
        odd = section.odd(name)
        points = [
            (group.name, group.columns[name], group.resources[0]["parameters"]["trainable_encoder"], group.gflop())
            for group in section.groups
            if name in group.columns and group.name not in odd
        ]
        metric, lower_is_better = section.metric(name)
        what = "error" if lower_is_better else metric
        title = f"{what.capitalize()} on {name} against cost" + (f", {section.title}" if sections > 1 else "")
        plots.append(Plot(folder / f"{what}_vs_cost_{where}.png", title, score.heading(*section.metric(name)), points))
    return plots
