"""Measure how many of a layer's dimensions its frames use, and how evenly they are spread over them.

Axes: N frames, D dimensions, S scales. A figure that is undefined for the frames is None.
"""

import math

import torch
from torch import Tensor


def isoscore(cov_DD: Tensor) -> float | None:
    """Return the IsoScore of frames with this covariance (Rudman et al., arXiv:2108.07344).

    It is the share of dimensions in use: 0 if all frames lie on a line, 1 if all directions have the same variance. It
    is computed from the angle between the variances along the principal axes and a vector of ones. Return None for a
    single dimension, and if the frames do not vary or are not finite.
    """
    power_D, width = _power(cov_DD), len(cov_DD)
    if power_D is None or width < 2:
        return None
    cosine = power_D.sum() / (power_D.norm() * math.sqrt(width))
    # the square of the isotropy defect of the paper, which is scaled to between 0 and 1
    defect = (1 - cosine) * math.sqrt(width) / (math.sqrt(width) - 1)
    used = (width - defect * (width - math.sqrt(width))) ** 2 / width  # a number of dimensions, from 1 to D
    return ((used - 1) / (width - 1)).item()


def effective_rank(cov_DD: Tensor) -> float | None:
    """Return the effective rank of frames with this covariance (Roy and Vetterli, EUSIPCO 2007).

    It is exp(entropy of p), p the singular values of the centred frames divided by their sum; a number of dimensions
    from 1 to D. Return None if the frames do not vary or are not finite.
    """
    power_D = _power(cov_DD)
    if power_D is None:
        return None
    # the singular values of the frames are the roots of these variances, times the root of N, which cancels
    share_D = power_D.sqrt() / power_D.sqrt().sum()
    return torch.special.entr(share_D).sum().exp().item()


def _power(cov_DD: Tensor) -> Tensor | None:
    """Return the variances [D] along the principal axes, smallest first, or None if all are 0 or one is not finite.

    In directions without variance, rounding errors would remain; they are set to 0.
    """
    if not cov_DD.isfinite().all():
        return None
    power_D = torch.linalg.eigvalsh(cov_DD)
    largest = power_D[-1]
    floor = len(power_D) * torch.finfo(power_D.dtype).eps * largest
    return torch.where(power_D > floor, power_D, 0.0) if largest > 0 else None


class Partition:
    """Accumulate ln Z(c) in a second pass over the frames v, where Z(c) is the sum of exp(c . v) over them.

    Z is the partition function of Mu and Viswanath (arXiv:1702.01417). Its arguments c are the unit
    eigenvectors of sum(v vT), from which no mean is subtracted; each with both signs, since that of an eigenvector is
    arbitrary. min Z / max Z over c is 1 for an isotropic set of frames.

    square_DD: mean of v vT over the frames, [D, D] float64, from the first pass; finite and not zero.
    """

    def __init__(self, square_DD: Tensor):
        self.axes_DD = torch.linalg.eigh(square_DD).eigenvectors
        self.scales = (1.0, square_DD.trace().rsqrt().item())  # unscaled; divided by the root mean square norm
        shape = (len(self.scales), 2, len(square_DD))  # 2 for the signs
        self.log_z_S2D = torch.full(shape, -torch.inf, dtype=torch.float64, device=square_DD.device)

    def add(self, frames_ND: Tensor) -> None:
        """Add the frames [N, D] to the sums."""
        along_ND = frames_ND.double() @ self.axes_DD
        for scale, log_z_2D in zip(self.scales, self.log_z_S2D, strict=True):
            for sign, log_z_D in zip((1, -1), log_z_2D, strict=True):
                log_z_D.copy_(torch.logaddexp(log_z_D, (sign * scale * along_ND).logsumexp(0)))

    def ratios(self) -> dict[str, float]:
        """Return `isotropy` and `log_isotropy`.

        `log_isotropy` is ln(min Z / max Z) of the unscaled frames; it is far below 0 if their norms are large.
        `isotropy` is min Z / max Z, in (0, 1], of the frames divided by their root mean square norm, so that it does
        not depend on their scale.
        """
        raw, scaled = (log_z_2D.min() - log_z_2D.max() for log_z_2D in self.log_z_S2D)
        return {"isotropy": scaled.exp().item(), "log_isotropy": raw.item()}
