"""Measure how similar two views are: CKA and PWCCA from their covariances, information from clusters and labels.

Axes: D and E dimensions of two views x and y of the same rows, R and S ranks of their covariances, K canonical
directions; in tables of counts, K clusters and L labels. Everything is computed from moments, so the rows are never
held in memory. A figure is None if there are too few rows to trust it.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from hfftools.nn.kmeans import chance_information
from hfftools.probe.covariance import Joint, Moments, View, joint

# Ridges (epsilon_x, epsilon_y), in units of the variance of a dimension. Large ones for y do no harm: labels are nearly
# uncorrelated already, and log-mel has few dimensions.
EPSILONS = ((1e-4, 1e-4), (1e-4, 1.0), (1e-2, 1.0), (1.0, 1.0))


def linear_cka(views: Joint) -> float | None:
    """Return linear centred kernel alignment (CKA) of x and y (Kornblith et al., arXiv:1905.00414).

    With Frobenius norms, it is |Sxy|^2 / (|Sxx| |Syy|); in [0, 1], and 1 if y is x rotated and scaled. Dimensions of
    large variance dominate it. For independent views of E dimensions with equal variances it is too high by about
    E / rows; so return None for fewer rows than twice the dimensions of the wider view. Return None, too, if a view does
    not vary or is not finite.
    """
    if views.rows < 2 * max(views.xy_DE.shape):
        return None
    return _finite(views.xy_DE.square().sum() / (views.xx_DD.norm() * views.yy_EE.norm()))


def pwcca(train: Joint, dev: Joint, test: Joint, epsilons: Sequence[tuple[float, float]] = EPSILONS) -> float | None:
    """Return the projection-weighted canonical correlation (PWCCA) of x with y (Morcos et al., arXiv:1806.05759).

    Canonical correlation analysis gives K pairs of directions, one direction in x and one in y, such that x and y
    projected on a pair correlate as much as possible. PWCCA is a weighted mean of these K correlations. It is computed
    on three splits, as by Pasad et al. (arXiv:2107.04734):

    1. On `train`, the directions are computed, for each ridge (epsilon_x, epsilon_y) of `epsilons`.
    2. On `dev`, the ridge with the highest PWCCA is chosen.
    3. On `test`, the correlations and weights along the chosen directions give the result. Since directions that fitted
       noise in `train` do not correlate here, the result for independent views is about 0 and may be slightly below.

    The weight of a pair is the sum, over the dimensions of one view, of their absolute covariance with that view's own
    projection, scaled to unit variance: how much of the view the direction accounts for. This view is the one with
    fewer dimensions (x if both have as many), as in Pasad et al., since K directions span it but not all of the other.

    Unlike Pasad et al., dimensions are scaled to unit variance before the ridge is added; otherwise a single dimension
    of very large variance would determine the size of the ridge for all.

    Return None if a view does not vary, or is not finite, in one of the splits.
    """
    if not all(part.isfinite().all() for split in (train, dev, test) for part in split[:3]):
        return None
    on_dev, best = -2.0, None  # below any correlation
    for pair in directions(train, epsilons):
        value = _weighted_correlation(dev, *pair)
        if value is not None and value > on_dev:
            on_dev, best = value, pair
    return None if best is None else _weighted_correlation(test, *best)


def pwcca_of_folds(folds: Sequence[Moments], x: View, y: View) -> float | None:
    """Return the mean of `pwcca` over rotations of the folds: each is `test` once, the next `dev`, the others `train`.

    Return None if it is None in a rotation, or if twice the rows of the smallest fold (with four folds, two are
    `train`) are fewer than the dimensions of the wider view: with so few rows, the figure would be too low.
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
    """Yield the canonical directions (a [D, K], b [E, K]) for each pair of ridges, the most correlated first.

    They are Sxx^-1/2 u and Syy^-1/2 v, with u and v the singular vectors of Sxx^-1/2 Sxy Syy^-1/2 and the ridges added
    to Sxx and Syy. This is computed in the space that the rows of each view span: K is the smaller of the two ranks;
    constant dimensions have coefficients of 0.
    """
    (basis_DR, power_R), (basis_ES, power_S) = _principal(train.xx_DD), _principal(train.yy_EE)
    cross_RS = basis_DR.T @ train.xy_DE @ basis_ES
    for epsilon_x, epsilon_y in epsilons:
        white_R, white_S = (power_R + epsilon_x).rsqrt(), (power_S + epsilon_y).rsqrt()
        u_RK, _, v_KS = torch.linalg.svd(white_R[:, None] * cross_RS * white_S, full_matrices=False)
        yield basis_DR @ (white_R[:, None] * u_RK), basis_ES @ (white_S[:, None] * v_KS.T)


