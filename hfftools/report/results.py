"""Write RESULTS.md: the environment, costs and error rates of finished experiments; and say which plots it shows."""

import platform
import re
import shutil
import statistics
import subprocess
import time
from pathlib import Path

import torch

from hfftools import score
from hfftools.disk import remove_temporary
from hfftools.expdir import write_text
from hfftools.infer.decode_sets import read_scores
from hfftools.meter import resources
from hfftools.report import experiments
from hfftools.report.experiments import Group, Plot, Section

ACTING = [
    "Acting parts: those of the trainable parts that a gradient reached and that change the output, and the least change:",
    "of the fused stream or the loss of one utterance where a part alone gets its initial values back.",
]


def _mean(values: list[float]) -> str:
    """Return mean ± standard deviation as text."""
    return f"{statistics.mean(values):.1f}" + (f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else "")


def environment() -> list[str]:
    """Return the lines that say where the figures were made: date, interpreter, torch, machine, commit."""
    here, commit = Path(__file__).resolve().parents[2], "not in a git checkout"
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
    """Return the table of error rates by method and decode; a metric other than that of its column is named in the cell."""
    names, dev = section.names(), section.dev_metric()
    decoded = not {"dev", *(group.dev_name for group in section.groups)}.isdisjoint(names)
    training = f"dev {score.heading(*dev)} %" + ", training" * decoded
    rows = []
    for group in section.groups:
        row = {"method": group.name, "seeds": str(len(group.runs))}
        row[training] = _mean(group.dev()) + _unlike(group.dev_metric, dev[0])
        for name in names:
            column, metric = group.columns.get(name), section.metric(name)
            cell = f"{_mean(column.rates)} [{column.low:.1f}, {column.high:.1f}]" if column else "–"
            cell += _unlike(column.metric, metric[0]) if column else ""
            row[f"{name} {score.heading(*metric)} %"] = cell + " \\*" * (group.name in section.odd(name))
        rows.append(row)
    return resources.table(rows)


def _unlike(metric: str, usual: str) -> str:
    return "" if metric == usual else f" {score.title(metric)}"


def short_costs(section: Section) -> list[str]:
    """Return the short table of what training cost by method."""
    rows = []
    for group in section.groups:
        used = group.costs()
        row = {"method": group.name, "trainable encoder": f"{used['parameters']['trainable_encoder']:,}"}
        row["less model MB"] = resources.columns(used)["less model MB"]
        speed = statistics.mean(r["audio_seconds"] / max(1e-9, r["train_seconds"]) for r in group.resources)
        rows.append(row | {"audio s/s": f"{speed:.0f}", "train min": f"{used['wall_seconds'] / 60:.1f}"})
    return resources.table(rows)


def report(roots: list[Path], out: Path, title: str, command: str = "") -> tuple[list[str], list[Plot]]:
    """Write `out` (RESULTS.md); return the lines of its tables of methods, and the plots that it shows, for its folder.

    Each pair of recipe and upstream has a section. Raises UserError where none of `roots` is a finished experiment.
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
        lines += ["", f"{depth} Costs", *_costs(section), "", *resources.LEGEND, *ACTING, ""]
        for name in section.names():
            lines += _details(section, name, depth)
    remove_temporary(out.parent)  # also of the pictures beside it
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
    shown = {group.dev_metric for group in section.groups}
    for group in section.groups:
        shown |= {column.metric for column in group.columns.values()}
    if "cer" in shown:
        lines += ["CER stands where the transcripts put no space between words."]
    if any(section.odd(name) for name in section.names()):
        lines += ["\\*: scored on other transcripts than the rest of the column, and not to be compared with it."]
    return lines


def _costs(section: Section) -> list[str]:
    rows = [
        {"method": group.name, **resources.columns(group.costs()), "acting parts": _acting(group)}
        for group in section.groups
    ]
    return resources.table(rows)


def _acting(group: Group) -> str:
    """Return how many of the trainable parts act, and the least change of the output by one, over the runs of a group."""
    proved = [used["acting"] for used in group.resources if "acting" in used]
    if not proved:
        return "–"
    least = min(proved, key=lambda acting: (acting["acting"], acting["least_change"]))
    return f"{least['acting']} of {least['parts']}, {100 * least['least_change']:.2g} %"


def _details(section: Section, name: str, depth: str) -> list[str]:
    """Return ESPnet's tables of one decode, one line for each run."""
    scored = []
    for group in section.groups:
        runs = [run for run in group.runs if run.decode(name) in run.decoded()]
        scored += [(run, read_scores(run.decode(name))) for run in runs]
    lines: list[str] = []
    for kind in ("wer", "cer", "ter"):
        rows = []
        for run, scores in scored:
            counts = scores.get(kind)
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
