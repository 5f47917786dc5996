"""Accumulate means and covariances of chosen pairs of views from a stream of rows [N, D] of each view.

Axes: N rows, D and E dimensions of two views. The memory in use does not grow with the number of rows.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

View = int | str  # a layer, or "mel", "norm", "label"
Pair = tuple[View, View]


class Joint(NamedTuple):
    """Hold the covariances (float64, divided by the number of rows) of two views over the same rows."""

    xx_DD: Tensor
    xy_DE: Tensor
    yy_EE: Tensor
    rows: int


class Moments:
    """Accumulate the number, the sums and the products of the rows of several views.

    There is one Moments for each fold of the data; the functions below add up folds with the same `shift`. Rows are
    multiplied after `shift`, which is near the mean, is subtracted. Without it, sum(x xT) - n mu muT would be the small
    difference of two large numbers in the outlier dimensions of a wav2vec 2.0 state, whose means are far larger than
    their deviations, and rounding errors would be larger than the result.

    shift: {view: [D]}, on the device of the rows.
    pairs: the pairs of views whose products are kept; (x, x) for the covariance of x with itself. Views in no pair are
        ignored.
    dtype: that in which products are computed and kept.
    """

    def __init__(self, shift: dict[View, Tensor], pairs: Iterable[Pair], dtype: torch.dtype = torch.float64):
        pairs = list(pairs)
        # rounded to float32, so that a constant dimension of float32 rows is exactly zero after the shift
        self.shift = {view: shift[view].float().to(dtype) for pair in pairs for view in pair}
        self.sums = {view: torch.zeros_like(shift_D, dtype=torch.float64) for view, shift_D in self.shift.items()}
        self.products = {(x, y): torch.outer(self.shift[x], self.shift[y]).zero_() for x, y in pairs}
        self.count = 0

    def add(self, rows: dict[View, Tensor]) -> None:
        """Add the same N rows of every view: {view: [N, D]}, N above 0."""
        centred = {view: rows[view].to(shift_D.dtype) - shift_D for view, shift_D in self.shift.items()}
        for (x, y), product_DE in self.products.items():
            # not addmm_, which may add row after row to the large sum: in float32 that loses two digits
            product_DE += centred[x].T @ centred[y]
        for view, rows_ND in centred.items():
            self.sums[view] += rows_ND.sum(0, dtype=torch.float64)
        self.count += len(next(iter(rows.values())))

    @property
    def num_bytes(self) -> int:
        """Return the memory of all tensors, in bytes; it is the same before and after `add`."""
        held = [*self.shift.values(), *self.sums.values(), *self.products.values()]
        return sum(tensor.numel() * tensor.element_size() for tensor in held)


def count(folds: Sequence[Moments]) -> int:
    """Return the number of rows in all folds."""
    return sum(fold.count for fold in folds)


def mean(folds: Sequence[Moments], x: View) -> Tensor:
    """Return the mean of a view over all folds, [D] float64."""
    return folds[0].shift[x].double() + _sum(folds, x) / count(folds)


def covariance(folds: Sequence[Moments], x: View, y: View) -> Tensor:
    """Return the covariance of two views over all folds, [D, E] float64, divided by the number of rows.

    Raise KeyError if the products of this pair are kept in neither order.
    """
    if (x, y) not in folds[0].products and (y, x) in folds[0].products:
        return covariance(folds, y, x).T
    total = count(folds)
    products_DE = sum(fold.products[x, y].double() for fold in folds)
    return products_DE / total - torch.outer(_sum(folds, x) / total, _sum(folds, y) / total)


def joint(folds: Sequence[Moments], x: View, y: View) -> Joint:
    """Return the covariances within and between two views over all folds, which CKA and PWCCA need."""
    xx_DD, xy_DE, yy_EE = (covariance(folds, a, b) for a, b in ((x, x), (x, y), (y, y)))
    return Joint(xx_DD, xy_DE, yy_EE, count(folds))


def _sum(folds: Sequence[Moments], x: View) -> Tensor:
    """Return the sum of a view's shifted rows over all folds, [D] float64."""
    return sum((fold.sums[x] for fold in folds), torch.zeros(()).to(folds[0].sums[x]))
