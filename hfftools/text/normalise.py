"""Normalise a written transcript to the form that is spoken and scored, by rules for each script; the door to regex.

Letters, marks and digits of every script are kept, in Unicode NFC. The rules for the rest, in this order:

- full-width and half-width forms become the usual ones; invisible characters go, but for joiners inside a word (Persian,
  Indic); the Arabic tatweel goes, which only widens a word;
- digits are kept, or read as cardinals (num2words): `3.14` and `1,000` by the language's own decimal mark, `10 000` too.
  Symbols have no reading: `50 %` becomes `fifty`; ordinals such as `1st` are read as `one st`, so spell those by hand;
- an apostrophe between letters is kept, as ' whatever was typed, and so are the middle dot of Catalan's l·l and the
  Hebrew geresh, as U+05F3; elsewhere an apostrophe is taken for a quotation mark and goes;
- marks that stand inside a word without parting it (Hebrew gershayim, Armenian accents) go without a trace;
- everything else, the hyphen too, becomes a space: `well-known` is two words, as it is said;
- in scripts that are written without spaces between words, spaces go as well, and punctuation leaves none;
- upper or lower case, where the script has one; i and dotless i by the rules of Turkish and its kin.
"""

import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal
from functools import partial

import regex

from hfftools.config import one_of
from hfftools.log import UserError, require

CASES, NUMBERS = ("lower", "upper", "keep"), ("keep", "spell")
DOTTED_I = ("tr", "az", "crh", "gag")
PHRASE = 6  # characters: longer than words of scripts without spaces are, where someone has spaced them apart
DECIMAL_POINT = ("en", "ja", "ko", "th", "zh", "he", "hi", "bn", "am", "ar", "fa")  # the others write a decimal comma

_UNSPACED = r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}ー]"
_JOINED = _UNSPACED[:-1] + r"\p{Tibetan}]"  # not for the rules here: its dot, as a space, keeps syllables apart
_LETTER = r"[\p{L}\p{M}]"
_SPOKEN = r"\p{L}\p{M}\p{N}\u200C\u200D\uE000-\uE002"  # and the stand-ins of the marks that are kept
_WIDTHS = regex.compile(r"[\uFF00-\uFFEF]+")
_INVISIBLE = regex.compile(
    # variation selectors and keycaps are marks by category, but draw emoji rather than words
    r"[\uFE00-\uFE0F\U000E0100-\U000E01EF\p{Me}\u0640]"
    rf"|(?!(?<={_LETTER})[\u200C\u200D](?={_LETTER}))\p{{Cf}}"
)
_SILENT = regex.compile(r'(?<=\p{Hebrew})["\u05F4](?=\p{Hebrew})|[\u055B\u055C\u055E]')
_KEPT = (  # (where it is, its stand-in while the other punctuation goes, what is written for it)
    (regex.compile(r"(?<=\p{Hebrew})(?:\u05F3|['\u2019](?=\p{Hebrew}))"), "\ue002", "\u05f3"),
    (regex.compile(rf"(?<={_LETTER})['\u2019\u2018\u02BC\u02BB\u00B4`](?={_LETTER})"), "\ue000", "'"),
    (regex.compile(r"(?<=l)·(?=l)", regex.IGNORECASE), "\ue001", "·"),
)
_UNSPACED_MARKS = regex.compile(rf"(?<={_UNSPACED}\p{{M}}*)[^{_SPOKEN}\s]+|[^{_SPOKEN}\s]+(?={_UNSPACED})")
_OTHER = regex.compile(rf"[^{_SPOKEN}]+")
_SPACE_INSIDE = regex.compile(rf"(?<={_UNSPACED}\p{{M}}*)\s+(?={_UNSPACED})")
_SPACE_BETWEEN = regex.compile(rf"(?<={_JOINED}\p{{M}}*)\s+(?={_JOINED})")
_GROUPS = regex.compile(r"(?<!\d)\d{1,3}(?:[\u00A0\u202F]\d{3})+(?!\d)")
_GROUPS_SPACED = regex.compile(r"(?<!\d)\d{1,3}(?:[ \u00A0\u202F]\d{3})+(?!\d)")
_NUMBER = regex.compile(r"\d+(?:[.,]\d+)*")


