"""Read finished experiments into sections of comparable ones, with seeds grouped and their errors and costs.

Experiments of one recipe (the folder that holds their exp/) with one upstream make a section. Within it, `odd` names the
rows whose transcripts of a set differ from those of most rows.
"""

import json
import os
import statistics
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from hfftools import score
from hfftools.config import flat
from hfftools.data.datadir import set_name
from hfftools.expdir import ExpDir, each_once
from hfftools.infer.decode_sets import read_scores, stale
from hfftools.log import UserError, log, require
from hfftools.task.base import Task
from hfftools.train.experiment import HARMLESS, read_config, task_of
from hfftools.train.job import read_resources


@dataclass
class Column:
    """Hold the decodes of one set by the runs of a group; the folder is <set> or <set>_<label>."""

    metric: str  # by which the task judges its references, such as wer, cer or accuracy
    lower_is_better: bool
    refs: str  # the references as JSON: rows that differ in it are of different sets
    rates: list[float]  # in percent, one for each run
    low: float  # 95 % interval of their mean, over utterances
    high: float


@dataclass
class Group:
    """Hold experiments that differ in nothing but their seed."""

    name: str
    dev_name: str
    dev_metric: str  # by which epochs were chosen, such as wer, cer or accuracy
    task: type[Task]
    runs: list[ExpDir] = field(default_factory=list)
    resources: list[dict] = field(default_factory=list)
    columns: dict[str, Column] = field(default_factory=dict)

    def dev(self) -> list[float]:
        """Return the dev metric of each run, in percent."""
        return [100 * score.dev_value(r) for r in self.resources]

    def gflop(self) -> float | None:
        """Return the operations of training per second of audio, in 10^9, including the upstream's forward pass.

        Return None where the runs have not recorded them.
        """
        used, keys = self.costs(), ["forward_flops_per_s", "backward_flops_per_s"]
        keys += ["upstream_forward_flops_per_s"] if used["cached"] else []
        return sum(used[key] for key in keys) / 1e9 if all(used.get(key) is not None for key in keys) else None

    def mean(self, key: str) -> float | None:
        """Return the mean over the runs that recorded `key`; None where none did."""
        recorded = [r[key] for r in self.resources if r.get(key) is not None]
        return statistics.mean(recorded) if recorded else None

    def costs(self) -> dict:
        """Return the means over the runs, in the form of one run's resources."""
        return {
            **self.resources[0],
            **{k: self.mean(k) for k, v in self.resources[0].items() if type(v) in (int, float)},
        }


@dataclass
class Section:
    """Hold the comparable experiments: those of one recipe with one upstream."""

    title: str
    groups: list[Group]

    def names(self) -> list[str]:
        """Return the names of the decodes: set by set, each followed by its labelled decodes."""
        names = {name for group in self.groups for name in group.columns}

        def place(name: str) -> tuple[str, str]:
            sets = [other for other in names if name.startswith(other + "_")]
            return (min(sets, key=len), name) if sets else (name, "")

        return sorted(names, key=place)

    def metric(self, name: str) -> tuple[str, bool]:
        """Return the metric by which most groups that have a decode were scored, and whether lower is better."""
        odd = self.odd(name)
        columns = [g.columns[name] for g in self.groups if name in g.columns and g.name not in odd]
        return columns[0].metric, columns[0].lower_is_better

    def dev_metric(self) -> tuple[str, bool]:
        """Return the metric by which epochs of most groups were chosen in training, and whether lower is better."""
        return statistics.mode((group.dev_metric, group.task.lower_is_better) for group in self.groups)

    def odd(self, name: str) -> set[str]:
        """Return the names of the groups whose references of a set are not those of most groups."""
        refs = {group.name: group.columns[name].refs for group in self.groups if name in group.columns}
        usual = statistics.mode(refs.values())
        return {group for group, theirs in refs.items() if theirs != usual}


@dataclass
class Plot:
    """Hold what a plot of error against cost on one decode shows."""

    path: Path
    title: str
    metric: str
    points: list[tuple[str, Column, int, float | None]]  # name, errors, trainable encoder parameters, GFLOP


