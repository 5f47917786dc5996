"""Best-path CTC decoding: log posteriors [B, T, U] and lengths in, unit sequences out."""

from torch import Tensor


def greedy(log_probs_BTU: Tensor, lens_B: Tensor, blank: int = 0) -> list[list[int]]:
    """The most likely unit of each frame, repeats merged, blanks dropped."""
    paths = log_probs_BTU.argmax(-1).cpu()
    sequences = []
    for path, length in zip(paths, lens_B.tolist(), strict=True):
        merged = path[:length].unique_consecutive().tolist()
        sequences.append([unit for unit in merged if unit != blank])
    return sequences
