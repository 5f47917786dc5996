"""Align hypotheses with references, count errors, and compute error rates with their intervals; uses jiwer.

WER counts words. CER counts characters with the spaces between words, as `<space>`, and TER counts units, as ESPnet does.
An alignment is the one of least cost when substitution, deletion and insertion cost 1 each, as in Kaldi. sclite gives a
substitution a higher cost, and may therefore divide the errors of an utterance among the three in another way.

Shapes: U utterances, or other units that are drawn as a whole, such as speakers; R bootstrap samples of them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import jiwer
import numpy as np

from hfftools.text.units import Units

HEAD = "| dataset | Snt | Wrd | Corr | Sub | Del | Ins | Err | S.Err |\n|---|---|---|---|---|---|---|---|---|\n"
RESAMPLES = 1000

# pairs of reference and hypothesis token, None on the side that has none
Alignment = list[tuple[str | None, str | None]]


@dataclass(frozen=True)
class Counts:
    """Hold the counts of sentences, reference tokens and errors of a set or of a speaker."""

    metric: str  # WER, CER or TER
    sentences: int
    words: int
    correct: int
    substitutions: int
    deletions: int
    insertions: int
    wrong_sentences: int

    @property
    def errors(self) -> int:
        """Return the number of wrong tokens."""
        return self.substitutions + self.deletions + self.insertions

    @property
    def rate(self) -> float:
        """Return errors per reference token; the number of errors where there is no reference token at all."""
        return self.errors / max(self.words, 1)

    def line(self, where: Path | str) -> str:
        """Return the score as Kaldi prints it."""
        return (
            f"%{self.metric} {100 * self.rate:.2f} [ {self.errors} / {self.words}, {self.insertions} ins, "
            f"{self.deletions} del, {self.substitutions} sub ] {where}"
        )


@dataclass(frozen=True)
class Score(Counts):
    """Hold the counts of a set, with bootstrap 95 % intervals of the rate, as fractions."""

    low: float  # over utterances
    high: float
    speakers: int = 0
    speaker_low: float | None = None  # over speakers; None with one speaker, or where each has one utterance
    speaker_high: float | None = None


def row(dataset: str, score: Counts) -> str:
    """Return a line of RESULTS.md, under HEAD: counts of sentences and words, the rest in percent."""
    counts = (score.correct, score.substitutions, score.deletions, score.insertions, score.errors)
    percent = [f"{100 * count / max(score.words, 1):.1f}" for count in counts]
    wrong = f"{100 * score.wrong_sentences / score.sentences:.1f}"
    return f"| {' | '.join([dataset, str(score.sentences), str(score.words), *percent, wrong])} |\n"


def errors(metric: str, refs: Sequence[str], hyps: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Return (errors, reference tokens) of each utterance, [U] each; `metric` is wer or cer."""
    ref_tokens = [tokens(metric, text, None) for text in refs]
    return per_utterance(align(ref_tokens, [tokens(metric, text, None) for text in hyps]))


def mean_error(errors_U: np.ndarray, tokens_U: np.ndarray) -> float:
    """Return errors of all utterances / tokens of all references, as of `errors`; where there is no token, errors."""
    return float(errors_U.sum() / max(tokens_U.sum(), 1))


def tokens(metric: str, text: str, units: Units | None) -> list[str]:
    """Return the tokens of a text that `metric` (wer, cer or ter) counts; only ter needs `units`."""
    words = text.split()
    if metric == "wer":
        return words
    if metric == "cer":
        return ["<space>" if c == " " else c for c in " ".join(words)]
    assert units is not None, "TER counts units"
    return [units.symbols[id] for id in units.encode(" ".join(words))]


def align(refs: list[list[str]], hyps: list[list[str]]) -> list[Alignment]:
    """Return the alignment of least cost of each reference with its hypothesis.

    Raises ValueError where there are not as many hypotheses as references.
    """
    keep: Any = lambda lists: lists  # noqa: E731 - the tokens are lists already, which jiwer's types do not foresee
    done = jiwer.process_words(cast(Any, refs), cast(Any, hyps), reference_transform=keep, hypothesis_transform=keep)
    alignments = []
    for ref, hyp, chunks in zip(refs, hyps, done.alignments, strict=True):
        pairs: Alignment = []
        for chunk in chunks:
            r = ref[chunk.ref_start_idx : chunk.ref_end_idx]
            h = hyp[chunk.hyp_start_idx : chunk.hyp_end_idx]
            # a chunk of substitutions has as many tokens on either side, one of deletions or insertions has them on one
            pairs += zip(r or _nothing(len(h)), h or _nothing(len(r)), strict=True)
        alignments.append(pairs)
    return alignments


