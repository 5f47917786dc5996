"""Score words or units by an n-gram model from an ARPA file (gzipped or not) or a KenLM binary; the one door to kenlm."""

import math
import re
import shutil
import tempfile
from codecs import BOM_UTF8
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any

from hfftools.decode.ngram import BEGIN, END, UNKNOWN, read_texts
from hfftools.disk import writing
from hfftools.log import UserError, log, require
from hfftools.records import read_json
from hfftools.text.units import Units
from hfftools.textfile import GZIP, read_lines, unpacked

LN10 = math.log(10)
BINARY = b"mmap lm "  # the first bytes of a KenLM binary
_GAP = re.compile("[ \t]+")  # what KenLM splits at: a word may contain a no-break space


class Ngram:
    """Hold a back-off model. A memory is its record of the preceding words; scores are natural logarithms."""

    def __init__(self, path: Path | str):
        """Load the model; raise UserError if kenlm is not installed or cannot read the file."""
        try:
            import kenlm
        except ImportError as error:
            raise UserError(f"a language model needs the package kenlm ({error}); pip install 'hff[lm]'") from None
        self.path = Path(path)
        require(self.path.is_file(), f"search.lm: {path} is not a file; make one with hff-lm")
        config = kenlm.Config()
        config.show_progress = False
        config.arpa_complain = kenlm.ARPALoadComplain.NONE  # no advice that a binary would load faster
        with _plain(self.path) as plain:
            try:
                self.model = kenlm.Model(str(plain), config)
            except (OSError, RuntimeError, ValueError) as error:  # ValueError: its message quotes what is not UTF-8
                reason = f"{path} is no language model that KenLM reads: {_reason(error)}"
                raise UserError(f"{reason}; make one with hff-lm, or download it again") from None
        self._state = kenlm.State
        self.start = self._state()
        self.model.BeginSentenceWrite(self.start)
        self.nowhere = self._state()  # the memory without any preceding word
        self.model.NullContextWrite(self.nowhere)

    def __contains__(self, word: str) -> bool:
        return word in self.model

    def score(self, memory: Any, word: str) -> tuple[Any, float]:
        """Return the memory after `word`, and ln p(word | memory)."""
        after = self._state()  # BaseScore writes the new state into it, and returns log10
        return after, LN10 * self.model.BaseScore(memory, word, after)

    def end(self, memory: Any) -> float:
        """Return the log probability of the end of the sentence."""
        return self.score(memory, END)[1]

    def perplexity(self, sentences: Iterable[list[str]]) -> tuple[float, int, int]:
        """Return the perplexity exp(-Σ ln p / n) over the n known words and sentence ends; all words; the unknown words.

        Unknown words are left out of the sum and of n, as in the "perplexity excluding OOVs" of KenLM's query.
        """
        total, words, known, unknown = 0.0, 0, 0, 0
        for sentence in sentences:
            for log10_prob, _, is_unknown in self.model.full_scores(" ".join(sentence)):
                total += 0.0 if is_unknown else LN10 * log10_prob
                known, unknown = known + (not is_unknown), unknown + is_unknown  # </s> counts among the known
            words += len(sentence)
        return math.exp(-total / max(known, 1)), words, unknown


def _reason(error: Exception) -> str:
    """Return KenLM's message without the name of the file, the place in KenLM's source and advice on compiling it."""
    message = " ".join(str(error).split())
    message = re.sub(r"^Cannot read model '.*?' \((.*)\)$", r"\1", message)
    message = re.sub(r"^(lm|util)/\S+ in .*? threw \w+( because `.*?'(?=\. ))?\. ", "", message)
    return message.split(" If your build system")[0].rstrip(" .")


@contextmanager
def _plain(path: Path) -> Iterator[Path]:
    """Yield the file itself or, if it is gzipped or has a byte-order mark, a temporary copy that KenLM reads."""
    with open(path, "rb") as file:
        if not file.read(3).startswith((GZIP, BOM_UTF8)):
            yield path
            return
    with tempfile.TemporaryDirectory() as folder:
        with writing(folder), unpacked(path) as content, open(Path(folder) / "lm", "wb") as plain:
            plain.write(content.read(3).removeprefix(BOM_UTF8))
            shutil.copyfileobj(content, plain)
        yield Path(plain.name)


def of_units(path: Path) -> str | None:
    """Return the digest of the units of a model that hff-lm made of units; None for a model of words or of other origin.

    lm.arpa may have been packed, or made a binary, next to its record.
    """
    info = path.parent / "lm.json"
    if path.name.partition(".")[0] != "lm" or not info.exists():
        return None
    return read_json(info, {"units": str | None}, f"remove {info.parent} and run hff-lm again")["units"]


def check_units(ngram: Ngram, units: Units) -> None:
    """Raise UserError unless the model is over these units.

    A model of other origin records no digest: it passes if it knows half of the units.
    """
    made_of = of_units(ngram.path)
    symbols = units.symbols[2:]  # without blank and unknown
    lost = [symbol for symbol in symbols if symbol not in ngram]
    if made_of != units.digest and (made_of or 2 * len(lost) > len(symbols)):
        raise UserError(
            f"search.lm: without a lexicon {ngram.path} must be over the experiment's units; make it with "
            "hff-lm --units exp/<name>/units, or say search.lexicon=true for one of words"
        )
    if lost:
        log.info(f"search.lm: {len(lost)} of {len(symbols)} units are not in {ngram.path}, first: {' '.join(lost[:5])}")


def words(path: Path) -> list[str]:
    """Return the words of a list (the first column), of a data directory's text, or of a language model's file, sorted.

    A KenLM binary does not list its words; words.txt in its folder, which hff-lm writes, is read in its place. Raise
    UserError if there are no words to read.
    """
    require(path.exists(), f"search.lexicon: {path} does not exist")
    if path.is_dir():
        return sorted(set(" ".join(read_texts(path)).split()))
    if (listing := list_of_words(path)) != path:
        require(
            listing.exists(), f"search.lexicon: {path} lists no words, and {listing} is missing; name a list of words"
        )
        return words(listing)
    lines = filter(str.strip, read_lines(path))
    first = next(lines, "")
    if first.strip() == "\\data\\":  # how an ARPA file begins
        listed = _unigrams(lines)
    else:
        listed = [line.split()[0] for line in chain([first] * bool(first), lines)]
    return sorted(set(listed) - {BEGIN, END, UNKNOWN, UNKNOWN.upper()})


def list_of_words(path: Path) -> Path:
    """Return the file from which the words of a list or of a language model are read."""
    with open(path, "rb") as file:
        return path.parent / "words.txt" if file.read(len(BINARY)) == BINARY else path


def _unigrams(lines: Iterable[str]) -> list[str]:
    """Return the words of the section `\\1-grams:` of an ARPA file: the second column, after log10 of the probability."""
    listed, inside = [], False
    for line in lines:
        fields = _GAP.split(line.strip(" \t"))
        if line.startswith("\\"):
            if inside:
                break
            inside = line.strip() == "\\1-grams:"
        elif inside and len(fields) > 1:
            listed.append(fields[1])
    return listed
