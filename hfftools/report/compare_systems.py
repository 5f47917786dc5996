"""Experiments or decoded sets in; which sets they have, and how those of two compare, out."""

from pathlib import Path

from hfftools import score
from hfftools.expdir import ExpDir
from hfftools.log import UserError, log


def decoded_sets(path: Path) -> list[Path]:
    """The decoded sets with transcripts of an experiment exp/<name>, or `path` where it is a decoded set itself.

    UserError where it is neither; sets without transcripts are named in the log and left out.
    """
    if (path / "text").exists():
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
    return [score.compare(*map(score.read_decoded, pair)) for pair in pairs]