def _nothing(count: int) -> list[str | None]:
    return [None] * count


def wrong(alignment: Alignment) -> int:
    """Return the number of errors of an alignment."""
    return sum(r != h for r, h in alignment)


def per_utterance(alignments: list[Alignment]) -> tuple[np.ndarray, np.ndarray]:
    """Return (errors, reference tokens) of each alignment, [U] each."""
    errors_U = np.array([wrong(a) for a in alignments], dtype=np.int64)
    return errors_U, np.array([sum(r is not None for r, _ in a) for a in alignments], dtype=np.int64)


def count(metric: str, alignments: list[Alignment]) -> Counts:
    """Return the counts of alignments of one metric (wer, cer or ter)."""
    pairs = [pair for alignment in alignments for pair in alignment]
    words = sum(r is not None for r, _ in pairs)
    correct = sum(r == h for r, h in pairs)
    deletions, insertions = sum(h is None for _, h in pairs), sum(r is None for r, _ in pairs)
    return Counts(
        metric=metric.upper(),
        sentences=len(alignments),
        words=words,
        correct=correct,
        substitutions=words - correct - deletions,
        deletions=deletions,
        insertions=insertions,
        wrong_sentences=sum(wrong(a) > 0 for a in alignments),
    )


def score(metric: str, alignments: list[Alignment], speakers: list[str]) -> Score:
    """Return the counts of alignments and the intervals of their rate; `speakers` has the speaker of each alignment."""
    errors_U, words_U = per_utterance(alignments)
    low, high = interval(errors_U, words_U)
    kinds, speaker_low, speaker_high = len(set(speakers)), None, None
    if 1 < kinds < len(speakers):
        speaker_low, speaker_high = interval(by_speaker(errors_U, speakers), by_speaker(words_U, speakers))
    return Score(**vars(count(metric, alignments)), low=low, high=high, speakers=kinds,
                 speaker_low=speaker_low, speaker_high=speaker_high)  # fmt: skip


def by_speaker(counts_U: np.ndarray, speakers: Sequence[str]) -> np.ndarray:
    """Return the sums of `counts_U` over the utterances of each speaker, [speakers], in the order of their names."""
    names, place_U = np.unique(np.asarray(speakers), return_inverse=True)
    return np.bincount(place_U, weights=counts_U, minlength=len(names)).astype(np.int64)


def draw(*counts_U: np.ndarray, resamples: int = RESAMPLES, seed: int = 0) -> np.ndarray:
    """Return the sums of each of `counts_U` over bootstrap samples, [counts, R].

    A sample is U utterances drawn with replacement, the same ones for each of `counts_U`.
    """
    rng = np.random.default_rng(seed)
    size = len(counts_U[0])
    sums = np.empty((len(counts_U), resamples))
    for sample in range(resamples):
        drawn = rng.integers(0, size, size)
        sums[:, sample] = [np.take(counts, drawn).sum() for counts in counts_U]
    return sums


def interval(
    errors_U: np.ndarray, words_U: np.ndarray, resamples: int = RESAMPLES, seed: int = 0
) -> tuple[float, float]:
    """Return the bootstrap 95 % interval of sum(errors) / sum(words) over U utterances (Bisani and Ney, ICASSP 2004).

    Utterances are drawn as if they were independent. Where errors cluster by speaker, the true interval is wider, and the
    sums of each speaker (`by_speaker`) should be drawn instead. With a handful of speakers both intervals are rough.
    """
    errors_R, words_R = draw(errors_U, words_U, resamples=resamples, seed=seed)
    low, high = np.percentile(errors_R / np.maximum(words_R, 1), (2.5, 97.5))
    return float(low), float(high)
