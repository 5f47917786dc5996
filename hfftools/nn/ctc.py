"""Compute the CTC loss (Graves et al. 2006) and the number of frames that it needs; unit 0 is the blank."""

from torch import Tensor, nn


def ctc_loss(log_probs_BTU: Tensor, lens_B: Tensor, targets_BL: Tensor, target_lens_B: Tensor) -> Tensor:
    """Return -log p(targets | log_probs) [B] in nats, summed over all alignments (equation 3).

    It is infinite where an utterance has fewer frames than `frames_needed`.
    """
    return nn.functional.ctc_loss(log_probs_BTU.transpose(0, 1), targets_BL, lens_B, target_lens_B, reduction="none")


def frames_needed(ids: list[int]) -> int:
    """Return the least number of frames that CTC can align `ids` with.

    Each unit takes one frame. Two equal neighbours need a blank between them, because the map from paths to labellings
    merges repeated units before it removes blanks (section 3.1): `aa` would read as one `a`.
    """
    repeats = sum(unit == following for unit, following in zip(ids, ids[1:], strict=False))
    return len(ids) + repeats
