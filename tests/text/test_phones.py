"""Phones of words: by eSpeak NG's rules and from lexicons of either form; what cannot be looked up is named."""

import pytest

from hfftools.audio.espeak import Espeak
from hfftools.log import UserError
from hfftools.text.phones import Phones


@pytest.fixture
def lexicon(tmp_path):
    def write(text: str) -> str:
        (tmp_path / "lexicon.txt").write_text(text, encoding="utf-8")
        return str(tmp_path / "lexicon.txt")

    return write


@pytest.mark.parametrize(
    "word, voice, phones",
    [
        ("cat", "en-us", "k æ t"),
        ("choose", "en-us", "tʃ uː z"),  # an affricate is one phone, and so is a long vowel
        ("hello, world", "en-us", "h ə l oʊ w ɜː l d"),  # two clauses
        ("42", "en-us", "f ɔːɹ ɾ i t uː"),
        ("weekend", "de", "v eː k ə n t"),
        ("chat", "de", "tʃ a t"),  # read as English, which eSpeak NG marks
        ("привет", "ru", "p rʲ i vʲ e t"),
        ("...", "en-us", ""),
        ("", "en-us", ""),
    ],
)
def test_phonemes_of_a_voice(word, voice, phones):
    assert Espeak().phonemes(word, voice) == phones.split()


def test_an_unknown_language_is_refused_at_once():
    with pytest.raises(UserError, match="no voice 'xx'; it has en-us, "):
        Phones("espeak:xx")


def test_words_by_rule():
    phones = Phones()
    assert phones("the CAT - sat") == [
        ("the", ["ð", "ə"]),
        ("CAT", ["k", "æ", "t"]),
        ("-", []),
        ("sat", ["s", "æ", "t"]),
    ]
    assert phones("US") == [("US", phones("us")[0][1])]
    assert phones("") == []


def test_words_of_a_lexicon(lexicon):
    phones = Phones(lexicon("A AH0\nA EY1\nTOMATO T AH0 M EY1 T OW2\n\nTOMATO T AH0 M AA1 T OW2\n"))
    assert phones("A TOMATO A") == [("A", ["AH"]), ("TOMATO", "T AH M EY T OW".split()), ("A", ["AH"])]


def test_probabilities_are_passed_over_where_every_line_has_one(lexicon):
    assert Phones(lexicon("a 1.0 ə\nb 0.5 b iː\n"))("b") == [("b", ["b", "iː"])]
    assert Phones(lexicon("a ə\nb 5 iː\n"))("b") == [("b", ["5", "iː"])]  # a tone, or what the lexicon calls a phone


def test_missing_words_are_counted_and_named(lexicon):
    phones = Phones(lexicon("the ð ə\n"))
    with pytest.raises(UserError, match=r"lexicon\.txt: 2 words are missing, first cat sat; add them"):
        phones("the cat sat the cat")


@pytest.mark.parametrize("text, message", [("a ə\nb\n", r"lexicon\.txt:2: 'b' has no phones"), ("\n", "is empty")])
def test_a_bad_lexicon_is_refused(lexicon, text, message):
    with pytest.raises(UserError, match=message):
        Phones(lexicon(text))


def test_a_lexicon_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(UserError, match="is missing; name a lexicon, or espeak:LANG"):
        Phones(str(tmp_path / "none.txt"))


def test_the_digest_follows_what_decides(lexicon):
    one, same, other = (Phones(lexicon(text)).digest for text in ("a ə\nb b\n", "b b\na ə\na eɪ\n", "a eɪ\nb b\n"))
    assert one == same != other
    assert Phones().digest == Phones("espeak:en-us").digest != Phones("espeak:de").digest
    assert len(one) == len(Phones().digest) == 16


def test_what_has_no_letter_has_no_sound():
    assert Phones()("hi !? —") == [("hi", Phones()("hi")[0][1]), ("!?", []), ("—", [])]
