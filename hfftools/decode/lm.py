"""An ARPA file (gzipped or not) or a KenLM binary in, log probabilities of words or units out; the one door to kenlm."""

import gzip
import json
import math
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hfftools.decode.ngram import BEGIN, END, UNKNOWN, read_texts
from hfftools.log import UserError, require
from hfftools.text.units import Units

LN10 = math.log(10)
GZIP, BINARY = b"\x1f\x8b", b"mmap lm "  # how such files begin


class Ngram:
    """A back-off model. A memory is what it knows of the words before; scores are natural logarithms."""

    def __init__(self, path: Path | str):
        try:
            import kenlm
        except ImportError:
            raise UserError(
                "a language model needs the package kenlm, which is not there; pip install 'hff[lm]'"
            ) from None
        self.path = Path(path)
        require(self.path.is_file(), f"search.lm: {path} is not a file; make one with hff-lm")
        config = kenlm.Config()
        config.show_progress = False
        config.arpa_complain = kenlm.ARPALoadComplain.NONE  # that a binary would load faster
        with _plain(self.path) as plain:
            try:
                self.model = kenlm.Model(str(plain), config)
            except (OSError, RuntimeError) as error:
                raise UserError(f"{path} is no language model that KenLM reads: {str(error).split('(')[0]}") from None
        self._state = kenlm.State
        self.start = self._state()
        self.model.BeginSentenceWrite(self.start)
        self.nowhere = self._state()  # knows nothing of what was before
        self.model.NullContextWrite(self.nowhere)

    def __contains__(self, word: str) -> bool:
        return word in self.model

    def score(self, memory: Any, word: str) -> tuple[Any, float]:
        """What is remembered after `word`, and the log of its probability."""
        after = self._state()
        return after, LN10 * self.model.BaseScore(memory, word, after)

    def end(self, memory: Any) -> float:
        return self.score(memory, END)[1]

    def perplexity(self, sentences: Iterable[list[str]]) -> tuple[float, int, int]:
        """Perplexity of known words and sentence ends; how many words there are, and how many of them unknown."""
        total, words, known, unknown = 0.0, 0, 0, 0
        for sentence in sentences:
            for log10_prob, _, is_unknown in self.model.full_scores(" ".join(sentence)):
                total += 0.0 if is_unknown else LN10 * log10_prob
                known, unknown = known + (not is_unknown), unknown + is_unknown
            words += len(sentence)
        return math.exp(-total / max(known, 1)), words, unknown


@contextmanager
def _plain(path: Path) -> Iterator[Path]:
    """The file itself, or a copy that is not compressed, for as long as it is needed."""
    with open(path, "rb") as file:
        if file.read(2) != GZIP:
            yield path
            return
    with tempfile.TemporaryDirectory() as folder:
        with gzip.open(path) as packed, open(Path(folder) / "lm", "wb") as plain:
            try:
                shutil.copyfileobj(packed, plain)
            except (OSError, EOFError) as error:
                raise UserError(f"{path} cannot be unpacked ({error}); download it again") from None
        yield Path(plain.name)


def of_units(path: Path) -> str | None:
    """The digest of the units that a model of hff-lm is over; None for one of words, or from elsewhere."""
    info = path.parent / "lm.json"
    return json.loads(info.read_text())["units"] if path.name == "lm.arpa" and info.exists() else None


def check_units(ngram: Ngram, units: Units) -> None:
    """UserError unless the model is over these units."""
    made_of = of_units(ngram.path)
    known = [symbol for symbol in units.symbols[2:] if symbol in ngram]
    if made_of != units.digest and (made_of or 2 * len(known) < len(units) - 2):
        raise UserError(
            f"search.lm: without a lexicon {ngram.path} must be over the experiment's units; make it with "
            "hff-lm --units exp/<name>/units, or say search.lexicon=true for one of words"
        )


def words(path: Path) -> list[str]:
    """The words of a list (the first column), of a data directory's text, or of a language model's file."""
    require(path.exists(), f"search.lexicon: {path} does not exist")
    if path.is_dir():
        return sorted({word for text in read_texts(path) for word in text.split(" ")})
    with open(path, "rb") as file:
        head = file.read(len(BINARY))
    if head == BINARY:  # it does not tell its words
        beside = path.parent / "words.txt"
        require(beside.exists(), f"search.lexicon: {path} lists no words, nor does {beside}; name a list of them")
        return words(beside)
    with gzip.open(path, "rt", encoding="utf-8") if head[:2] == GZIP else open(path, encoding="utf-8") as file:
        try:
            first = next((line for line in file if line.strip()), "")
            model = first.strip() == "\\data\\"
            found = _unigrams(file) if model else [line.split()[0] for line in (first, *file) if line.strip()]
        except UnicodeDecodeError:
            raise UserError(f"search.lexicon: {path} is not a UTF-8 list of words") from None
    return sorted(set(found) - {BEGIN, END, UNKNOWN, UNKNOWN.upper()})


def _unigrams(lines: Iterable[str]) -> list[str]:
    found, inside = [], False
    for line in lines:
        if line.startswith("\\"):
            if inside:
                break
            inside = line.strip() == "\\1-grams:"
        elif inside and len(fields := line.split()) > 1:
            found.append(fields[1])
    return found
