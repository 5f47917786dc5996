"""Compare two systems' transcripts of the same utterances: the difference of their error rates, and whether it is chance.

Both tests are paired, utterance by utterance, since an utterance that is hard for one system is hard for the other. They
assume that utterances are independent, which utterances of one speaker are not; the figures over speakers, which draw and
swap whole speakers, do not assume it. None of the figures includes the variation by seed or training set.

- Paired bootstrap (Bisani and Ney, "Bootstrap estimates for confidence intervals in ASR performance evaluation", ICASSP
  2004): utterances are drawn with replacement, the same ones for both systems, and their rates subtracted.
- Matched pairs (Gillick and Cox, "Some statistical issues in the comparison of speech recognition algorithms", ICASSP
  1989), with whole utterances as segments and, in place of their normal approximation, the exact permutation test:
  if the systems were equally good, the two error counts of each utterance could as well be exchanged.

Shapes: U utterances or speakers, R resamples.
"""

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import ArrayLike

from hfftools.log import UserError
from hfftools.score.counts import by_speaker, draw, errors
from hfftools.score.figure import title
from hfftools.score.folder import Decoded

RESAMPLES = 10_000
DIFFER_MOST = 10  # utterances that the report shows


@dataclass(frozen=True)
class Chance:
    """Hold the interval and the significance of a difference, over `units` utterances or speakers."""

    units: int
    low: float  # 95 % interval of the difference of the rates
    high: float
    improvement: float  # share of resamples in which the second makes fewer errors; a tie counts half
    p: float  # two-sided


@dataclass(frozen=True)
class Comparison:
    """Hold the comparison of two systems on one set; a difference below 0 means that the second is better."""

    metric: str  # whose errors are counted: WER, CER, accuracy
    first: str
    second: str
    words: int
    errors_first: int
    errors_second: int
    better: int  # utterances in which the second makes fewer errors
    worse: int
    over_utterances: Chance
    over_speakers: Chance | None  # None with one speaker, or where each has one utterance
    differ_most: list[dict]  # utt, words, errors_first, errors_second, ref, first, second

    @property
    def difference(self) -> float:
        """Return the error rate of the second minus that of the first, as a fraction."""
        return (self.errors_second - self.errors_first) / max(self.words, 1)

    def as_json(self) -> dict:
        """Return the comparison in the form of its JSON file."""
        return {**asdict(self), "difference": self.difference}

    def lines(self) -> Iterator[str]:
        """Yield the lines of the text report; rates in percent."""
        for mark, where, wrong in (("A", self.first, self.errors_first), ("B", self.second, self.errors_second)):
            yield f"{mark} %{self.metric} {100 * wrong / max(self.words, 1):.2f} [ {wrong} / {self.words} ] {where}"
        same = self.over_utterances.units - self.better - self.worse
        more = self.errors_second - self.errors_first
        relative = f" ({100 * more / self.errors_first:+.1f} % relative)" if self.errors_first else ""
        yield f"B - A: {100 * self.difference:+.2f} points of {self.metric}{relative}"
        yield f"  utterances: B is better in {self.better}, worse in {self.worse}, as good in {same}"
        for sort, chance in (("utterances", self.over_utterances), ("speakers", self.over_speakers)):
            if chance is not None:
                least = 2.0 ** (1 - chance.units)
                few = f" (with {chance.units}, never below {_p(least)})" if least > 0.001 else ""
                yield (
                    f"  over {chance.units} {sort}: 95 % interval {100 * chance.low:+.2f} to {100 * chance.high:+.2f}, "
                    f"probability of improvement {chance.improvement:.3f}, p = {_p(chance.p)}{few}"
                )
        if self.differ_most:
            yield "Utterances that differ most (errors of A, of B, of so many)"
        for utt in self.differ_most:
            yield f"  {utt['utt']}: {utt['errors_first']}, {utt['errors_second']} of {utt['words']}"
            yield f"    ref: {utt['ref']}"
            yield f"    A  : {utt['first']}"
            yield f"    B  : {utt['second']}"


