"""Best-path CTC decoding: log posteriors [B, T, U] and lengths in, unit sequences or hypotheses out."""

from torch import Tensor

from hfftools.decode.hypothesis import Hypothesis, read, runs
from hfftools.text.units import Units


def greedy(log_probs_BTU: Tensor, lens_B: Tensor, blank: int = 0) -> list[list[int]]:
    """The most likely unit of each frame, repeats merged, blanks dropped."""
    paths = log_probs_BTU.argmax(-1).cpu()
    sequences = []
    for path, length in zip(paths, lens_B.tolist(), strict=True):
        merged = path[:length].unique_consecutive().tolist()
        sequences.append([unit for unit in merged if unit != blank])
    return sequences


def hypotheses(log_probs_BTU: Tensor, lens_B: Tensor, units: Units) -> list[list[Hypothesis]]:
    """The one reading of each utterance's best path; its score is that path's."""
    best_BT, paths_BT = (found.cpu() for found in log_probs_BTU.max(-1))
    found = []
    for path, best, length in zip(paths_BT.tolist(), best_BT, lens_B.tolist(), strict=True):
        found.append([read(units, *runs(path[:length]), best[:length].sum().item())])
    return found
