"""Two systems' transcripts of the same utterances in, the difference of their error rates and whether it is chance out.

Both ways of asking are of pairs, utterance by utterance, since an utterance that is hard for one system is hard for the
other. They take for granted that utterances are independent of one another, which those of one speaker are not: the
figures over speakers, who are then what is drawn and swapped, do without that. What another seed or another training
set would give is in none of them.

- Paired bootstrap (Bisani and Ney, "Bootstrap estimates for confidence intervals in ASR performance evaluation", ICASSP
  2004): utterances are drawn with replacement, the same ones for both systems, and their rates subtracted.
- Matched pairs (Gillick and Cox, "Some statistical issues in the comparison of speech recognition algorithms", ICASSP
  1989), with whole utterances as segments and, in place of their normal approximation, the exact permutation test:
  were the systems alike, each utterance's two counts of errors could as well have come the other way round.

Shapes: U utterances or speakers, R resamples.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from hfftools.log import UserError
from hfftools.score.counts import by_speaker, draw, errors
from hfftools.score.folder import Decoded
from hfftools.score.headline import headline

RESAMPLES = 10_000
DIFFER_MOST = 10  # utterances that are shown


@dataclass(frozen=True)
class Chance:
    """Of a difference, drawn over `units` of one sort."""

    units: int
    low: float  # 95 % interval of the difference of the rates
    high: float
    improvement: float  # share of resamples in which the second makes fewer errors, of ties half
    p: float  # two-sided


@dataclass(frozen=True)
class Comparison:
    """A second system beside a first one, on one set; rates are fractions, and below 0 the second one is better."""

    metric: str  # WER or CER
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
        return (self.errors_second - self.errors_first) / max(self.words, 1)

    def as_json(self) -> dict:
        return {**asdict(self), "difference": self.difference}

    def lines(self) -> Iterator[str]:
        """What a person reads; rates in percent."""
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
            yield from (
                f"    {name}: {utt[key]}" for name, key in (("ref", "ref"), ("A  ", "first"), ("B  ", "second"))
            )


def _p(p: float) -> str:
    return f"{p:.3f}" if p >= 0.001 else f"{p:.1e}"


def compare(first: Decoded, second: Decoded) -> Comparison:
    """Compare by the references' `headline`; UserError that names what does not match, where the references differ."""
    _same_references(first, second)
    metric = headline(first.refs)
    (one_U, words_U), (two_U, _) = (errors(metric, first.refs, found.hyps) for found in (first, second))
    speakers, over_speakers = first.speakers, None
    if 1 < len(set(speakers)) < len(speakers):
        over_speakers = chance(*(by_speaker(counts_U, speakers) for counts_U in (one_U, two_U, words_U)))
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
        metric=metric.upper(),
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
        if lost := set(other.utts) - set(mine.utts):
            raise UserError(
                f"{mine.folder}/ref: {len(lost)} utterances of {other.folder}/ref are not there, first {min(lost)}; "
                "decode the same data with both"
            )
    pairs = zip(first.utts, first.refs, second.refs, strict=True)
    if others := [utt for utt, one, two in pairs if one.split() != two.split()]:
        raise UserError(
            f"{second.folder}/ref: {len(others)} references differ from those of {first.folder}/ref, first {others[0]}; "
            "decode the same data with both"
        )


def chance(
    one_U: Sequence[int], two_U: Sequence[int], words_U: Sequence[int], resamples: int = RESAMPLES, seed: int = 0
) -> Chance:
    """Interval, probability of improvement and p of two systems' errors in the same U utterances (or speakers) [U]."""
    step_U = np.asarray(two_U) - np.asarray(one_U)
    step_R, words_R = draw(step_U, np.asarray(words_U), resamples=resamples, seed=seed)
    low, high = np.percentile(step_R / np.maximum(words_R, 1), (2.5, 97.5))
    improvement = (step_R < 0).mean() + (step_R == 0).mean() / 2
    return Chance(len(step_U), float(low), float(high), float(improvement), swap_test(step_U))


def swap_test(step_U: Sequence[int]) -> float:
    """Two-sided p of sum(step_U), differences of whole numbers of errors, were each as likely of either sign.

    Exact: the share of all 2^U choices of signs whose sum is at least as far from 0, by adding up one utterance after
    the other. No p can be below 2^(1-U), so that of a few speakers none is small.
    """
    sizes = [int(step) for step in np.abs(step_U) if step]
    share = np.zeros(
        sum(sizes) + 1
    )  # of choices by the sum of those steps that go up; the total is 2 * that - sum(sizes)
    share[0], reached = 1.0, 0
    for size in sizes:
        share[: reached + size + 1] /= 2
        share[size : reached + size + 1] += share[: reached + 1].copy()
        reached += size
    totals = 2 * np.arange(len(share)) - sum(sizes)
    return float(min(1.0, share[abs(totals) >= abs(int(np.sum(step_U)))].sum()))
