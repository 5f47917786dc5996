"""Spell words with units, and report the words that do not fit: how many, which, and whether their case is the reason."""

from collections.abc import Callable, Iterator, Sequence

from hfftools.log import log, require
from hfftools.text.units import UNKNOWN, Units

SHOWN = 5  # words that a message names


def forms(word: str, fold_case: bool) -> Iterator[str]:
    """Yield the word as it is written and, with `fold_case`, in upper case, in lower case and capitalised."""
    yield word
    if fold_case:
        yield from (word.upper(), word.lower(), word.capitalize())


def spell(units: Units, word: str, fold_case: bool = False) -> list[int]:
    """Return the ids of the first of the word's `forms` that the units can spell; no ids if they can spell none."""
    for form in forms(word, fold_case):
        ids = units.encode(form)
        if UNKNOWN not in ids:
            return ids
    return []


def report_lost(
    what: str,
    lost: Sequence[str],
    total: int,
    fits: Callable[[str], bool],
    remedies: tuple[str, str],
    refuse: bool = True,
) -> None:
    """Log that `lost`, some of `total` words, do not fit; raise UserError if they are more than half of them.

    `what` is `where: what is wrong with them`. Where most of them would fit in another case, the message says so and ends
    with the first of `remedies`, otherwise with the second. Without `refuse`, only the case is a reason for an error.
    """
    if not lost:
        return
    where, _, wrong = what.rpartition(": ")
    more = " …" if len(lost) > SHOWN else ""
    message = f"{where}: {len(lost)} of {total} words {wrong}, first: {', '.join(lost[:SHOWN])}{more}"
    count = sum(any(map(fits, forms(word, True))) for word in lost)
    cased = 2 * count > len(lost)
    message += f"; {count} of them fit in another case: {remedies[0]}" if cased else f"; {remedies[1]}"
    require(2 * len(lost) <= total or not (refuse or cased), message)
    log.warning(message)
