"""Name, direction and value of any task's metric, and a score (`Figure`) for those that are no error rate of text."""

from dataclasses import MISSING, dataclass, fields
from pathlib import Path

import numpy as np

from hfftools.records import check
from hfftools.score.counts import Score, interval, mean_error


def title(metric: str) -> str:
    """Return a metric's name as it is printed: abbreviations such as wer in capitals, words such as accuracy as they are."""
    return metric.upper() if len(metric) <= 4 else metric


def heading(metric: str, lower_is_better: bool) -> str:
    """Return `title` with the direction, where that is not the one of error rates."""
    return title(metric) if lower_is_better else f"{title(metric)} (higher is better)"


def value(error: float, lower_is_better: bool) -> float:
    """Return the metric of an error, errors / counted: the error itself, or 1 - error where a higher metric is better."""
    return error if lower_is_better else 1 - error


def dev_value(record: dict) -> float:
    """Return the dev metric, as a fraction, of a record of training, which has the error."""
    return value(record["dev_error"], is_lower_better(record))


def is_lower_better(record: dict) -> bool:
    """Return the direction of the metric in a record of training; older records, all of error rates, do not state it."""
    return record.get("lower_is_better", True)


@dataclass(frozen=True)
class Figure:
    """Hold the metric of a set as a fraction, with its bootstrap 95 % interval over utterances."""

    metric: str
    value: float
    sentences: int
    lower_is_better: bool
    low: float
    high: float

    @classmethod
    def of(cls, metric: str, errors_U: np.ndarray, counted_U: np.ndarray, lower_is_better: bool) -> "Figure":
        """Return the figure of a set from the errors of its utterances and how many each could have, [U] each."""
        errors = (mean_error(errors_U, counted_U), *interval(errors_U, counted_U))
        middle, *ends = (value(error, lower_is_better) for error in errors)
        return cls(metric, middle, len(errors_U), lower_is_better, min(ends), max(ends))

    def line(self, where: Path | str) -> str:
        """Return the figure as it is printed, in percent."""
        better = "lower" if self.lower_is_better else "higher"
        return (
            f"%{title(self.metric)} {100 * self.value:.2f} [ {self.sentences} utterances, {better} is better ] {where}"
        )


def restore(stored: dict) -> Score | Figure:
    """Return the score that decode.json keeps as `stored`; raise ValueError or TypeError where it is none."""
    kind: type[Score] | type[Figure] = Figure if "value" in stored else Score
    needed = [field for field in fields(kind) if field.default is MISSING]
    return kind(**check(stored, {field.name: field.type for field in needed}))
