"""Moments of a layer's frames in; how many of its dimensions they use, and how evenly, out.

N frames, D wide. A figure that is undefined for the frames is None.
"""

import math

import torch
from torch import Tensor


def isoscore(cov_DD: Tensor) -> float | None:
    """IsoScore of frames with this covariance: 0 on a line, 1 where all directions vary alike (Rudman et al., 2108.07344).

    The share of dimensions in use, by the angle between the variances along the principal axes and an all-ones vector. None
    for a single dimension, or frames that do not vary or are not finite.
    """
    power_D, width = _power(cov_DD), len(cov_DD)
    if power_D is None or width < 2:
        return None
    cosine = power_D.sum() / (power_D.norm() * math.sqrt(width))
    defect = (1 - cosine) * math.sqrt(width) / (math.sqrt(width) - 1)  # the square of the paper's isotropy defect
    used = (width - defect * (width - math.sqrt(width))) ** 2 / width  # dimensions
    return ((used - 1) / (width - 1)).item()


def effective_rank(cov_DD: Tensor) -> float | None:
    """exp of the entropy of the singular values, as shares of their sum, of centred frames (Roy and Vetterli, 2007).

    Between 1 and D dimensions; None for frames that do not vary or are not finite.
    """
    power_D = _power(cov_DD)
    if power_D is None:
        return None
    share_D = power_D.sqrt() / power_D.sqrt().sum()
    return torch.special.entr(share_D).sum().exp().item()


def _power(cov_DD: Tensor) -> Tensor | None:
    """Variances along the principal axes, rounding errors of a null space set to 0."""
    if not cov_DD.isfinite().all():
        return None
    power_D = torch.linalg.eigvalsh(cov_DD)
    largest = power_D[-1]
    floor = len(power_D) * torch.finfo(power_D.dtype).eps * largest
    return torch.where(power_D > floor, power_D, 0.0) if largest > 0 else None


class Partition:
    """The partition function Z(c) = sum over frames v of exp(c . v), in log space, for the frames of a second pass.

    c runs over the unit eigenvectors of sum(v vT), not centred, with both signs, since an eigenvector's sign is arbitrary.
    min Z / max Z is 1 for an isotropic set of frames (Mu and Viswanath, arXiv:1702.01417).

    square_DD: mean of v vT over the frames, [D, D] float64, from the first pass; finite, not zero.
    """

    def __init__(self, square_DD: Tensor):
        self.axes_DD = torch.linalg.eigh(square_DD).eigenvectors
        self.scales = (1.0, square_DD.trace().rsqrt().item())  # frames as they are; over their root mean square norm
        shape = (len(self.scales), 2, len(square_DD))  # 2: the signs
        self.log_z_S2D = torch.full(shape, -torch.inf, dtype=torch.float64, device=square_DD.device)

    def add(self, frames_ND: Tensor) -> None:
        """Take more frames."""
        along_ND = frames_ND.double() @ self.axes_DD
        for scale, log_z_2D in zip(self.scales, self.log_z_S2D, strict=True):
            for sign, log_z_D in zip((1, -1), log_z_2D, strict=True):
                log_z_D.copy_(torch.logaddexp(log_z_D, (sign * scale * along_ND).logsumexp(0)))

    def ratios(self) -> dict[str, float]:
        """`log_isotropy`: ln of min Z / max Z on the frames as they are, far below 0 where they are long.

        `isotropy`: min Z / max Z on frames divided by their root mean square norm, in (0, 1], free of the frames' scale.
        """
        raw, scaled = (log_z_2D.min() - log_z_2D.max() for log_z_2D in self.log_z_S2D)
        return {"isotropy": scaled.exp().item(), "log_isotropy": raw.item()}
