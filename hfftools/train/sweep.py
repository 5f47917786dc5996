"""Train once with each value of an option, and write the value of lowest dev error to best.yaml, for hff-train --config.

The same command, run again, skips finished runs and resumes interrupted ones. A value with which training diverges is
reported and left out.
"""

from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path

from hfftools.config import parse_words, to_yaml
from hfftools.disk import alone
from hfftools.expdir import ExpDir, write_json, write_text
from hfftools.log import UserError, log, require, setup_logging
from hfftools.train.history import Diverged, summary
from hfftools.train.job import read_resources, train


def sweep(root: Path, sources: list[Path], overrides: list[str], keys: list[str], values: list[str]) -> Path:
    """Train root/<value> for each value, with each of `keys` set to it, and return the path of best.yaml.

    Of values with equal dev errors the one with the lower dev loss is the best. sweep.json has the figures of all runs.
    Raises UserError if a value cannot name a folder, or if no value could be trained with.
    """
    for value in values:
        usable = value not in ("", ".", "..", "best") and "/" not in value  # each becomes a folder's name
        require(usable, f"--values: '{value}' cannot name a folder; choose among files by hff-train --config instead")
    with alone(root):
        return _sweep(root, sources, overrides, keys, values)


def _sweep(root: Path, sources: list[Path], overrides: list[str], keys: list[str], values: list[str]) -> Path:
    """Do what `sweep` does in a folder that is locked."""
    results: dict[str, dict] = {}
    for value in values:
        options = [*overrides, *(f"{key}={value}" for key in keys)]
        try:
            exp = _alone(root / value, sources, options)
        except Diverged as error:
            log.warning(f"{root / value} is left out: {error}")
            continue
        used = read_resources(exp)
        kept = ("dev_error", "metric", "lower_is_better", "dev_loss", "train_seconds", "epochs")
        results[value] = {key: used[key] for key in kept if key in used}  # older runs do not say lower_is_better
        log.info(f"{' = '.join([*keys, value])}: {summary(used)}")
    if not results:
        raise UserError(f"{root}: no value of {', '.join(keys)} could be trained with; give lower ones")
    best = min(results, key=lambda value: (results[value]["dev_error"], results[value]["dev_loss"]))
    if _at_the_edge(best, values):
        log.warning(f"{root}: the best value, {best}, is at the edge of those tried")
    write_json(root / "sweep.json", {"keys": keys, "best": best, "runs": results})
    link = root / "best"  # the best run itself, which need not be trained again
    link.unlink(missing_ok=True)
    link.symlink_to(best)
    write_text(root / "best.yaml", to_yaml(parse_words(f"{key}={best}" for key in keys)))
    return root / "best.yaml"


def _alone(root: Path, sources: list[Path], options: list[str]) -> ExpDir:
    """Train in a new process, and return its experiment; so the memory that it reports is not that of earlier runs."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn"), initializer=setup_logging) as pool:
        try:
            return pool.submit(train, root, sources, options).result()
        except BrokenProcessPool:
            raise UserError(
                f"{root}: its process was killed, perhaps because memory ran out; run the same command again to resume"
            ) from None


def _at_the_edge(best: str, values: list[str]) -> bool:
    """Return whether `best` is the lowest or highest of several values, if these are numbers."""
    try:
        numbers = sorted(map(float, values))
    except ValueError:
        return False
    return len(numbers) > 1 and float(best) in (numbers[0], numbers[-1])