def _principal(cov_DD: Tensor) -> tuple[Tensor, Tensor]:
    """Return the principal axes [D, R] of a view scaled to unit variances, and the variances [R] along them."""
    gain_D = _inverse_root(cov_DD.diagonal())
    power_D, axes_DD = torch.linalg.eigh(gain_D[:, None] * cov_DD * gain_D)
    # smaller values are rounding errors of 0
    kept_D = power_D > len(power_D) * torch.finfo(power_D.dtype).eps * power_D[-1]
    return gain_D[:, None] * axes_DD[:, kept_D], power_D[kept_D]


def _weighted_correlation(split: Joint, a_DK: Tensor, b_EK: Tensor) -> float | None:
    """Return the mean of the correlations along K pairs of directions in this split, weighted as `pwcca` says."""
    with_x_DK, with_y_EK = split.xx_DD @ a_DK, split.yy_EE @ b_EK
    gain_a_K, gain_b_K = (_inverse_root((s * w).sum(0)) for s, w in ((a_DK, with_x_DK), (b_EK, with_y_EK)))
    correlation_K = (a_DK * (split.xy_DE @ b_EK)).sum(0) * gain_a_K * gain_b_K
    narrow_y = len(b_EK) < len(a_DK)
    weight_K = (with_y_EK * gain_b_K if narrow_y else with_x_DK * gain_a_K).abs().sum(0)
    return _finite((weight_K * correlation_K).sum() / weight_K.sum())


def _inverse_root(variance_K: Tensor) -> Tensor:
    """Return 1 / standard deviation [K]; 0 where the variance is 0, so that every product with it is 0, too."""
    return torch.where(variance_K > 0, variance_K.clamp(min=1e-300).rsqrt(), 0.0)


def mutual_information(counts_KL: Tensor) -> float | None:
    """Return the mutual information of clusters and labels, in nats, from their counts; None if nothing was counted."""
    share_KL = counts_KL.double() / counts_KL.sum()
    of_clusters, of_labels, of_both = (
        torch.special.entr(share).sum() for share in (share_KL.sum(1), share_KL.sum(0), share_KL)
    )
    return _finite(of_clusters + of_labels - of_both)


def normalised_information(counts_KL: Tensor) -> float | None:
    """Return the share of the labels' entropy that the clusters explain, corrected for chance.

    HuBERT's PNMI (arXiv:2106.07447) is information / entropy. Here, the information that clusters and labels of the
    same sizes share by chance (Vinh et al., JMLR 2010), which is large for few segments, is subtracted from both. The
    result is about 0 for independent clusters and at most 1. Return None for fewer than ten segments per cluster on
    average, and for fewer than two labels.

    counts_KL: the number of segments of each cluster and label.
    """
    segments, share_L = counts_KL.sum(), counts_KL.sum(0)[counts_KL.sum(0) > 0].double() / counts_KL.sum()
    if len(share_L) < 2 or segments < 10 * len(counts_KL):
        return None
    entropy, chance = -(share_L * share_L.log()).sum().item(), chance_information(counts_KL)
    information = mutual_information(counts_KL)
    assert information is not None, "two labels or more were counted"
    return (information - chance) / (entropy - chance)


def _finite(value: Tensor) -> float | None:
    """Return the value of a scalar, or None if it is not finite."""
    return value.item() if value.isfinite() else None
