"""Finished experiments in, one RESULTS.md with their environment, costs and error rates out."""

import json
import platform
import shutil
import statistics
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from hfftools import score
from hfftools.config import flat
from hfftools.expdir import ExpDir, write_text
from hfftools.log import UserError, log
from hfftools.train import ledger
from hfftools.train.decoding import read_scores
from hfftools.train.experiment import HARMLESS, read_config


@dataclass
class Group:
    """Experiments that differ in nothing but their seed."""

    name: str
    runs: list[ExpDir]
    resources: list[dict]
    wers: dict[str, list[float]]  # set -> WER in percent of each run

    def dev(self) -> list[float]:
        return [100 * r["dev_wer"] for r in self.resources]

    def gflop(self) -> float | None:
        """Of training, per second of audio, the upstream's forward pass included; None where the runs do not tell."""
        used, keys = self.costs(), ["forward_flops_per_s", "backward_flops_per_s"]
        keys += ["upstream_forward_flops_per_s"] if used["cached"] else []
        return sum(used[key] for key in keys) / 1e9 if all(used.get(key) is not None for key in keys) else None

    def mean(self, key: str) -> float | None:
        """Over the runs that tell; None where none does."""
        told = [r[key] for r in self.resources if r.get(key) is not None]
        return statistics.mean(told) if told else None

    def costs(self) -> dict:
        """As one run's resources: the means over the runs."""
        return {
            **self.resources[0],
            **{k: self.mean(k) for k, v in self.resources[0].items() if type(v) in (int, float)},
        }


def _read(roots: list[Path]) -> list[Group]:
    groups: dict[str, Group] = {}
    for root in roots:
        exp = ExpDir(root)
        if not (exp.config.exists() and exp.resources.exists()):
            log.info(f"{root} is not a finished experiment: left out")
            continue
        config = read_config(exp, [])
        config = {k: v for k, v in flat(config).items() if k not in (*HARMLESS, "seed")}
        group = groups.setdefault(json.dumps(config, sort_keys=True), Group(root.name, [], [], {}))
        group.runs.append(exp)
        group.resources.append(json.loads(exp.resources.read_text()))
        for decoded in exp.decoded():
            scores = read_scores(decoded)
            if scores:
                group.wers.setdefault(decoded.name, []).append(100 * scores["wer"].rate)
    if not groups:
        raise UserError(f"none of {', '.join(map(str, roots))} is a finished experiment; run hff-train")
    return list(groups.values())


def _mean(values: list[float] | None) -> str:
    """Mean ± standard deviation."""
    if not values:
        return "–"
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


def summary(groups: list[Group]) -> list[str]:
    """The table of methods: error rates, and what they cost in short."""
    sets = sorted({name for group in groups for name in group.wers})
    rows = []
    for group in groups:
        used = group.costs()
        speed = statistics.mean(r["audio_seconds"] / max(1e-9, r["train_seconds"]) for r in group.resources)
        row = {"method": group.name, "seeds": str(len(group.runs)), "dev WER %": _mean(group.dev())}
        row |= {f"{name} WER %": _mean(group.wers.get(name)) for name in sets}
        row["trainable encoder"] = f"{used['parameters']['trainable_encoder']:,}"
        row["less model MB"] = ledger.columns(used)["less model MB"]
        row |= {"audio s/s": f"{speed:.0f}", "train min": f"{used['wall_seconds'] / 60:.1f}"}
        rows.append(row)
    return ledger.table(rows)


def report(roots: list[Path], out: Path, title: str, command: str = "") -> tuple[list[str], dict[str, list]]:
    """Write `out` (RESULTS.md); the lines of its summary table, and what analysis/plot.py draws:
    {set: [(name, WER of each run in percent, trainable encoder parameters, GFLOP of training per second of audio)]}.
    """
    groups = _read(roots)
    table = summary(groups)
    cached = {r["cached"] for group in groups for r in group.resources}
    source = {frozenset({True}): "cached hidden states", frozenset({False}): "waveforms"}.get(frozenset(cached), "both")
    made = [f"- command: `{command}`"] if command else []
    lines = [f"# {title}", "", "## Environment", *environment(), *made, "", "## Methods", *table, ""]
    lines += [
        "WER: mean over seeds ± standard deviation. Trainable encoder: the upstream's own + inserted + fusion parameters.",
        f"Memory and speed are of training, each method in its own process, from {source}; less model: above what the",
        "process held with the model loaded; audio s/s: seconds of audio per second of forward, backward and update.",
        "",
        "## Costs",
        *ledger.table([{"method": group.name, **ledger.columns(group.costs())} for group in groups]),
        "",
        *ledger.LEGEND,
        "",
    ]
    points = {}
    for name in sorted({name for group in groups for name in group.wers}):
        points[name] = [
            (group.name, group.wers[name], group.resources[0]["parameters"]["trainable_encoder"], group.gflop())
            for group in groups
            if name in group.wers
        ]
        for kind in ("wer", "cer", "ter"):
            lines += [f"## {name}: {kind.upper()}", score.HEAD.rstrip()]
            for run in (run for group in groups for run in group.runs):
                if run.decode(name) in run.decoded():
                    lines.append(score.row(f"{run.root.name}/{name}", read_scores(run.decode(name))[kind]).rstrip())
            lines.append("")
    write_text(out, "\n".join(lines))
    return table, points
