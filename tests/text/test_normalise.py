"""Transcripts of many languages as they are scored: by table, and again without change; units come back from all of them."""

import sys

import pytest

from hfftools.data import datadir
from hfftools.data.repair import normalise_dir
from hfftools.log import UserError
from hfftools.text import units
from hfftools.text.normalise import Options, normalise, unspaced

TABLE = [
    ("en", "“It’s a well-known ‘fact’,” he said… 'tis so!", "it's a well known fact he said tis so"),
    ("en", "U.S.A., İstanbul & 3 cafe\u0301s", "u s a istanbul 3 caf\u00e9s"),
    ("fr", "Ça alors ! L’été, aujourd’hui — est-ce vrai ?", "ça alors l'été aujourd'hui est ce vrai"),
    ("de", "„Größe“ & Straße: ÜBER-Ich", "größe straße über ich"),
    ("tr", "IŞIK, İstanbul’da ılık mı?", "ışık istanbul'da ılık mı"),
    ("ar", "مَرْحَبًا، كيـــف حالُك؟", "مَرْحَبًا كيف حالُك"),
    ("fa", "می\u200cروم\u200c، «خانه»!", "می\u200cروم خانه"),
    ("hi", "नमस्ते, दुनिया। क्\u200dया हाल है?", "नमस्ते दुनिया क्\u200dया हाल है"),
    ("bn", "আমি বাংলায় গান গাই।", "আমি বাংলায় গান গাই"),
    ("zh-CN", "你好，世界！ 我用 iPhone 打電話。", "你好世界我用 iphone 打電話"),
    ("ja", "「東京タワー」は、ＣＤ１０枚。 です", "東京タワーはcd10枚です"),
    ("th", "สวัสดี ครับ ๆ", "สวัสดีครับๆ"),
    ("km", "ភាសា\u200bខ្មែរ ។", "ភាសាខ្មែរ"),
    ("ko", "안녕하세요, 세계!", "안녕하세요 세계"),
    ("he", 'צה״ל ו־ג\'ורג׳, "שלום"', "צהל ו ג׳ורג׳ שלום"),
    ("hy-AM", "Ինչպե՞ս ես։", "ինչպես ես"),
    ("ca", "El col·legi · «avui»", "el col·legi avui"),
    ("el", "Η ΟΔΟΣ;", "η οδος"),
    ("uk", "Сім\u02bcя пʼятниця", "сім'я п'ятниця"),
    ("en", "\ufeffsoft\u00adhyphen \u202bmarks\u202c ❤️ 1️⃣", "softhyphen marks 1"),
    ("en", " — … ?! ", ""),
]


@pytest.mark.parametrize(("language", "written", "spoken"), TABLE)
def test_every_script_by_its_rules_and_once_is_enough(language, written, spoken):
    options = Options(language)
    assert normalise(written, options) == spoken
    assert normalise(spoken, options) == spoken


def test_case_by_language():
    assert normalise("ışık istanbul", Options("tr", case="upper")) == "IŞIK İSTANBUL"
    assert normalise("istanbul", Options("en", case="upper")) == "ISTANBUL"
    assert normalise("I", Options("az")) == "ı" and normalise("I", Options("tk")) == "i"
    assert normalise("Kept As It Is.", Options("en", case="keep")) == "Kept As It Is"
    assert normalise("नमस्ते 你好", Options("", case="upper")) == "नमस्ते 你好"


def test_punctuation_is_kept_where_asked():
    assert normalise("Well-known,  “isn’t it”?", Options("en", punctuation=True)) == "well-known, “isn’t it”?"


