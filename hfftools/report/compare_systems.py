"""Find the decoded sets of experiments, and compare those of two systems."""

from dataclasses import replace
from pathlib import Path

from hfftools import score
from hfftools.expdir import ExpDir
from hfftools.infer.decode_sets import refuse_stale, task_of_set
from hfftools.log import UserError, log, require


def decoded_sets(path: Path) -> list[Path]:
    """Return the decoded sets of an experiment exp/<name> that have references, or `path` where it is a decoded set itself.

    Raises UserError where it is neither; sets without references are named in the log and left out.
    """
    if (path / task_of_set(path).reference).exists():
        return [path]
    decoded = ExpDir(path).decoded()
    known = [folder for folder in decoded if (folder / "ref").exists()]
    if not known:
        what = "there are no transcripts of" if decoded else "there is no text of"
        raise UserError(
            f"{path}: {what} a decoded set in it: neither exp/<name>/decode/<set> nor an experiment; run hff-decode"
        )
    for folder in decoded:
        if folder not in known:
            log.warning(f"{folder} has no transcripts: left out")
    return known


def compare(first: Path, second: Path) -> list[score.Comparison]:
    """Compare two decoded sets, or the sets of the same name that two experiments have decoded.

    Raises UserError where there is no such set, or where their utterances or references differ.
    """
    sets = [decoded_sets(path) for path in (first, second)]
    if (sets[0] == [first]) != (sets[1] == [second]):
        raise UserError(f"{first} and {second}: one is an experiment and one a decoded set; give two of a kind")
    if sets[0] == [first]:
        pairs = [(first, second)]
    else:
        one, two = ({folder.name: folder for folder in folders} for folders in sets)
        for lacks, names in ((second, one.keys() - two.keys()), (first, two.keys() - one.keys())):
            if names:
                log.warning(f"{lacks} has not decoded {', '.join(sorted(names))}: not compared")
        pairs = [(one[name], two[name]) for name in one if name in two]
    if not pairs:
        raise UserError(f"{first} and {second} have decoded no set in common; run hff-decode with the same --data")
    return [_compare_sets(*pair) for pair in pairs]


def _compare_sets(first: Path, second: Path) -> score.Comparison:
    refuse_stale(first)
    refuse_stale(second)
    task, other = task_of_set(first), task_of_set(second)
    require(task.reference == other.reference, f"{first} and {second}: their tasks predict different things")
    one, two = (score.read_decoded(folder, task.reference) for folder in (first, second))
    metric = task.metric(one.refs)
    comparison = score.compare(one, two, metric, task.errors)
    # what is counted are errors, also where the metric is 1 - errors / counted
    return comparison if task.lower_is_better else replace(comparison, metric=f"{score.title(metric)} errors")
