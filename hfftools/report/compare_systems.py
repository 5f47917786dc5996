"""Experiments or decoded sets in; which sets they have, and how those of two compare, out."""

from dataclasses import replace
from pathlib import Path

from hfftools import score
from hfftools.expdir import ExpDir
from hfftools.infer.decode_sets import task_of_set
from hfftools.log import UserError, log, require


def decoded_sets(path: Path) -> list[Path]:
    """The decoded sets with transcripts of an experiment exp/<name>, or `path` where it is a decoded set itself.

    UserError where it is neither; sets without transcripts are named in the log and left out.
    """
    if (path / task_of_set(path).reference).exists():
        return [path]
    found = ExpDir(path).decoded()
    known = [folder for folder in found if (folder / "ref").exists()]
    if not known:
        what = "there are no transcripts of" if found else "there is no text of"
        raise UserError(
            f"{path}: {what} a decoded set in it: neither exp/<name>/decode/<set> nor an experiment; run hff-decode"
        )
    for folder in found:
        if folder not in known:
            log.warning(f"{folder} has no transcripts: left out")
    return known


def compare(first: Path, second: Path) -> list[score.Comparison]:
    """Two decoded sets, or the sets of one name that two experiments have, the second one's beside the first one's.

    UserError where there is no such set, or where their utterances or references differ.
    """
    sets = [decoded_sets(path) for path in (first, second)]
    if (sets[0] == [first]) != (sets[1] == [second]):
        raise UserError(f"{first} and {second}: one is an experiment and one a decoded set; give two of a kind")
    if sets[0] == [first]:
        pairs = [(first, second)]
    else:
        one, two = ({folder.name: folder for folder in found} for found in sets)
        for lacks, names in ((second, one.keys() - two.keys()), (first, two.keys() - one.keys())):
            if names:
                log.warning(f"{lacks} has not decoded {', '.join(sorted(names))}: not compared")
        pairs = [(one[name], two[name]) for name in one if name in two]
    if not pairs:
        raise UserError(f"{first} and {second} have decoded no set in common; run hff-decode with the same --data")
    return [_compare_sets(*pair) for pair in pairs]


def _compare_sets(first: Path, second: Path) -> score.Comparison:
    task, other = task_of_set(first), task_of_set(second)
    require(task.reference == other.reference, f"{first} and {second}: their tasks predict different things")
    one, two = (score.read_decoded(folder, task.reference) for folder in (first, second))
    metric = task.metric(one.refs)
    found = score.compare(one, two, metric, task.errors)
    # what is counted are errors, also where the metric is 1 - errors / counted
    return found if task.lower_is_better else replace(found, metric=f"{score.title(metric)} errors")
