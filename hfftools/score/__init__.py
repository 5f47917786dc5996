"""Error rates: references and hypotheses in, scores, their intervals, and comparisons of two systems out."""

from hfftools.score.compare import Comparison, compare
from hfftools.score.counts import HEAD, Score, errors, interval, mean_error, row
from hfftools.score.figure import Figure, dev_value, heading, is_lower_better, restore, title, value
from hfftools.score.folder import Decoded, read_decoded, score_dir
from hfftools.score.headline import headline

__all__ = [
    "HEAD",
    "Comparison",
    "Decoded",
    "Figure",
    "Score",
    "compare",
    "dev_value",
    "errors",
    "heading",
    "headline",
    "interval",
    "is_lower_better",
    "mean_error",
    "read_decoded",
    "restore",
    "row",
    "score_dir",
    "title",
    "value",
]
