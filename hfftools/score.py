"""References and hypotheses in, error rates and what went wrong out; the one door to jiwer.

WER counts words. CER counts characters with the spaces between words, as `<space>`, and TER counts units, as ESPnet
does. An alignment is the cheapest one where substitution, deletion and insertion cost alike, as in Kaldi; sclite, to
which a substitution costs more, may split the same utterance's errors in another way.
"""

import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import jiwer
import numpy as np

from hfftools.data.table import read_table
from hfftools.data.units import Units
from hfftools.expdir import write_text
from hfftools.log import UserError

HEAD = "| dataset | Snt | Wrd | Corr | Sub | Del | Ins | Err | S.Err |\n|---|---|---|---|---|---|---|---|---|\n"
RESAMPLES = 1000
COMMONEST, WORST = 20, 200  # confusions of each sort, and utterances, that result.txt shows
LINE_WIDTH = 110

# pairs of reference and hypothesis token, None on the side that has none
Alignment = list[tuple[str | None, str | None]]


@dataclass(frozen=True)
class Score:
    """Counts over a set: of its sentences, of the tokens of its references, and of errors."""

    metric: str  # WER, CER or TER
    sentences: int
    words: int
    correct: int
    substitutions: int
    deletions: int
    insertions: int
    wrong_sentences: int
    low: float  # bootstrap 95 % interval of the rate, over utterances
    high: float

    @property
    def errors(self) -> int:
        return self.substitutions + self.deletions + self.insertions

    @property
    def rate(self) -> float:
        """Errors a reference token; where there is no reference token at all, errors."""
        return self.errors / max(self.words, 1)

    def line(self, where: Path | str) -> str:
        """The score as Kaldi prints it."""
        return (
            f"%{self.metric} {100 * self.rate:.2f} [ {self.errors} / {self.words}, {self.insertions} ins, "
            f"{self.deletions} del, {self.substitutions} sub ] {where}"
        )


def row(dataset: str, score: Score) -> str:
    """A line of RESULTS.md, under HEAD: counts of sentences and words, the rest in percent."""
    counts = (score.correct, score.substitutions, score.deletions, score.insertions, score.errors)
    percent = [f"{100 * count / max(score.words, 1):.1f}" for count in counts]
    wrong = f"{100 * score.wrong_sentences / score.sentences:.1f}"
    return f"| {' | '.join([dataset, str(score.sentences), str(score.words), *percent, wrong])} |\n"


def wer(refs: Sequence[str], hyps: Sequence[str]) -> float:
    """Word error rate of a set as a fraction, errors of all utterances over words of all references."""
    return _rate("wer", refs, hyps)


def cer(refs: Sequence[str], hyps: Sequence[str]) -> float:
    """Character error rate of a set as a fraction; a space between words is a character."""
    return _rate("cer", refs, hyps)


