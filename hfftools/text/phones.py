"""Convert text to phones, word by word, with eSpeak NG's rules for a language or with a lexicon in Kaldi format."""

import re
from functools import cached_property
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path

from hfftools.audio.espeak import Espeak
from hfftools.log import UserError
from hfftools.textfile import read_lines

RULES = "espeak:"
_STRESSED = re.compile(r"[A-Z]{2}[012]")  # a vowel of CMUdict
_NUMBER = re.compile(r"\d*\.?\d+(e-?\d+)?")


class Phones:
    """Look up the pronunciation of each word, independent of its context.

    With rules, words are lower-cased first: many corpora are upper case, and eSpeak NG would spell out US. In a lexicon,
    a word is looked up exactly as it is written.
    """

    def __init__(self, source: str = RULES + "en-us"):
        """Use `source`: `espeak:LANG`, or a lexicon file with lines `word phone phone …`.

        Either every line has a probability after the word, or none has. The first of several pronunciations is used, and
        the stress digit of CMUdict vowels (AH0) is removed. Raise UserError if eSpeak NG does not have the language, or
        if the file cannot be read or has a line without phones.
        """
        self.source = source
        self._language = source.removeprefix(RULES) if source.startswith(RULES) else None
        if self._language is None:
            self._lexicon = _read(Path(source))
        else:
            self._lexicon = {}  # a cache, filled by __call__
            self._by_rule("a")  # raise UserError early if the language is unknown

    def __call__(self, text: str) -> list[tuple[str, list[str]]]:
        """Return [(word, phones)] of `text`; with rules, a token without sound, such as punctuation, has no phones.

        Raise UserError with the number of words missing from the lexicon and the first few of them.
        """
        words = text.split()
        if self._language is not None:
            self._lexicon |= {word: self._by_rule(word) for word in set(words) - self._lexicon.keys()}
        missing = [word for word in dict.fromkeys(words) if word not in self._lexicon]
        if missing:
            raise UserError(
                f"{self.source}: {len(missing)} words are missing, first {' '.join(missing[:5])}; "
                f"add them as the text writes them, or take {RULES}LANG"
            )
        return [(word, self._lexicon[word]) for word in words]

    def _by_rule(self, word: str) -> list[str]:
        has_sound = any(letter.isalnum() for letter in word)  # eSpeak NG would say "exclamation mark"
        return Espeak().phonemes(word.lower(), self._language or "") if has_sound else []

    @cached_property
    def digest(self) -> str:
        """Return 16 hex digits that identify this set of pronunciations."""
        by_rule = self.source, version("espeakng-loader")
        decides = sorted(self._lexicon.items()) if self._language is None else by_rule
        return sha256(repr(decides).encode()).hexdigest()[:16]


def _read(path: Path) -> dict[str, list[str]]:
    try:
        rows = [(number, line.split()) for number, line in enumerate(read_lines(path), 1) if line.strip()]
    except UserError as error:
        raise UserError(f"phones: {error}; name a lexicon, or {RULES}LANG") from None
    first = 2 if all(len(row) > 1 and _NUMBER.fullmatch(row[1]) for _, row in rows) else 1
    lexicon: dict[str, list[str]] = {}
    for number, row in rows:
        if len(row) <= first:
            raise UserError(f"{path}:{number}: '{row[0]}' has no phones; correct that line")
        lexicon.setdefault(row[0], [p[:-1] if _STRESSED.fullmatch(p) else p for p in row[first:]])
    if not lexicon:
        raise UserError(f"lexicon {path} is empty; name another, or {RULES}LANG")
    return lexicon
