"""Error rates: references and hypotheses in, scores, their intervals, and comparisons of two systems out."""

from hfftools.score.compare import Comparison, compare
from hfftools.score.counts import HEAD, Score, cer, errors, interval, row, wer
from hfftools.score.folder import Decoded, read_decoded, score_dir
from hfftools.score.headline import headline

__all__ = [
    "HEAD",
    "Comparison",
    "Decoded",
    "Score",
    "cer",
    "compare",
    "errors",
    "headline",
    "interval",
    "read_decoded",
    "row",
    "score_dir",
    "wer",
]
