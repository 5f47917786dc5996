"""Sentences in, an n-gram language model as an ARPA file out: interpolated modified Kneser-Ney (Chen and Goodman 1998).

Probabilities over the words, </s> and <unk> sum to one after every history. Counts, discounts and the treatment of <s>
are those of KenLM's lmplz, so that the file is the one it would write.
"""

import json
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from hashlib import sha256
from pathlib import Path

from hfftools.data.table import read_table
from hfftools.expdir import write_aside, write_json, write_text
from hfftools.log import UserError, log, require
from hfftools.text.normalise import unspaced
from hfftools.text.units import Units

BEGIN, END, UNKNOWN = "<s>", "</s>", "<unk>"
FALLBACK = (0.5, 1.0, 1.5)  # discounts where the text is too small to tell, as of lmplz --discount_fallback

Gram = tuple[str, ...]


def read_texts(path: Path) -> list[str]:
    """The sentences of a data directory, or of a text file with one a line; white space becomes single spaces."""
    try:
        lines = read_table(path / "text", False).values() if path.is_dir() else path.read_text("utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is neither a data directory nor a UTF-8 text file ({error})") from None
    return [text for line in lines if (text := " ".join(line.split()))]


def tokens(text: str, units: Units | None) -> list[str]:
    """The words of a text, or its units' symbols."""
    return [units.symbols[id] for id in units.encode(text)] if units else text.split(" ")


def make(texts: list[str], order: int, units: Units | None, out: Path) -> Path:
    """out/lm.arpa, words.txt and lm.json from `texts`: over words, or over units; nothing where it is there of the same."""
    require(order >= 2, f"order {order} is below 2, which KenLM does not read")
    require(bool(texts), "there is no text to make a language model of")
    known = units is not None or not unspaced(texts)
    require(known, "the text puts no space between words; make the model of units, by --units (--lm units of a recipe)")
    digest = sha256("\n".join(texts).encode()).hexdigest()
    made = {"order": order, "units": units.digest if units else None, "text_sha256": digest}
    info = out / "lm.json"
    if info.exists() and json.loads(info.read_text()) == made:
        log.info(f"{out}/lm.arpa is there already, made from the same text")
        return out / "lm.arpa"
    info.unlink(missing_ok=True)
    sentences = [tokens(text, units) for text in texts]
    taken = next((w for s in sentences for w in s if w in (BEGIN, END)), None)
    require(taken is None, f"the text has the word {taken}, which stands for a sentence's edge; take it out")
    orders = estimate(sentences, order)
    with write_aside(out / "lm.arpa") as aside, open(aside, "w", encoding="utf-8") as file:
        file.writelines(arpa(orders))
    words = sorted(gram[0] for gram in orders[0] if gram[0] not in (BEGIN, END, UNKNOWN))
    write_text(out / "words.txt", "".join(f"{word}\n" for word in words))
    write_json(info, made)
    return out / "lm.arpa"


def estimate(sentences: Iterable[Sequence[str]], order: int) -> list[dict[Gram, tuple[float, float]]]:
    """{n-gram: (probability, weight of backing off from it)} for each order from 1 up."""
    raw = _count(sentences, order)
    order = max(n for n in range(1, order + 1) if raw[n])  # short sentences have no long n-grams
    words = {w for (w,) in raw[1]} | {END, UNKNOWN}
    probs: list[dict[Gram, float]] = []
    backoffs: list[dict[Gram, float]] = []
    for n in range(1, order + 1):
        counts = raw[n] if n == order else _continuations(raw, n)
        discounts = _discounts(counts.values())
        totals: dict[Gram, int] = defaultdict(int)
        freed: dict[Gram, float] = defaultdict(float)
        for gram, count in counts.items():
            totals[gram[:-1]] += count
            freed[gram[:-1]] += discounts[min(count, 3) - 1]
        gamma = {history: freed[history] / totals[history] for history in totals}
        if n == 1:
            counts = {(w,): counts.get((w,), 0) for w in words}
        found = {}
        for gram, count in counts.items():
            own = count - discounts[min(count, 3) - 1] if count else 0.0
            lower = probs[-1][gram[1:]] if probs else 1 / len(words)
            found[gram] = own / totals[gram[:-1]] + gamma[gram[:-1]] * lower
        probs.append(found)
        if n > 1:
            backoffs.append(gamma)
    probs[0][(BEGIN,)] = 10**-99.0  # never said, only stood after
    backoffs.append({})
    return [{g: (p, below.get(g, 1.0)) for g, p in here.items()} for here, below in zip(probs, backoffs, strict=True)]


def _count(sentences: Iterable[Sequence[str]], order: int) -> dict[int, Counter]:
    raw: dict[int, Counter] = {n: Counter() for n in range(1, order + 1)}
    for sentence in sentences:
        padded = (BEGIN, *sentence, END)
        for n, counter in raw.items():
            counter.update(padded[i : i + n] for i in range(n == 1, len(padded) - n + 1))
    return raw


def _continuations(raw: dict[int, Counter], n: int) -> dict[Gram, int]:
    """How many words each n-gram follows; what begins with <s> follows none, and keeps its count."""
    counts = Counter(gram[1:] for gram in raw[n + 1])
    counts.update({gram: count for gram, count in raw[n].items() if gram[0] == BEGIN})
    return counts


def _discounts(counts: Iterable[int]) -> tuple[float, ...]:
    """What to take off counts of 1, 2, and 3 or more."""
    seen = Counter(counts)
    if not all(seen[k] for k in (1, 2, 3, 4)):
        return FALLBACK
    y = seen[1] / (seen[1] + 2 * seen[2])
    found = tuple(k - (k + 1) * y * seen[k + 1] / seen[k] for k in (1, 2, 3))
    return found if all(0 <= d <= k for k, d in enumerate(found, 1)) else FALLBACK


def arpa(orders: list[dict[Gram, tuple[float, float]]]) -> Iterable[str]:
    """The lines of an ARPA file."""
    yield "\\data\\\n"
    yield from (f"ngram {n}={len(grams)}\n" for n, grams in enumerate(orders, 1))
    for n, grams in enumerate(orders, 1):
        yield f"\n\\{n}-grams:\n"
        for gram in sorted(grams):
            p, backoff = grams[gram]
            last = n == len(orders)
            yield f"{math.log10(p):.7g}\t{' '.join(gram)}" + ("\n" if last else f"\t{math.log10(backoff):.7g}\n")
    yield "\n\\end\\\n"
