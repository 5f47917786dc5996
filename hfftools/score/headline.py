"""References in, the error rate that a reader should look at first out: WER, or CER where words are not spaced apart."""

import unicodedata
from collections.abc import Iterable

# first words of Unicode's names of letters in scripts that put no space between words
SCRIPTS = {"CJK", "IDEOGRAPHIC", "HIRAGANA", "KATAKANA", "HALFWIDTH", "THAI", "LAO", "KHMER", "MYANMAR", "TIBETAN"}
PHRASE = 6  # letters: longer than words of these scripts are, where someone has spaced them apart


def headline(refs: Iterable[str]) -> str:
    """ "cer" where more than half of the references that have text are unspaced, else "wer".

    Unspaced: most letters are of a script without spaces between words, and what spaces there are part phrases, not
    words. A text that was cut into words beforehand has word errors worth reading, and Korean is spaced as it is.
    """
    spoken = [ref for ref in refs if ref.split()]
    return "cer" if 2 * sum(map(_unspaced, spoken)) > len(spoken) else "wer"


def _unspaced(text: str) -> bool:
    letters = [c for c in text if c.isalpha()]
    ours = sum(unicodedata.name(c, "").partition(" ")[0].partition("-")[0] in SCRIPTS for c in letters)
    parts = text.split()
    return 2 * ours > len(letters) and (len(parts) == 1 or sum(map(len, parts)) >= PHRASE * len(parts))
