"""Text in, the phones of each of its words out: by eSpeak NG's rules for a language, or from a lexicon in Kaldi's form."""

import re
from functools import cached_property
from hashlib import sha256
from importlib.metadata import version
from pathlib import Path

from hfftools.audio.espeak import Espeak
from hfftools.log import UserError

RULES = "espeak:"
_STRESSED = re.compile(r"[A-Z]{2}[012]")  # a vowel of CMUdict
_NUMBER = re.compile(r"\d*\.?\d+(e-?\d+)?")


class Phones:
    """Pronunciations, each word's whatever its neighbours.

    By rule, capitals are read as small letters: corpora in capitals are many, and US would else be spelled out. From a
    lexicon, a word is looked up as it is written.
    """

    def __init__(self, source: str = RULES + "en-us"):
        """`source` is `espeak:LANG`, or a file of `word phone phone …` lines, all with a probability after the word or none.

        Of several pronunciations the first is taken; the stress of CMUdict's vowels (AH0) is dropped. UserError for a
        language that eSpeak NG does not have, a file that cannot be read, and for a line without phones.
        """
        self.source = source
        self._language = source.removeprefix(RULES) if source.startswith(RULES) else None
        if self._language is None:
            self._lexicon = _read(Path(source))
        else:
            self._lexicon = {}  # filled as words are met
            self._by_rule("a")  # refuses an unknown language before any work is done

    def __call__(self, text: str) -> list[tuple[str, list[str]]]:
        """[(word, its phones)] of `text`; by rule, none for what has no sound, such as punctuation.

        UserError counts the words that the lexicon lacks, and names the first.
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
        sounds = any(letter.isalnum() for letter in word)  # eSpeak NG would say "exclamation mark"
        return Espeak().phonemes(word.lower(), self._language) if sounds else []

    @cached_property
    def digest(self) -> str:
        """16 hex digits that tell these pronunciations from others."""
        by_rule = self.source, version("espeakng-loader")
        decides = sorted(self._lexicon.items()) if self._language is None else by_rule
        return sha256(repr(decides).encode()).hexdigest()[:16]


def _read(path: Path) -> dict[str, list[str]]:
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"lexicon {path} cannot be read ({error}); name a file, or {RULES}LANG") from None
    rows = [(number, line.split()) for number, line in enumerate(lines, 1) if line.strip()]
    first = 2 if all(len(row) > 1 and _NUMBER.fullmatch(row[1]) for _, row in rows) else 1
    lexicon: dict[str, list[str]] = {}
    for number, row in rows:
        if len(row) <= first:
            raise UserError(f"{path}:{number}: '{row[0]}' has no phones; mend that line")
        lexicon.setdefault(row[0], [p[:-1] if _STRESSED.fullmatch(p) else p for p in row[first:]])
    if not lexicon:
        raise UserError(f"lexicon {path} is empty; name another, or {RULES}LANG")
    return lexicon
