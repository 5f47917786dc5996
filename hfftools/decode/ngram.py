"""Estimate n-gram language models, interpolated modified Kneser-Ney (Chen and Goodman 1998), and write them as ARPA files.

Probabilities over the words, </s> and <unk> sum to one after every history. Counts, discounts and the treatment of <s>
are those of KenLM's lmplz, so that lmplz would write the same file.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from hashlib import sha256
from pathlib import Path

from hfftools.data.table import listed, read_table
from hfftools.disk import alone
from hfftools.expdir import write_aside, write_json, write_text
from hfftools.log import log, require
from hfftools.records import read_json
from hfftools.text.normalise import unspaced
from hfftools.text.spelling import report_lost, spell
from hfftools.text.units import Units
from hfftools.textfile import read_lines

KENLM_ORDERS = 2, 6  # of every build that was not given another limit
BEGIN, END, UNKNOWN = "<s>", "</s>", "<unk>"
FALLBACK = (
    0.5,
    1.0,
    1.5,
)  # discounts for a text that is too small to estimate them, those of lmplz --discount_fallback

Gram = tuple[str, ...]


def read_texts(path: Path) -> list[str]:
    """Return the sentences, without empty ones, of a data directory or of a text file with one per line; single-spaced."""
    lines = read_table(path / "text", False).values() if path.is_dir() else read_lines(path)
    return [" ".join(line.split()) for line in lines if line.strip()]


def tokens(text: str, units: Units | None) -> list[str]:
    """Return the words of a text or, with `units`, the symbols of its units."""
    return [units.symbols[id] for id in units.encode(text)] if units else text.split(" ")


def make(texts: list[str], order: int, units: Units | None, out: Path) -> Path:
    """Write lm.arpa, words.txt and lm.json to `out`, of the words or units of `texts`; return the path of lm.arpa.

    A model that is there already, made from the same text with the same options, is kept. Raise UserError if no model can be
    made of the text, or if it would replace files of others.
    """
    lowest, highest = KENLM_ORDERS
    require(lowest <= order <= highest, f"order {order} is not from {lowest} to {highest}, the orders that KenLM reads")
    require(bool(texts), "there is no text to make a language model of: every transcript is empty")
    separable = units is not None or not unspaced(texts)
    require(
        separable, "the text has no spaces between words; make the model of units, by --units (--lm units of a recipe)"
    )
    if units is not None:
        _check_spelling(texts, units)
    digest = sha256("\n".join(texts).encode()).hexdigest()
    made = {"order": order, "units": units.digest if units else None, "text_sha256": digest}
    with alone(out, waits=True):
        return _make(texts, order, units, out, made)


def _make(texts: list[str], order: int, units: Units | None, out: Path, made: dict) -> Path:
    """Do what `make` does in a folder that is locked; `made` is the record of what the model is made from."""
    info = out / "lm.json"
    if info.exists() and read_json(info, dict, f"remove {out} and run the same command again") == made:
        log.info(f"{out}/lm.arpa is there already, made from the same text")
        return out / "lm.arpa"
    for name in ("lm.arpa", "words.txt") if not info.exists() else ():
        there = listed(out, name)
        require(not there, f"{out / name} is there already, and hff-lm did not write it; give another folder, by --out")
    sentences = [tokens(text, units) for text in texts]
    for edge in (BEGIN, END):
        taken = any(edge in sentence for sentence in sentences)
        require(not taken, f"the text has the word {edge}, which marks a sentence's edge; remove it from the text")
    orders = estimate(sentences, order)
    write_json(info, {})  # first, so that a kill in between leaves no record that fits another lm.arpa
    with write_aside(out / "lm.arpa") as aside, open(aside, "w", encoding="utf-8") as file:
        file.writelines(arpa(orders))
    words = sorted(gram[0] for gram in orders[0] if gram[0] not in (BEGIN, END, UNKNOWN))
    write_text(out / "words.txt", "".join(f"{word}\n" for word in words))
    write_json(info, made)
    return out / "lm.arpa"


def _check_spelling(texts: list[str], units: Units) -> None:
    """Report the words of a text that the units cannot spell; raise UserError if they are more than half of its words."""
    words = sorted(set(" ".join(texts).split()))
    lost = [word for word in words if not spell(units, word)]
    remedies = "write the text in the units' case", "take a text that is written in the transcripts' characters"
    what = "the text of the model: cannot be spelled with the units of --units"
    report_lost(what, lost, len(words), lambda word: bool(spell(units, word)), remedies)


def estimate(sentences: Iterable[Sequence[str]], order: int) -> list[dict[Gram, tuple[float, float]]]:
    """Return {n-gram: (probability, back-off weight)} for each order from 1 up.

    With h the words before w, and h' the same without the first one,

        p(w | h) = (c(hw) - D(c(hw))) / c(h ·) + γ(h) p(w | h'),    γ(h) = Σ_w D(c(hw)) / c(h ·)

    where c counts occurrences in the highest order, and the different words before the n-gram in the lower ones. The
    recursion ends in 1 / V, with V the number of words, </s> and <unk>.
    """
    raw = _count(sentences, order)
    order = max(n for n in range(1, order + 1) if raw[n])  # short sentences have no long n-grams
    vocabulary = {word for (word,) in raw[1]} | {END, UNKNOWN}
    lower: dict[Gram, float] = {(): 1 / len(vocabulary)}
    probs: list[dict[Gram, float]] = []
    backoffs: list[dict[Gram, float]] = []
    for n in range(1, order + 1):
        counts = raw[n] if n == order else _continuations(raw, n)
        discounts = _discounts(counts.values())
        totals, gamma = _histories(counts, discounts)
        if n == 1:
            counts = {(word,): counts.get((word,), 0) for word in vocabulary}  # <unk> has no count, and a probability
        else:
            backoffs.append(gamma)
        lower = _interpolated(counts, discounts, totals, gamma, lower)
        probs.append(lower)
    probs[0][(BEGIN,)] = 10**-99.0  # <s> is never predicted, only a history; ARPA files have log10 = -99 for it
    backoffs.append({})
    orders = []
    for here, weights in zip(probs, backoffs, strict=True):  # γ(h) of order n + 1 stands with the n-gram h
        orders.append({gram: (prob, weights.get(gram, 1.0)) for gram, prob in here.items()})
    return orders


def _histories(counts: dict[Gram, int], discounts: tuple[float, ...]) -> tuple[dict[Gram, int], dict[Gram, float]]:
    """Return {history h: c(h ·)} and {history h: γ(h)}, the share that the discounts leave to the lower order."""
    totals: dict[Gram, int] = defaultdict(int)
    freed: dict[Gram, float] = defaultdict(float)
    for gram, count in counts.items():
        totals[gram[:-1]] += count
        freed[gram[:-1]] += discounts[min(count, 3) - 1]
    return totals, {history: freed[history] / totals[history] for history in totals}


def _interpolated(
    counts: dict[Gram, int],
    discounts: tuple[float, ...],
    totals: dict[Gram, int],
    gamma: dict[Gram, float],
    lower: dict[Gram, float],
) -> dict[Gram, float]:
    """Return {n-gram: p(w | h)}; `lower` has p(w | h') of the next lower order, under () for unigrams."""
    probs = {}
    for gram, count in counts.items():
        own = count - discounts[min(count, 3) - 1] if count else 0.0
        probs[gram] = own / totals[gram[:-1]] + gamma[gram[:-1]] * lower[gram[1:]]
    return probs


def _count(sentences: Iterable[Sequence[str]], order: int) -> dict[int, Counter]:
    """Return {n: occurrences of each n-gram} for n up to `order`; <s> is not counted as a unigram."""
    raw: dict[int, Counter] = {n: Counter() for n in range(1, order + 1)}
    for sentence in sentences:
        padded = (BEGIN, *sentence, END)
        for n, counter in raw.items():
            first = 1 if n == 1 else 0  # <s> is a history only
            counter.update(padded[i : i + n] for i in range(first, len(padded) - n + 1))
    return raw


def _continuations(raw: dict[int, Counter], n: int) -> dict[Gram, int]:
    """Return how many different words each n-gram follows; one that begins with <s> follows none, and keeps its count."""
    counts = Counter(gram[1:] for gram in raw[n + 1])
    counts.update({gram: count for gram, count in raw[n].items() if gram[0] == BEGIN})
    return counts


def _discounts(counts: Iterable[int]) -> tuple[float, ...]:
    """Return what is subtracted from counts of 1, 2, and 3 or more.

    With n_k the number of n-grams that are counted k times, Y = n_1 / (n_1 + 2 n_2) and D(k) = k - (k + 1) Y n_(k+1) / n_k.
    A small text may have no n-grams of some count, or values outside of [0, k]; then all three are FALLBACK.
    """
    seen = Counter(counts)
    if not all(seen[k] for k in (1, 2, 3, 4)):
        return FALLBACK
    y = seen[1] / (seen[1] + 2 * seen[2])
    estimated = tuple(k - (k + 1) * y * seen[k + 1] / seen[k] for k in (1, 2, 3))
    return estimated if all(0 <= d <= k for k, d in enumerate(estimated, 1)) else FALLBACK


def arpa(orders: list[dict[Gram, tuple[float, float]]]) -> Iterable[str]:
    """Yield the lines of an ARPA file; the highest order has no back-off weights, as no longer n-gram exists."""
    yield "\\data\\\n"
    yield from (f"ngram {n}={len(grams)}\n" for n, grams in enumerate(orders, 1))
    for n, grams in enumerate(orders, 1):
        yield f"\n\\{n}-grams:\n"
        for gram in sorted(grams):
            p, backoff = grams[gram]
            last = n == len(orders)
            yield f"{math.log10(p):.7g}\t{' '.join(gram)}" + ("\n" if last else f"\t{math.log10(backoff):.7g}\n")
    yield "\n\\end\\\n"
