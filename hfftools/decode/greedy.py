"""Decode CTC by its best path: the most likely unit of every frame, without repeats and blanks."""

from torch import Tensor

from hfftools.decode.hypothesis import Hypothesis, read, runs
from hfftools.text.units import Units


def greedy(log_probs_BTU: Tensor, lens_B: Tensor, blank: int = 0) -> list[list[int]]:
    """Return the unit ids of each utterance's best path; `log_probs_BTU` are log posteriors, `lens_B` counts frames.

    Repeats are merged before blanks are removed, so that a blank keeps two equal units apart (Graves et al. 2006).
    """
    paths = log_probs_BTU.argmax(-1).cpu()
    sequences = []
    for path, length in zip(paths, lens_B.tolist(), strict=True):
        merged = path[:length].unique_consecutive().tolist()
        sequences.append([unit for unit in merged if unit != blank])
    return sequences


def hypotheses(log_probs_BTU: Tensor, lens_B: Tensor, units: Units) -> list[list[Hypothesis]]:
    """Return a list of one hypothesis for each utterance: that of its best path, scored by that path alone."""
    best_BT, paths_BT = log_probs_BTU.max(-1)
    readings = []
    for path, best, length in zip(paths_BT.cpu().tolist(), best_BT.cpu(), lens_B.tolist(), strict=True):
        readings.append([read(units, *runs(path[:length]), best[:length].sum().item())])
    return readings
