"""Write a score, its speakers and its alignments as the text of result.txt and by_speaker.tsv."""

import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

from hfftools.score.counts import HEAD, RESAMPLES, Alignment, Counts, Score, count, row, wrong

COMMONEST, SPEAKERS, WORST = 20, 50, 200  # confusions of each kind, speakers, and utterances in result.txt
LINE_WIDTH = 110
UNSEEN = ("Cc", "Cf", "Zs", "Zl", "Zp")  # Unicode categories without a visible shape
MARKS = ("Mn", "Me", "Cf")  # Unicode categories that take no column of their own


def of_speakers(metric: str, alignments: list[Alignment], speakers: list[str]) -> dict[str, Counts]:
    """Return {speaker: counts}, the highest error rate first; their counts add up to those of the set."""
    of_each: dict[str, list[Alignment]] = defaultdict(list)
    for alignment, speaker in zip(alignments, speakers, strict=True):
        of_each[speaker].append(alignment)
    counts = {speaker: count(metric, theirs) for speaker, theirs in of_each.items()}
    return dict(sorted(counts.items(), key=lambda item: (-item[1].rate, item[0])))


def speaker_tsv(speakers: dict[str, Counts]) -> Iterator[str]:
    """Yield the lines of a table separated by tabs: counts, and the rate in percent."""
    columns = ("sentences", "words", "correct", "substitutions", "deletions", "insertions", "errors", "wrong_sentences")
    yield "\t".join(("speaker", *columns, "percent")) + "\n"
    for speaker, counts in speakers.items():
        numbers = (str(getattr(counts, name)) for name in columns)
        yield "\t".join((speaker, *numbers, f"{100 * counts.rate:.2f}")) + "\n"


def report(folder: Path, score: Score, speakers: dict[str, Counts], alignments: dict[str, Alignment]) -> Iterator[str]:
    """Yield the text of result.txt: rates and intervals, speakers, confusions, and the worst utterances aligned."""
    yield score.line(folder) + "\n"
    yield f"%SER {100 * score.wrong_sentences / score.sentences:.2f} [ {score.wrong_sentences} / {score.sentences} ]\n"
    yield from _intervals(score)
    yield "\n" + HEAD + row(folder.name, score)
    yield from _speakers(speakers)
    yield from _confusions(alignments)
    worst = sorted((utt for utt, a in alignments.items() if wrong(a)), key=lambda u: (-wrong(alignments[u]), u))
    yield f"\nThe {min(WORST, len(worst))} worst of {len(worst)} utterances with errors; ref.trn and hyp.trn hold all\n"
    for utt in worst[:WORST]:
        alignment = alignments[utt]
        yield f"\n{utt}: {wrong(alignment)} wrong of {sum(r is not None for r, _ in alignment)}\n"
        yield from _aligned(alignment)


def _intervals(score: Score) -> Iterator[str]:
    yield f"95 % interval of %{score.metric}: {100 * score.low:.2f} to {100 * score.high:.2f} "
    yield f"({RESAMPLES} bootstrap resamples of {score.sentences} utterances)\n"
    if score.speaker_low is not None and score.speaker_high is not None:
        yield f"95 % interval of %{score.metric}: {100 * score.speaker_low:.2f} to {100 * score.speaker_high:.2f} "
        yield f"({RESAMPLES} bootstrap resamples of {score.speakers} speakers: for other speakers than these)\n"


def _speakers(speakers: dict[str, Counts]) -> Iterator[str]:
    more = f"; by_speaker.tsv has all {len(speakers)}" if len(speakers) > SPEAKERS else ""
    yield f"\nSpeakers, worst first{more}\n"
    lines = [HEAD.splitlines()[0].replace("dataset", "speaker")]
    lines += [row(speaker, counts) for speaker, counts in list(speakers.items())[:SPEAKERS]]
    cells = [[cell.strip() for cell in line.strip("| \n").split(" | ")] for line in lines]
    widths = [max(map(_width, column)) for column in zip(*cells, strict=True)]
    for name, *numbers in cells:
        padded = [name + " " * (widths[0] - _width(name)), *map(str.rjust, numbers, widths[1:])]
        yield "  ".join(padded) + "\n"