def read(roots: list[Path]) -> list[Section]:
    """Return sections in the order of `roots`; folders that are no finished experiment are named in the log and left out.

    So are those that differ from another one not even in the seed; a folder that is named twice counts once.

    Raises UserError where none is left.
    """
    sections: dict[tuple[Path, str], dict[str, Group]] = {}
    other: list[Path] = []
    unfinished: list[Path] = []
    seeds: dict[tuple[int, int], Path] = {}  # {(group, seed): experiment}
    for root in each_once(roots):
        exp = ExpDir(root)
        if not (exp.config.exists() and exp.resources.exists()):
            (unfinished if exp.config.exists() and exp.checkpoints.exists() else other).append(root)
            continue
        config = read_config(exp, [])
        dev_name = set_name(config.data.dev)
        place = Path(os.path.abspath(root)).parent.parent  # not resolve: exp/ may be a link to a larger disk
        section = sections.setdefault((place, config.upstream), {})
        used = read_resources(exp)
        require(
            "metric" in used,
            f"{exp.resources} was written by an older hff; report it with that version, or train again in another folder",
        )
        options = {k: v for k, v in flat(config).items() if k not in (*HARMLESS, "seed")}
        alike = json.dumps([options, used["metric"]], sort_keys=True)  # a dev set may have got other transcripts
        group = section.setdefault(alike, Group(root.name, dev_name, used["metric"], task_of(config)))
        first = seeds.setdefault((id(group), config.seed), root)
        if first != root:  # a copy, or the same run again: it says nothing of other seeds
            log.warning(f"{root} has the options and the seed of {first}: left out")
            continue
        group.runs.append(exp)
        group.resources.append(used)
    for what, paths in (("no experiments", other), ("not trained to the end", unfinished)):
        if paths:
            log.info(f"{what}, left out: {', '.join(map(str, paths))}")
    if not sections:
        raise UserError(f"none of {', '.join(map(str, roots))} is a finished experiment; run hff-train")
    result = []
    for (place, upstream), groups in sections.items():
        for group in groups.values():
            group.columns = _columns(group.runs, group.task)
        twins = [p for p, u in sections if (p.name, u) == (place.name, upstream)]
        recipe = place.name if len(twins) == 1 else str(place)
        result.append(Section(f"{recipe} with {upstream}", list(groups.values())))
    return result


def _columns(runs: list[ExpDir], task: type[Task]) -> dict[str, Column]:
    """Return {decode: its column} over the runs of a group that decoded it with the same references."""
    decoded_by_name: dict[str, list[score.Decoded]] = {}
    for run in runs:
        for folder in run.decoded():
            if changed := stale(folder):
                log.warning(
                    f"{folder}: the content of {', '.join(changed)} has changed since; left out: run hff-decode"
                )
            elif read_scores(folder):
                decoded_by_name.setdefault(folder.name, []).append(score.read_decoded(folder, task.reference))
    columns = {}
    for name, decodes in decoded_by_name.items():
        references = [json.dumps([d.utts, d.refs]) for d in decodes]
        usual = statistics.mode(references)
        for decoded, mine in zip(decodes, references, strict=True):
            if mine != usual:
                log.warning(f"{decoded.folder}: its references differ from those of the other seeds; it is left out")
        decodes = [decoded for decoded, mine in zip(decodes, references, strict=True) if mine == usual]
        metric, lower = task.metric(decodes[0].refs), task.lower_is_better
        counts = [task.errors(metric, decoded.refs, decoded.hyps) for decoded in decodes]
        errors_U, counted_U = np.sum([errors for errors, _ in counts], axis=0), counts[0][1]
        mean = score.Figure.of(metric, errors_U, len(counts) * counted_U, lower)
        rates = [100 * score.value(score.mean_error(*pair), lower) for pair in counts]
        columns[name] = Column(metric, lower, usual, rates, 100 * mean.low, 100 * mean.high)
    return columns
