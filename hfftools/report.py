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
from hfftools.train.experiment import HARMLESS, read_config
from hfftools.train.job import read_scores


@dataclass
class Group:
    """Experiments that differ in nothing but their seed."""

    name: str
    runs: list[ExpDir]
    resources: list[dict]
    wers: dict[str, list[float]]  # set -> WER in percent of each run

    def wer(self, name: str) -> str:
        values = self.wers.get(name)
        if not values:
            return "–"
        spread = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
        return f"{statistics.mean(values):.1f}{spread}"

    def mean(self, key: str) -> float:
        return statistics.mean(r[key] for r in self.resources)


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
    """The table of methods: error rates, trainable parameters, memory and speed."""
    sets = sorted({name for group in groups for name in group.wers})
    titles = ["method", "seeds", "dev WER %", *(f"{name} WER %" for name in sets)]
    titles += ["trainable encoder", "head", "peak memory MB", "less model MB", "audio s/s", "train min"]
    lines = ["| " + " | ".join(titles) + " |", "|---" * len(titles) + "|"]
    for group in groups:
        parameters = group.resources[0]["parameters"]
        dev = [100 * r["dev_wer"] for r in group.resources]
        cells = [
            group.name,
            str(len(group.runs)),
            f"{statistics.mean(dev):.1f}",
            *(group.wer(name) for name in sets),
            f"{parameters['trainable_encoder']:,}",
            f"{parameters['head']:,}",
            f"{group.mean('peak_bytes') / 1e6:.0f}",
            f"{group.mean('peak_less_model_bytes') / 1e6:.0f}",
            f"{statistics.mean(r['audio_seconds'] / max(1e-9, r['train_seconds']) for r in group.resources):.0f}",
            f"{group.mean('wall_seconds') / 60:.1f}",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def report(roots: list[Path], out: Path, title: str, command: str = "") -> tuple[list[str], dict[str, list]]:
    """Write `out` (RESULTS.md); the lines of its summary table, and {set: [(name, WER, trainable encoder parameters)]}."""
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
    ]
    points = {}
    for name in sorted({name for group in groups for name in group.wers}):
        points[name] = [
            (group.name, statistics.mean(group.wers[name]), group.resources[0]["parameters"]["trainable_encoder"])
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