def _confusions(alignments: dict[str, Alignment]) -> Iterator[str]:
    """Yield the commonest substitutions, deletions and insertions, then the tokens missed most often."""
    pairs = Counter(pair for alignment in alignments.values() for pair in alignment)
    occurrences: Counter[str | None] = Counter()  # of each reference token
    for (ref, _), times in pairs.items():
        occurrences[ref] += times
    mistakes = {pair: times for pair, times in pairs.items() if pair[0] != pair[1]}
    kinds = (
        ("substitutions, reference -> hypothesis", {p: n for p, n in mistakes.items() if None not in p}),
        ("deletions", {p: n for p, n in mistakes.items() if p[1] is None}),
        ("insertions", {p: n for p, n in mistakes.items() if p[0] is None}),
    )
    for title, counts in kinds:
        yield f"\nCommonest {title}\n"
        for (ref, hyp), times in _first(counts):
            of = "" if ref is None else f"   ({times} of {occurrences[ref]})"
            yield f"{times:8d}  {_pair(ref, hyp)}{of}\n"
    yield from _missed(mistakes, occurrences)


def _missed(mistakes: dict[tuple[str | None, str | None], int], occurrences: Counter[str | None]) -> Iterator[str]:
    """Yield the reference tokens missed most often, each with what was recognised in its place.

    mistakes: the times of each (reference, hypothesis) that differ; occurrences: those of each reference token.
    """
    missed: dict[str, Counter[str | None]] = defaultdict(Counter)
    for (ref, hyp), times in mistakes.items():
        if ref is not None:
            missed[ref][hyp] += times
    yield "\nMost often missed, and what was recognised instead; * nothing\n"
    for ref, times in _first({ref: sum(instead.values()) for ref, instead in missed.items()}):
        shown = [f"{'*' if hyp is None else _shown(hyp)} {n}" for hyp, n in _first(missed[ref])[:5]]
        more = ", …" if len(missed[ref]) > 5 else ""
        yield f"{times:8d} of {occurrences[ref]}  {_shown(ref)}: {', '.join(shown)}{more}\n"


def _first(counts: dict) -> list[tuple]:
    return sorted(counts.items(), key=lambda item: (-item[1], str(item[0])))[:COMMONEST]


def _pair(ref: str | None, hyp: str | None) -> str:
    """Return a confusion as text; with code points where both sides look alike, since only these differ."""
    if ref is None or hyp is None:
        return _shown(ref or hyp or "")
    if unicodedata.normalize("NFKC", ref) != unicodedata.normalize("NFKC", hyp):
        return f"{_shown(ref)} -> {_shown(hyp)}"
    return f"{_shown(ref)} ({_code_points(ref)}) -> {_shown(hyp)} ({_code_points(hyp)})"


def _code_points(token: str) -> str:
    return " ".join(f"U+{ord(c):04X}" for c in token)


def _shown(token: str) -> str:
    """Return a token in a form that is visible by itself and stays in its column.

    A combining mark at its beginning is put on a dotted circle, a token without a visible shape is shown as code points, and
    letters that are written from right to left are followed by a left-to-right mark (Unicode Annex 9), without which a
    terminal would reverse the order of neighbouring words.
    """
    if all(unicodedata.category(c) in UNSEEN for c in token):
        return "".join(f"<U+{ord(c):04X}>" for c in token)
    if unicodedata.category(token[0]).startswith("M"):
        token = "◌" + token
    return token + "\u200e" * any(unicodedata.bidirectional(c) in ("R", "AL") for c in token)


def _aligned(alignment: Alignment) -> Iterator[str]:
    """Yield the reference above the hypothesis above S, D or I, in columns, folded where a line grows long."""
    rows, used = ["REF: ", "HYP: ", "EVAL:"], 0
    for ref, hyp in alignment:
        sort = "" if ref == hyp else "D" if hyp is None else "I" if ref is None else "S"
        cells = ["*" if ref is None else _shown(ref), "*" if hyp is None else _shown(hyp), sort]
        width = max(map(_width, cells))
        if used and used + width + 1 > LINE_WIDTH:
            yield "".join(line.rstrip() + "\n" for line in rows)
            rows, used = ["     "] * 3, 0
        rows = [f"{line} {cell}{' ' * (width - _width(cell))}" for line, cell in zip(rows, cells, strict=True)]
        used += width + 1
    yield "".join(line.rstrip() + "\n" for line in rows)


def _width(text: str) -> int:
    """Return the columns on a terminal: two for a Chinese character, none for a combining mark."""
    return sum(0 if unicodedata.category(c) in MARKS else 1 + (unicodedata.east_asian_width(c) in "WF") for c in text)