@dataclass(frozen=True)
class Options:
    """Configure how transcripts are normalised."""

    language: str = ""  # ISO code such as tr or zh-CN, for numbers=spell and for the dotless i of Turkish; empty: none
    case: str = "lower"  # lower, upper or keep
    punctuation: bool = False  # true: keep punctuation, including hyphens and quotation marks
    numbers: str = (
        "keep"  # keep digits, or spell them out as words, which needs pip install 'hff[numbers]' and language
    )

    def __post_init__(self):
        one_of(self, CASES, "case")
        one_of(self, NUMBERS, "numbers")


def normalise(text: str, options: Options) -> str:
    """Return `text` by the rules above, empty if it has no letter and no digit; a second call changes nothing."""
    text = _WIDTHS.sub(lambda match: unicodedata.normalize("NFKC", match[0]), text)
    text = _INVISIBLE.sub("", unicodedata.normalize("NFC", text))
    if options.numbers == "spell":
        text = _spell(text, options.language)
    if not options.punctuation:
        text = _SILENT.sub("", text)
        for place, stand_in, _ in _KEPT:
            text = place.sub(stand_in, text)
        text = _OTHER.sub(" ", _UNSPACED_MARKS.sub("", text))
        for _, stand_in, mark in _KEPT:
            text = text.replace(stand_in, mark)
    text = _cased(_SPACE_INSIDE.sub("", text), options)
    return unicodedata.normalize("NFC", " ".join(text.split()))


def unspaced(texts: Iterable[str]) -> bool:
    """Return whether words cannot be counted in more than half of the texts that are not empty; False if all are empty.

    In such a text most letters are of a script that is written without spaces between words (Chinese, Japanese, Thai, Lao,
    Khmer, Burmese, Tibetan), and its spaces separate phrases. A text that was split into words is not unspaced.
    """
    spoken = [text for text in texts if text.split()]
    return 2 * sum(map(_joined, spoken)) > len(spoken)


def _joined(text: str) -> bool:
    ours = len(regex.findall(rf"(?=\p{{L}}){_JOINED}", text))
    if 2 * ours <= len(regex.findall(r"\p{L}", text)):
        return False
    spaces = len(_SPACE_BETWEEN.findall(text))  # a space next to a foreign word or a comma proves nothing
    return spaces == 0 or len(regex.findall(_JOINED, text)) >= PHRASE * (spaces + 1)


def _base(language: str) -> str:
    return language.replace("_", "-").partition("-")[0].lower()


def _cased(text: str, options: Options) -> str:
    dotted = _base(options.language) in DOTTED_I
    if options.case == "lower":
        if dotted:
            text = text.replace("I", "ı")
        # elsewhere Python would leave a combining dot above on the i of a Turkish name
        return text.replace("İ", "i").lower()
    if options.case == "upper":
        return (text.replace("i", "İ") if dotted else text).upper()
    return text


def _speller(language: str):
    """Return num2words for a language; raise UserError if it is not installed or does not know the language."""
    require(bool(language), "numbers=spell needs the language, such as language=fr")
    try:
        import num2words
    except ImportError as error:
        fix = "pip install 'hff[numbers]', or say numbers=keep"
        raise UserError(f"numbers=spell needs num2words ({error}): {fix}") from None
    # checked here, since num2words itself goes by the first two letters and would take `fil` for Finnish
    for code in (language.replace("-", "_"), _base(language)):
        if code in num2words.CONVERTER_CLASSES:
            return partial(num2words.num2words, lang=code)
    known = ", ".join(sorted(num2words.CONVERTER_CLASSES))
    raise UserError(f"numbers=spell: num2words has no language '{language}' (known: {known}); say numbers=keep")


def _spell(text: str, language: str) -> str:
    say, point = _speller(language), _base(language) in DECIMAL_POINT
    text = (_GROUPS if point else _GROUPS_SPACED).sub(lambda match: regex.sub(r"\s", "", match[0]), text)
    return _NUMBER.sub(lambda match: f" {_read_out(match[0], say, '.' if point else ',')} ", text)


def _read_out(number: str, say, decimal: str) -> str:
    whole, _, fraction = number.partition(decimal)
    first, *groups = regex.split("[.,]", whole)
    try:
        if all(len(group) == 3 for group in groups) and (fraction.isdigit() or not fraction):
            value = int(first + "".join(groups))
            return say(Decimal(f"{value}.{fraction}")) if fraction else say(value)
        return " ".join(say(int(part)) for part in regex.split("[.,]", number))  # a date, a version
    except (OverflowError, IndexError):  # longer than the language has names for
        return " ".join(say(int(digit)) for digit in number if digit.isdigit())
