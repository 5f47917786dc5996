"""CTC (Graves et al. 2006): log posteriors [B, T, U], unit ids and lengths in, losses [B] out; id 0 is the blank."""

from torch import Tensor, nn


def ctc_loss(log_probs_BTU: Tensor, lens_B: Tensor, targets_BL: Tensor, target_lens_B: Tensor) -> Tensor:
    """Negative log likelihood [B] in nats; infinite where an utterance has more labels than frames."""
    return nn.functional.ctc_loss(log_probs_BTU.transpose(0, 1), targets_BL, lens_B, target_lens_B, reduction="none")


def frames_needed(ids: list[int]) -> int:
    """Frames that CTC needs at least: one a label, and a blank between equal neighbours."""
    return len(ids) + sum(a == b for a, b in zip(ids, ids[1:], strict=False))
