"""Values of an option in, one short run each out, and best.yaml: the value of lowest dev error, for hff-train --config.

A sweep is a queue: finished runs are skipped and interrupted ones go on, by the same command. A value with which training
fails, as by diverging, is named and left out.
"""

import json
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path

from hfftools.config import parse_words, to_yaml
from hfftools.expdir import ExpDir, write_json, write_text
from hfftools.log import UserError, log, require, setup_logging
from hfftools.train.history import Diverged, told
from hfftools.train.job import train


def sweep(root: Path, sources: list[Path], overrides: list[str], keys: list[str], values: list[str]) -> Path:
    """Train root/<value> with each of `keys` set to it; the path of best.yaml. UserError where no value trains.

    Equal error rates are settled by the lower dev loss. sweep.json has the figures of all runs.
    """
    for value in values:
        fit = value not in ("", ".", "..", "best") and "/" not in value  # each becomes a folder's name
        require(fit, f"--values: '{value}' cannot name a folder; choose among files by hff-train --config instead")
    results: dict[str, dict] = {}
    for value in values:
        options = [*overrides, *(f"{key}={value}" for key in keys)]
        try:
            exp = _alone(root / value, sources, options)
        except Diverged as error:
            log.warning(f"{root / value} is left out: {error}")
            continue
        used = json.loads(exp.resources.read_text())
        kept = ("dev_error", "metric", "lower_is_better", "dev_loss", "train_seconds", "epochs")
        results[value] = {key: used[key] for key in kept if key in used}  # older runs do not say lower_is_better
        log.info(f"{' = '.join([*keys, value])}: {told(used)}")
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
    """hff-train in a process of its own, so that its memory is its own too."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn"), initializer=setup_logging) as pool:
        try:
            return pool.submit(train, root, sources, options).result()
        except BrokenProcessPool:
            raise UserError(
                f"{root}: its process was killed, as for want of memory; run the same command again"
            ) from None


def _at_the_edge(best: str, values: list[str]) -> bool:
    try:
        numbers = sorted(map(float, values))
    except ValueError:
        return False
    return len(numbers) > 1 and float(best) in (numbers[0], numbers[-1])