@pytest.mark.parametrize(
    ("language", "written", "spoken"),
    [
        ("en", "3.14 and 1,000 on 12.05.20", "three point one four and one thousand on twelve five twenty"),
        ("fr", "10 000 euros, 3,5 %", "dix mille euros trois virgule cinq"),
        ("de", "1.000 und 21", "eintausend und einundzwanzig"),
        ("pt-BR", "21", "vinte e um"),
        ("ja", "第10回", "第十回"),
        ("ar", "١٢", "اثنا عشر"),
    ],
)
def test_numbers_are_spelled_by_language(language, written, spoken):
    pytest.importorskip("num2words", reason="hff[numbers] is not installed")
    assert normalise(written, Options(language, numbers="spell")) == spoken


def test_numbers_without_the_means_are_refused_by_name(monkeypatch):
    with pytest.raises(UserError, match="needs the language"):
        normalise("1", Options("", numbers="spell"))
    for wrong in ({"case": "title"}, {"numbers": "words"}):
        with pytest.raises(UserError, match=f"{next(iter(wrong))}: .* is not one of"):
            Options(**wrong)
    with monkeypatch.context() as without:
        without.setitem(sys.modules, "num2words", None)
        with pytest.raises(UserError, match=r"pip install 'hff\[numbers\]'"):
            normalise("1", Options("en", numbers="spell"))
    pytest.importorskip("num2words", reason="hff[numbers] is not installed")
    with pytest.raises(UserError, match="no language 'fil'"):  # not Finnish
        normalise("1", Options("fil", numbers="spell"))


def test_which_scripts_are_written_without_spaces():
    for text in (
        "你好世界",
        "東京タワー",
        "สวัสดีครับ",
        "ភាសាខ្មែរ",
        "ພາສາລາວ",
        "မြန်မာစာ",
        "我用 iPhone 打電話給他們",
        "བཀྲ་ཤིས་བདེ་ལེགས",
    ):
        assert unspaced([text]), text
    spaced = ("hello", "안녕하세요 세계", "नमस्ते दुनिया", "مرحبا", "the word 你好", "12", "", "ﾡﾢﾣ")
    cut = ("你 好 世 界", "我 用 iPhone 打 電話 給 他們", "བཀྲ ཤིས བདེ ལེགས")
    for text in (*spaced, *cut):
        assert not unspaced([text]), text
    # one text is as good as another, however long it is
    assert unspaced(["你好世界", "再见", "ok", ""]) and not unspaced(["你好世界", "ok"]) and not unspaced([])
    assert not unspaced(["今天天气很好我们去公园散步吧", "an english sentence", "ok"])


@pytest.mark.parametrize("kind", ["char", "bpe"])
@pytest.mark.parametrize("language", ["ar", "he", "zh-CN", "ja", "th", "hi", "tr"])
def test_units_give_back_what_was_normalised(language, kind, tmp_path):
    text = normalise(" ".join(written for name, written, _ in TABLE if name == language), Options(language))
    made = units.train(kind, [text] * 20, 60 if kind == "bpe" else None, tmp_path)
    assert made.decode(made.encode(text)) == text
    assert units.BLANK not in made.encode(text) and units.UNKNOWN not in made.encode(text)


def test_a_data_directory_is_normalised_in_place_and_its_original_kept(folder):
    (folder / "text").write_text(
        "ann-1 The CAT!\nann-2 مرحبا، بك\nbob-1 你好 。\nbob-10 A\nbob-9 …\n", encoding="utf-8"
    )
    assert normalise_dir(folder, Options("en")) == (4, 5)
    assert [(u.id, u.text) for u in datadir.read(folder)] == [
        ("ann-1", "the cat"), ("ann-2", "مرحبا بك"), ("bob-1", "你好"), ("bob-10", "a")
    ]  # fmt: skip
    assert "bob-9 …" in (folder / ".backup" / "text").read_text(encoding="utf-8")
    assert normalise_dir(folder, Options("en")) == (4, 4)
    (folder / "text").write_text("".join(f"{u.id} !\n" for u in datadir.read(folder)))
    with pytest.raises(UserError, match="nothing was changed"):
        normalise_dir(folder, Options("en"))
