"""Error rates: references and hypotheses in, scores, their intervals, and comparisons of two systems out."""

from hfftools.score.compare import Comparison, compare
from hfftools.score.counts import HEAD, Score, errors, interval, rate, row
from hfftools.score.folder import Decoded, read_decoded, score_dir
from hfftools.score.headline import headline

__all__ = [
    "HEAD",
    "Comparison",
    "Decoded",
    "Score",
    "compare",
    "errors",
    "headline",
    "interval",
    "rate",
    "read_decoded",
    "row",
    "score_dir",
]
