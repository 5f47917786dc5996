"""What the probe found in, a recommendation out: where to stop computing, and which layers below to fuse.

The rule is ours. Stop: the lowest layer whose character error rate is surely within 5 % of the best layer's, by a paired
bootstrap over utterances; what lies above it is never computed. A dev set too small to be sure leaves the best layer.
Fuse: going down from there, every layer that is not alike (by linear CKA) to one already taken; without CKA, every second.
"""

import numpy as np

from hfftools.config import to_yaml

ALIKE = 0.9  # linear CKA from which on two layers tell the same
MARGIN = 0.05  # of the best layer's errors
RESAMPLES = 1000


def surely_as_good(errors_U: list[int], best_U: list[int], seed: int = 0) -> bool:
    """Whether, over the same U utterances, the 97.5 % bound of the errors' excess over the best is within MARGIN of it."""
    excess_U = np.asarray(errors_U) - (1 + MARGIN) * np.asarray(best_U)
    drawn = np.random.default_rng(seed).integers(0, len(excess_U), (RESAMPLES, len(excess_U)))
    return bool(np.percentile(excess_U[drawn].sum(1), 97.5) <= 0)


def recommend(errors: dict[int, list[int]], cka: dict | None, config: dict) -> dict:
    """{"layers", "stop", "best", "reason", "yaml"} from the errors of each utterance by layer, all scored on the same set.

    `cka` is {"names": […], "matrix": [[…]]} as in probe.json, or None. `config` is what the yaml says besides: the
    upstream and the data that hff-train should take.
    """
    best = min(errors, key=lambda layer: (sum(errors[layer]), layer))
    stop = min(layer for layer in errors if layer == best or surely_as_good(errors[layer], errors[best]))
    if cka is not None and any(None in row for row in cka["matrix"]):
        cka = None
    taken = [stop]
    for layer in sorted((layer for layer in errors if layer < stop), reverse=True):
        if cka is None:
            new = (stop - layer) % 2 == 0
        else:
            row = cka["matrix"][cka["names"].index(str(layer))]
            new = max(row[cka["names"].index(str(other))] for other in taken) < ALIKE
        if new:
            taken.append(layer)
    reason = f"Stop at layer {stop}: " + (
        "it has the lowest character error rate."
        if stop == best
        else f"it is the lowest whose character error rate is surely within {MARGIN:.0%} of that of layer {best}, the best."
    )
    if stop > min(errors):
        reason += " Below, " + (
            "every second layer, since likeness (CKA) was not measured, or on too few frames."
            if cka is None
            else f"each layer that is not alike (CKA {ALIKE} or more) to one above it."
        )
    fusion = {"tune": {"name": "frozen"}, "fuse": {"name": "hff", "layers": sorted(taken)}}
    yaml = f"# {reason}\n" + to_yaml({**config, **fusion})
    return {"layers": sorted(taken), "stop": stop, "best": best, "reason": reason, "yaml": yaml}
