"""Measure how similar two views are: CKA and PWCCA from their covariances, information from clusters and labels.

x and y are two views of the same rows, D and E wide; K canonical directions. Everything is a function of moments, so it
streams. A figure that too few rows would make up is None.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from hfftools.nn.kmeans import chance_information
from hfftools.probe.covariance import Joint, Moments, View, joint

# ridges of x and y, as shares of a dimension's variance; large ones for y: labels are nearly white, log-mel is narrow
EPSILONS = ((1e-4, 1e-4), (1e-4, 1.0), (1e-2, 1.0), (1.0, 1.0))


def linear_cka(views: Joint) -> float | None:
    """Linear centred kernel alignment, |Sxy|^2 / (|Sxx| |Syy|) in Frobenius norms (Kornblith et al., arXiv:1905.00414).

    In [0, 1]: 1 where y is x rotated and scaled. Dimensions of large variance decide it. It is biased upwards by about
    E / rows for independent views of E equal dimensions, so it is None below twice as many rows as the wider view has
    dimensions; also where a view does not vary or is not finite.
    """
    if views.rows < 2 * max(views.xy_DE.shape):
        return None
    return _finite(views.xy_DE.square().sum() / (views.xx_DD.norm() * views.yy_EE.norm()))


def pwcca(train: Joint, dev: Joint, test: Joint, epsilons: Sequence[tuple[float, float]] = EPSILONS) -> float | None:
    """Projection-weighted canonical correlation of x with y (Morcos et al., arXiv:1806.05759).

    As Pasad et al. measure it (arXiv:2107.04734): directions from the train split, the ridge (epsilon_x, epsilon_y) that
    does best on the dev split, correlations and weights on the test split; so noise that fits noise counts for nothing,
    and the result may be slightly below 0. Unlike theirs, dimensions are scaled to unit variance before the ridge is
    added, since one outlier dimension would otherwise set it for all.

    A direction weighs as much as it says about the narrower view (x where they are as wide): the sum over that view's
    dimensions, in their own units, of their absolute covariance with the direction. The narrower one, as in Pasad et al.,
    since K directions span it, and leave a part of the wider one out.

    None where a view does not vary, or is not finite, in one of the splits.
    """
    if not all(part.isfinite().all() for split in (train, dev, test) for part in split[:3]):
        return None
    on_dev, best = -2.0, None
    for pair in directions(train, epsilons):
        value = _weighted_correlation(dev, *pair)
        if value is not None and value > on_dev:
            on_dev, best = value, pair
    return None if best is None else _weighted_correlation(test, *best)


def pwcca_of_folds(folds: Sequence[Moments], x: View, y: View) -> float | None:
    """Mean of `pwcca` over as many rotations as there are folds: one is test, the next one dev, the others are train.

    None unless two folds, which are train where there are four, have at least as many rows as the wider view has
    dimensions; and None where one rotation is. Fewer rows would not make likeness up, but hide it.
    """
    width = max(len(folds[0].shift[x]), len(folds[0].shift[y]))
    if 2 * min(fold.count for fold in folds) < width:
        return None
    values = []
    for _ in folds:
        test, dev, *train = folds
        values.append(pwcca(joint(train, x, y), joint([dev], x, y), joint([test], x, y)))
        folds = [*folds[1:], test]
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if len(known) == len(values) else None


def directions(train: Joint, epsilons: Sequence[tuple[float, float]]) -> Iterator[tuple[Tensor, Tensor]]:
    """Canonical directions (a [D, K], b [E, K]) for each pair of ridges, the most correlated first.

    Constant dimensions have no part in them, nor has a null space: K is the smaller rank of the two.
    """
    (basis_DR, power_R), (basis_ES, power_S) = _principal(train.xx_DD), _principal(train.yy_EE)
    cross_RS = basis_DR.T @ train.xy_DE @ basis_ES
    for epsilon_x, epsilon_y in epsilons:
        white_R, white_S = (power_R + epsilon_x).rsqrt(), (power_S + epsilon_y).rsqrt()
        u_RK, _, v_KS = torch.linalg.svd(white_R[:, None] * cross_RS * white_S, full_matrices=False)
        yield basis_DR @ (white_R[:, None] * u_RK), basis_ES @ (white_S[:, None] * v_KS.T)


def _principal(cov_DD: Tensor) -> tuple[Tensor, Tensor]:
    """Axes [D, R] of the view scaled to unit variances, and the variances along them, [R]; R is the rank."""
    gain_D = _inverse_root(cov_DD.diagonal())
    power_D, axes_DD = torch.linalg.eigh(gain_D[:, None] * cov_DD * gain_D)
    kept_D = power_D > len(power_D) * torch.finfo(power_D.dtype).eps * power_D[-1]
    return gain_D[:, None] * axes_DD[:, kept_D], power_D[kept_D]


def _weighted_correlation(split: Joint, a_DK: Tensor, b_EK: Tensor) -> float | None:
    """Correlations along the directions in this split, averaged by their projection weights."""
    with_x_DK, with_y_EK = split.xx_DD @ a_DK, split.yy_EE @ b_EK
    gain_a_K, gain_b_K = (_inverse_root((s * w).sum(0)) for s, w in ((a_DK, with_x_DK), (b_EK, with_y_EK)))
    correlation_K = (a_DK * (split.xy_DE @ b_EK)).sum(0) * gain_a_K * gain_b_K
    narrow_y = len(b_EK) < len(a_DK)
    weight_K = (with_y_EK * gain_b_K if narrow_y else with_x_DK * gain_a_K).abs().sum(0)
    return _finite((weight_K * correlation_K).sum() / weight_K.sum())


def _inverse_root(variance_K: Tensor) -> Tensor:
    """1 / deviation; 0 for what does not vary, which so drops out of every product."""
    return torch.where(variance_K > 0, variance_K.clamp(min=1e-300).rsqrt(), 0.0)


def mutual_information(counts_KL: Tensor) -> float | None:
    """Mutual information, in nats, of rows and columns of a table of counts: clusters by labels. None: nothing counted."""
    share_KL = counts_KL.double() / counts_KL.sum()
    of_clusters, of_labels, of_both = (
        torch.special.entr(share).sum() for share in (share_KL.sum(1), share_KL.sum(0), share_KL)
    )
    return _finite(of_clusters + of_labels - of_both)


def normalised_information(counts_KL: Tensor) -> float | None:
    """Share of the labels' entropy that the clusters explain, beyond what they would by chance.

    counts_KL: segments by cluster and label. HuBERT's PNMI (arXiv:2106.07447) is information / entropy; here what clusters
    and labels of the same sizes share by chance (Vinh et al., JMLR 2010) is taken off both, since with few segments it is
    much. About 0 for noise, at most 1. None below ten segments for each cluster, and for fewer than two labels.
    """
    segments, share_L = counts_KL.sum(), counts_KL.sum(0)[counts_KL.sum(0) > 0].double() / counts_KL.sum()
    if len(share_L) < 2 or segments < 10 * len(counts_KL):
        return None
    entropy, chance = -(share_L * share_L.log()).sum().item(), chance_information(counts_KL)
    information = mutual_information(counts_KL)
    assert information is not None, "two labels or more were counted"
    return (information - chance) / (entropy - chance)


def _finite(value: Tensor) -> float | None:
    return value.item() if value.isfinite() else None