def errors(metric: str, refs: Sequence[str], hyps: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """(errors, tokens of the reference) of each utterance, [U] each; `metric` is wer or cer."""
    return _per_utterance(_align(*([_tokens(metric, text, None) for text in texts] for texts in (refs, hyps))))


def _per_utterance(alignments: list[Alignment]) -> tuple[np.ndarray, np.ndarray]:
    errors_U = np.array([_errors(a) for a in alignments])
    return errors_U, np.array([sum(r is not None for r, _ in a) for a in alignments])


def _rate(metric: str, refs: Sequence[str], hyps: Sequence[str]) -> float:
    errors_U, tokens_U = errors(metric, refs, hyps)
    return float(errors_U.sum() / max(tokens_U.sum(), 1))


def _align(refs: list[list[str]], hyps: list[list[str]]) -> list[Alignment]:
    done = jiwer.process_words(refs, hyps, reference_transform=lambda x: x, hypothesis_transform=lambda x: x)
    alignments = []
    for ref, hyp, chunks in zip(refs, hyps, done.alignments, strict=True):
        pairs: Alignment = []
        for chunk in chunks:
            r = ref[chunk.ref_start_idx : chunk.ref_end_idx]
            h = hyp[chunk.hyp_start_idx : chunk.hyp_end_idx]
            # a substituted chunk has as many tokens on either side, a deleted or inserted one has them on one
            pairs += zip(r or [None] * len(h), h or [None] * len(r), strict=True)
        alignments.append(pairs)
    return alignments


def _errors(alignment: Alignment) -> int:
    return sum(r != h for r, h in alignment)


def _count(metric: str, alignments: list[Alignment]) -> Score:
    pairs = [pair for alignment in alignments for pair in alignment]
    words = sum(r is not None for r, _ in pairs)
    correct = sum(r == h for r, h in pairs)
    deletions, insertions = sum(h is None for _, h in pairs), sum(r is None for r, _ in pairs)
    errors_U, words_U = _per_utterance(alignments)
    low, high = interval(errors_U, words_U)
    return Score(
        metric=metric,
        sentences=len(alignments),
        words=words,
        correct=correct,
        substitutions=words - correct - deletions,
        deletions=deletions,
        insertions=insertions,
        wrong_sentences=int((errors_U > 0).sum()),
        low=low,
        high=high,
    )


def interval(
    errors_U: np.ndarray, words_U: np.ndarray, resamples: int = RESAMPLES, seed: int = 0
) -> tuple[float, float]:
    """Bootstrap 95 % interval of sum(errors) / sum(words) over U utterances (Bisani and Ney 2004).

    Utterances are drawn as if they were independent: with few speakers the true interval is wider.
    """
    rng = np.random.default_rng(seed)
    count = len(errors_U)
    rates = []
    for _ in range(resamples):
        drawn = rng.integers(0, count, count)
        rates.append(errors_U[drawn].sum() / max(words_U[drawn].sum(), 1))
    low, high = np.percentile(rates, (2.5, 97.5))
    return float(low), float(high)


def score_dir(decode_dir: Path | str, units: Units | None) -> dict[str, Score]:
    """Score decode_dir/text against decode_dir/ref, utterance by utterance -> {"wer", "cer", "ter": Score}.

    Writes score_wer/, score_cer/ and score_ter/, each with result.txt, ref.trn and hyp.trn; no TER without `units`.
    An empty hypothesis is all deletions, an empty reference all insertions. UserError where the two do not have the
    same utterances. decode_dir/utt2spk, where it is there, names the speakers of the trn files; else the utterance id
    does, up to its first dash.
    """
    decode_dir = Path(decode_dir)
    refs = read_table(decode_dir / "ref", value_required=False)
    hyps = read_table(decode_dir / "text", value_required=False)
    for here, there, lost in (("ref", "text", refs.keys() - hyps.keys()), ("text", "ref", hyps.keys() - refs.keys())):
        if lost:
            raise UserError(
                f"{decode_dir}/{here}: {len(lost)} utterances missing from {there}, first {min(lost)}; "
                "decode the set again"
            )
    if not any(text.split() for text in refs.values()):
        raise UserError(f"{decode_dir}/ref: every reference is empty, so there is no error rate")
    speakers = decode_dir / "utt2spk"
    speakers = read_table(speakers) if speakers.exists() else {utt: utt.partition("-")[0] for utt in refs}
    utts = sorted(refs)
    lost = [utt for utt in utts if utt not in speakers]
    if lost:
        raise UserError(f"{decode_dir}/ref: {len(lost)} utterances missing from utt2spk, first {lost[0]}")
    names = [f"({speakers[utt]}-{utt})" for utt in utts]

    scores = {}
    for metric in ("wer", "cer", "ter") if units is not None else ("wer", "cer"):
        split = [[_tokens(metric, table[utt], units) for utt in utts] for table in (refs, hyps)]
        alignments = _align(*split)
        score = scores[metric] = _count(metric.upper(), alignments)
        folder = decode_dir / f"score_{metric}"
        for name, sentences in zip(("ref", "hyp"), split, strict=True):
            lines = (" ".join([*tokens, trn]) for tokens, trn in zip(sentences, names, strict=True))
            write_text(folder / f"{name}.trn", "".join(f"{line}\n" for line in lines))
        report = _report(decode_dir, score, dict(zip(utts, alignments, strict=True)))
        write_text(folder / "result.txt", "".join(report))
    return scores


def _tokens(metric: str, text: str, units: Units | None) -> list[str]:
    words = text.split()
    if metric == "wer":
        return words
    if metric == "cer":
        return ["<space>" if c == " " else c for c in " ".join(words)]
    return [units.symbols[id] for id in units.encode(" ".join(words))]


def _report(decode_dir: Path, score: Score, alignments: dict[str, Alignment]) -> Iterator[str]:
    yield score.line(decode_dir) + "\n"
    yield f"%SER {100 * score.wrong_sentences / score.sentences:.2f} [ {score.wrong_sentences} / {score.sentences} ]\n"
    yield f"95 % interval of %{score.metric}: {100 * score.low:.2f} to {100 * score.high:.2f} "
    yield f"({RESAMPLES} bootstrap resamples of utterances)\n\n"
    yield HEAD + row(decode_dir.name, score)
    pairs = Counter(pair for alignment in alignments.values() for pair in alignment if pair[0] != pair[1])
    sorts = (
        ("substitutions, reference -> hypothesis", {f"{r} -> {h}": n for (r, h), n in pairs.items() if r and h}),
        ("deletions", {r: n for (r, h), n in pairs.items() if h is None}),
        ("insertions", {h: n for (r, h), n in pairs.items() if r is None}),
    )
    for title, counts in sorts:
        yield f"\nCommonest {title}\n"
        for what, count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:COMMONEST]:
            yield f"{count:8d}  {what}\n"
    wrong = sorted((utt for utt, a in alignments.items() if _errors(a)), key=lambda u: (-_errors(alignments[u]), u))
    yield f"\nThe {min(WORST, len(wrong))} worst of {len(wrong)} utterances with errors; ref.trn and hyp.trn hold all\n"
    for utt in wrong[:WORST]:
        alignment = alignments[utt]
        yield f"\n{utt}: {_errors(alignment)} wrong of {sum(r is not None for r, _ in alignment)}\n"
        yield from _aligned(alignment)


def _aligned(alignment: Alignment) -> Iterator[str]:
    """Reference over hypothesis over S, D or I, in columns, folded where a line grows long."""
    rows, used = ["REF: ", "HYP: ", "EVAL:"], 0
    for ref, hyp in alignment:
        sort = "" if ref == hyp else "D" if hyp is None else "I" if ref is None else "S"
        cells = ["*" if ref is None else ref, "*" if hyp is None else hyp, sort]
        width = max(map(_width, cells))
        if used and used + width + 1 > LINE_WIDTH:
            yield "".join(line.rstrip() + "\n" for line in rows)
            rows, used = ["     "] * 3, 0
        rows = [f"{line} {cell}{' ' * (width - _width(cell))}" for line, cell in zip(rows, cells, strict=True)]
        used += width + 1
    yield "".join(line.rstrip() + "\n" for line in rows)


def _width(text: str) -> int:
    """Columns on a terminal: two for a Chinese character, none for a combining mark."""
    marks = ("Mn", "Me", "Cf")
    return sum(0 if unicodedata.category(c) in marks else 1 + (unicodedata.east_asian_width(c) in "WF") for c in text)