def _p(p: float) -> str:
    return f"{p:.3f}" if p >= 0.001 else f"{p:.1e}"


def compare(first: Decoded, second: Decoded, metric: str, count_errors: Callable = errors) -> Comparison:
    """Return the comparison by a metric; `count_errors` gives the errors of each utterance and how many there could be.

    Raises UserError that names the first difference where the two sets of references are not the same.
    """
    _same_references(first, second)
    one_U, words_U = count_errors(metric, first.refs, first.hyps)
    two_U, _ = count_errors(metric, first.refs, second.hyps)
    speakers, over_speakers = first.speakers, None
    if 1 < len(set(speakers)) < len(speakers):
        one_S, two_S, words_S = (by_speaker(counts_U, speakers) for counts_U in (one_U, two_U, words_U))
        over_speakers = chance(one_S, two_S, words_S)
    order = np.argsort(-abs(two_U - one_U), kind="stable")[:DIFFER_MOST]
    most = [
        {
            "utt": first.utts[u],
            "words": int(words_U[u]),
            "errors_first": int(one_U[u]),
            "errors_second": int(two_U[u]),
            "ref": first.refs[u],
            "first": first.hyps[u],
            "second": second.hyps[u],
        }
        for u in order
        if one_U[u] != two_U[u]
    ]
    return Comparison(
        metric=title(metric),
        first=str(first.folder),
        second=str(second.folder),
        words=int(words_U.sum()),
        errors_first=int(one_U.sum()),
        errors_second=int(two_U.sum()),
        better=int((two_U < one_U).sum()),
        worse=int((two_U > one_U).sum()),
        over_utterances=chance(one_U, two_U, words_U),
        over_speakers=over_speakers,
        differ_most=most,
    )


def _same_references(first: Decoded, second: Decoded) -> None:
    for mine, other in ((first, second), (second, first)):
        lost = set(other.utts) - set(mine.utts)
        if lost:
            raise UserError(
                f"{mine.folder}/ref: {len(lost)} utterances of {other.folder}/ref are not there, first {min(lost)}; "
                "decode the same data with both"
            )
    pairs = zip(first.utts, first.refs, second.refs, strict=True)
    others = [utt for utt, one, two in pairs if one.split() != two.split()]
    if others:
        raise UserError(
            f"{second.folder}/ref: {len(others)} references differ from those of {first.folder}/ref, first {others[0]}; "
            "decode the same data with both"
        )


def chance(one_U: ArrayLike, two_U: ArrayLike, words_U: ArrayLike, resamples: int = RESAMPLES, seed: int = 0) -> Chance:
    """Return interval, probability of improvement and p of two systems' error counts [U] in the same utterances or speakers.

    `words_U` are the reference tokens of each.
    """
    step_U = np.asarray(two_U) - np.asarray(one_U)
    step_R, words_R = draw(step_U, np.asarray(words_U), resamples=resamples, seed=seed)
    low, high = np.percentile(step_R / np.maximum(words_R, 1), (2.5, 97.5))
    improvement = (step_R < 0).mean() + (step_R == 0).mean() / 2
    return Chance(len(step_U), float(low), float(high), float(improvement), swap_test(step_U))


def swap_test(step_U: ArrayLike) -> float:
    """Return the two-sided p of sum(step_U), whole differences of error counts, if each sign were as likely as the other.

    It is exact: the share of all 2^U choices of signs whose sum is at least as far from 0, computed by adding one utterance
    after the other. No p can be below 2^(1-U), so with a few speakers it cannot be small.
    """
    sizes = [int(step) for step in np.abs(step_U) if step]
    # share[s]: of all choices of signs, those whose positive steps add up to s; their total is then 2 s - sum(sizes)
    share = np.zeros(sum(sizes) + 1)
    share[0], reached = 1.0, 0
    for size in sizes:
        share[: reached + size + 1] /= 2
        share[size : reached + size + 1] += share[: reached + 1].copy()
        reached += size
    totals = 2 * np.arange(len(share)) - sum(sizes)
    return float(min(1.0, share[abs(totals) >= abs(int(np.sum(step_U)))].sum()))
