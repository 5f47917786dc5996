"""Recommend from the results of a probe where to stop computing, and which layers below to fuse.

The rule is ours. Stop: the lowest layer whose character error rate is within 5 % of the best layer's with 97.5 % confidence,
by a paired bootstrap over utterances; what lies above it is never computed. A dev set too small for that leaves the best
layer. Fuse: going down from there, every layer that is not similar (linear CKA) to one already taken; without CKA, every
second.
"""

import numpy as np

from hfftools.config import to_yaml
from hfftools.probe.results import Recommendation, SimilarityMatrix

SIMILAR = 0.9  # linear CKA from which on two layers count as holding the same
MARGIN = 0.05  # of the best layer's errors
RESAMPLES = 1000


def confidently_as_good(errors_U: list[int], best_U: list[int], seed: int = 0) -> bool:
    """Return whether errors exceed the best by at most MARGIN with 97.5 % confidence, by a bootstrap over U utterances.

    Paired: both counts of an utterance are drawn together, so hard utterances do not blur the difference of two layers.
    """
    excess_U = np.asarray(errors_U) - (1 + MARGIN) * np.asarray(best_U)
    drawn = np.random.default_rng(seed).integers(0, len(excess_U), (RESAMPLES, len(excess_U)))
    return bool(np.percentile(excess_U[drawn].sum(1), 97.5) <= 0)


def recommend(errors: dict[int, list[int]], cka: SimilarityMatrix | None, config: dict) -> Recommendation:
    """Return the layers to fuse, from {layer: errors of each utterance}, all scored on the same set.

    cka: similarity of the layers, or None where it was not measured.
    config: what the yaml says in addition, the upstream and the data that hff-train should take.
    """
    best = min(errors, key=lambda layer: (sum(errors[layer]), layer))
    stop = min(layer for layer in errors if layer == best or confidently_as_good(errors[layer], errors[best]))
    if cka is not None and any(None in row for row in cka.matrix):
        cka = None  # measured on too few frames for some pair, so that the rule cannot be followed throughout
    taken = [stop]
    for layer in sorted((layer for layer in errors if layer < stop), reverse=True):
        if cka is None:
            new = (stop - layer) % 2 == 0
        else:
            row = cka.matrix[cka.names.index(str(layer))]
            to_taken = [row[cka.names.index(str(other))] for other in taken]
            new = max(number for number in to_taken if number is not None) < SIMILAR
        if new:
            taken.append(layer)
    reason = f"Stop at layer {stop}: " + (
        "it has the lowest character error rate."
        if stop == best
        else f"it is the lowest whose character error rate is within {MARGIN:.0%} of that of layer {best}, the best, "
        "with 97.5 % confidence."
    )
    if stop > min(errors):
        reason += " Below, " + (
            "every second layer, since similarity (CKA) was not measured, or on too few frames."
            if cka is None
            else f"each layer that is not similar (CKA {SIMILAR} or more) to one above it."
        )
    fusion = {"tune": {"name": "frozen"}, "fuse": {"name": "hff", "layers": sorted(taken)}}
    yaml = f"# {reason}\n" + to_yaml({**config, **fusion})
    return Recommendation(sorted(taken), stop, best, reason, yaml)
