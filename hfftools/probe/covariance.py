"""Take means and covariances of chosen pairs of views from a stream of rows [N, D] of each view.

N rows, D and E widths of two views. What is held does not grow with the rows seen.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

View = int | str  # a layer, or "mel", "norm", "label"
Pair = tuple[View, View]


class Joint(NamedTuple):
    """Covariances (float64, divided by the number of rows) of two views over the same rows."""

    xx_DD: Tensor
    xy_DE: Tensor
    yy_EE: Tensor
    rows: int


class Moments:
    """Counts, sums and products of the views' rows.

    A fold of the data is one Moments; folds that share `shift` are summed by the functions below. Products are taken of
    rows minus `shift`, which is near the mean: sum(x xT) - n mu muT as it stands would cancel to nothing in the outlier
    dimensions of a wav2vec 2.0 state, whose means are far larger than their deviations.

    shift: {view: [D]}, on the device of the rows.
    pairs: which products are kept; (x, x) for a view's own. Views of no pair are ignored.
    dtype: of the products, both as they are taken and as they are kept.
    """

    def __init__(self, shift: dict[View, Tensor], pairs: Iterable[Pair], dtype: torch.dtype = torch.float64):
        pairs = list(pairs)
        # rounded to float32, so that a constant dimension of float32 rows is exactly zero after the shift
        self.shift = {view: shift[view].float().to(dtype) for pair in pairs for view in pair}
        self.sums = {view: torch.zeros_like(shift_D, dtype=torch.float64) for view, shift_D in self.shift.items()}
        self.products = {(x, y): torch.outer(self.shift[x], self.shift[y]).zero_() for x, y in pairs}
        self.count = 0

    def add(self, rows: dict[View, Tensor]) -> None:
        """Take the same N rows of every view: {view: [N, D]}, N above 0."""
        centred = {view: rows[view].to(shift_D.dtype) - shift_D for view, shift_D in self.shift.items()}
        for (x, y), product_DE in self.products.items():
            # addmm_ may add row after row to the sum, which costs float32 two digits
            product_DE += centred[x].T @ centred[y]
        for view, rows_ND in centred.items():
            self.sums[view] += rows_ND.sum(0, dtype=torch.float64)
        self.count += len(next(iter(rows.values())))

    @property
    def num_bytes(self) -> int:
        held = [*self.shift.values(), *self.sums.values(), *self.products.values()]
        return sum(tensor.numel() * tensor.element_size() for tensor in held)


def count(folds: Sequence[Moments]) -> int:
    """Rows in all of the folds."""
    return sum(fold.count for fold in folds)


def mean(folds: Sequence[Moments], x: View) -> Tensor:
    """Mean of a view over all of the folds, [D] float64."""
    return folds[0].shift[x].double() + _sum(folds, x) / count(folds)


def covariance(folds: Sequence[Moments], x: View, y: View) -> Tensor:
    """Covariance of two views over all of the folds, [D, E] float64, divided by the number of rows.

    Raises KeyError where the products of this pair are kept in neither order.
    """
    if (x, y) not in folds[0].products:
        return covariance(folds, y, x).T if (y, x) in folds[0].products else folds[0].products[x, y]
    total = count(folds)
    products_DE = sum(fold.products[x, y].double() for fold in folds)
    return products_DE / total - torch.outer(_sum(folds, x) / total, _sum(folds, y) / total)


def joint(folds: Sequence[Moments], x: View, y: View) -> Joint:
    """All that canonical correlations and CKA need of two views."""
    xx_DD, xy_DE, yy_EE = (covariance(folds, a, b) for a, b in ((x, x), (x, y), (y, y)))
    return Joint(xx_DD, xy_DE, yy_EE, count(folds))


def _sum(folds: Sequence[Moments], x: View) -> Tensor:
    return sum((fold.sums[x] for fold in folds), torch.zeros(()).to(folds[0].sums[x]))
