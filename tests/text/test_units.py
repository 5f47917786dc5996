"""Units: what is encoded comes back, ids keep their meaning, and a folder is whole or refused."""

import copy
import pickle
import random

import pytest

from hfftools.log import UserError
from hfftools.text import units

ODD_TEXTS = [
    "the cat \u2581 sat",  # the mark that sentencepiece writes for a space
    "\u2585 \u2047 \uf8ff \U000f0000 \U0010ffff \ufeff \ufffd",  # its other marks, and private characters
    "مرحبا بالعالم می\u200cخواهم",
    "e\u0301 a\u0308 é ä",  # the same letters, composed and not: neither turns into the other
    "👨\u200d👩\u200d👧 你好 世界",
    "ａｂｃ ﬁ ① İ ß",  # all of which NFKC or case folding would change
    "a\u00a0b x\u3000y\u2028z",  # white space that is not a space is a character like any other
    "a\tb \x00n \x01 \r \x7f \x85",
    "<unk> <s> </s> <blk> <pad> <space>",
    "你好世界" * 600,
    "z" * 5000,
    "Ж" + " ab" * 3000 + " Ю",
]
KINDS_AND_SIZES = [("char", None), ("bpe", 3), ("bpe", 120), ("unigram", 3), ("unigram", 120)]


@pytest.fixture(scope="module")
def english():
    rng = random.Random(0)
    words = "turn switch the kitchen lights heating on off please set timer for ten twenty minutes in london".split()
    return [" ".join(rng.choices(words, k=rng.randint(1, 9))) for _ in range(400)]


@pytest.mark.parametrize(("kind", "size"), KINDS_AND_SIZES)
def test_every_text_comes_back_from_the_stored_units(tmp_path, kind, size):
    units.train(kind, ODD_TEXTS, size, tmp_path)
    loaded = units.load(tmp_path)
    for text in ODD_TEXTS:
        ids = loaded.encode(text)
        assert loaded.decode(ids) == text
        assert units.BLANK not in ids and units.UNKNOWN not in ids
        assert loaded.unknown(text) == []


@pytest.mark.parametrize("kind", ["char", "bpe", "unigram"])
def test_random_unicode_comes_back(tmp_path, kind):
    rng = random.Random(1)
    planes = [(0x20, 0x7F), (0, 0x3000), (0xE000, 0x110000)]

    def word():
        return "".join(chr(rng.randrange(*rng.choice(planes))) for _ in range(rng.randint(1, 12))).replace(" ", "")

    for trial in range(8):
        texts = [" ".join(filter(None, (word() for _ in range(rng.randint(1, 6))))) for _ in range(6)]
        trained = units.train(kind, texts, None if kind == "char" else rng.choice((1, 40, 400)), tmp_path / str(trial))
        assert [trained.decode(trained.encode(t)) for t in texts] == texts
        assert len(set(trained.symbols)) == len(trained)


@pytest.mark.parametrize("kind", ["char", "bpe", "unigram"])
def test_unknown_characters_are_id_1_and_are_named(tmp_path, kind):
    trained = units.train(kind, ["ab ba"], None, tmp_path)
    assert trained.unknown("Ωa qΩ b") == ["Ω", "q"]
    ids = trained.encode("aΩb")
    assert ids.count(units.UNKNOWN) == 1 and units.BLANK not in ids
    assert trained.decode(ids) == "a\u2047b"
    # an error rate over units sees an unknown unit again as itself
    assert trained.encode(trained.decode(ids)) == ids
    # a character that only stands in for an odd one inside the model is not known from that
    odd = units.train(kind, ["a\tb"], None, tmp_path / "odd")
    assert odd.unknown("\U000f0000") == ["\U000f0000"] and units.UNKNOWN in odd.encode("a\U000f0000b")


@pytest.mark.parametrize("kind", ["char", "bpe", "unigram"])
def test_any_ids_read_as_single_spaced_words(tmp_path, english, kind):
    trained = units.train(kind, english, None, tmp_path)
    rng = random.Random(0)
    for _ in range(200):
        text = trained.decode(rng.choices(range(len(trained)), k=rng.randint(0, 30)))
        assert text == " ".join(text.split())
    assert trained.decode([]) == trained.decode([units.BLANK] * 3) == ""
    assert trained.encode("") == []
    assert trained.encode("  turn   the ") == trained.encode("turn the")


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
def test_a_word_has_the_same_pieces_wherever_it_stands(tmp_path, english, kind):
    trained = units.train(kind, english, 60, tmp_path)
    assert trained.encode("kitchen kitchen") == 2 * trained.encode("kitchen")


def test_ids_are_blank_unknown_then_symbols_as_listed(tmp_path):
    trained = units.train("char", ["b\ta é"], None, tmp_path)
    assert trained.symbols == ["<blank>", "<unk>", "<space>", "<U+0009>", "a", "b", "é"]
    assert trained.kind == "char" and len(trained) == 7
    lines = (tmp_path / "units.txt").read_text(encoding="utf-8").splitlines()
    assert lines == [f"{symbol} {id}" for id, symbol in enumerate(trained.symbols)]


def test_symbols_are_free_of_white_space_and_each_is_one_unit(tmp_path):
    texts = ["x<U+0009> y<U+0009> z<U+0009> a\t b\t\t <unk>\t", "\u2581a a", "<blank> <space> \u200d"] * 5
    for kind, size in KINDS_AND_SIZES:
        trained = units.train(kind, texts, size, tmp_path / f"{kind}{size}")
        assert len(set(trained.symbols)) == len(trained)
        assert all(len(symbol.split()) == 1 and symbol.isprintable() for symbol in trained.symbols)


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
def test_size_is_kept_raised_or_lowered(tmp_path, english, kind):
    characters = len({c for text in english for c in text})  # the space is among them
    assert len(units.train(kind, english, 35, tmp_path / "35")) == 35
    assert len(units.train(kind, english, 5, tmp_path / "5")) == characters + 2
    large = units.train(kind, english, 100000, tmp_path / "large")
    assert characters + 2 < len(large) < 100000


def test_size_changes_are_logged(tmp_path, english, capsys):
    from hfftools.log import setup_logging

    setup_logging()
    units.train("bpe", english, 5, tmp_path / "a")
    assert "size 5 raised to" in capsys.readouterr().err
    units.train("bpe", english, 100000, tmp_path / "b")
    assert "not 100000" in capsys.readouterr().err
    units.train("char", english, 100, tmp_path / "c")
    assert "size 100 has no effect" in capsys.readouterr().err


@pytest.mark.parametrize(("kind", "size"), KINDS_AND_SIZES)
def test_the_same_text_gives_the_same_files(tmp_path, english, kind, size):
    for name in "ab":
        units.train(kind, iter(english), size, tmp_path / name)
    files = [p.name for p in (tmp_path / "a").iterdir()]
    assert {"units.txt", "units.json"} <= set(files)
    assert all((tmp_path / "a" / f).read_bytes() == (tmp_path / "b" / f).read_bytes() for f in files)


def test_copies_encode_alike(tmp_path, english):
    trained = units.train("bpe", english, 60, tmp_path / "a")
    trained.save(tmp_path / "b")
    for other in (copy.deepcopy(trained), pickle.loads(pickle.dumps(trained)), units.load(tmp_path / "b")):
        assert [other.encode(t) for t in english] == [trained.encode(t) for t in english]
        assert other.encode("the Ω") == trained.encode("the Ω")


@pytest.mark.parametrize("name", ["units.json", "units.txt", "sentencepiece.model"])
@pytest.mark.parametrize("harm", ["remove", "cut", "edit"])
def test_a_damaged_folder_is_refused_by_name(tmp_path, english, name, harm):
    units.train("bpe", english, 60, tmp_path)
    path = tmp_path / name
    if harm == "remove":
        path.unlink()
    else:
        content = path.read_bytes()
        path.write_bytes(content[: len(content) // 2] if harm == "cut" else content.replace(b"k", b"q"))
    with pytest.raises(UserError, match=f"{tmp_path}/.*hff-units"):
        units.load(tmp_path)


@pytest.mark.parametrize("content", ["[]", "{}", "null", '{"kind": "char"}'])
def test_units_json_of_another_shape_is_refused(tmp_path, content):
    units.train("char", ["ab"], None, tmp_path)
    (tmp_path / "units.json").write_text(content)
    with pytest.raises(UserError, match="units.json is damaged"):
        units.load(tmp_path)


@pytest.mark.parametrize("kind", ["char", "bpe"])
def test_a_kill_while_units_are_replaced_leaves_old_refused_or_new(tmp_path, english, kind, monkeypatch):
    units.train(kind, english, None, tmp_path)

    def killed(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(units, "write_json", killed)
    with pytest.raises(KeyboardInterrupt):
        units.train(kind, ["other TEXT"], None, tmp_path)
    with pytest.raises(UserError, match="hff-units"):
        units.load(tmp_path)


def test_make_skips_what_is_whole_and_rebuilds_what_is_not(tmp_path, english):
    def stamps():
        return {p.name: p.stat().st_mtime_ns for p in tmp_path.iterdir()}

    units.make("bpe", english, 60, tmp_path)
    before = stamps()
    units.make("bpe", iter(english), 60, tmp_path)
    assert stamps() == before
    assert units.make("bpe", [*english, "Z"], 60, tmp_path).unknown("Z") == []
    assert len(units.make("bpe", english, 50, tmp_path)) == 50
    assert units.make("char", english, None, tmp_path).kind == "char"
    (tmp_path / "units.json").write_text("half")
    units.make("char", english, None, tmp_path)
    assert units.load(tmp_path).kind == "char"


@pytest.mark.parametrize(
    ("kind", "texts", "size", "words"),
    [
        ("bpe", [], None, "no text"),
        ("char", ["", " "], None, "no text"),
        ("words", ["a"], None, "'words' is not one of char, bpe, unigram"),
    ],
)
def test_mistakes_are_named(tmp_path, kind, texts, size, words):
    with pytest.raises(UserError, match=words):
        units.train(kind, texts, size, tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("size", "words"), [(0, "size 0 is not above 0"), (-5, "size -5"), (10**10, "cannot learn bpe")]
)
def test_a_size_that_no_inventory_has_is_refused(tmp_path, english, size, words):
    with pytest.raises(UserError, match=words):
        units.make("bpe", english, size, tmp_path / "units")
    assert not (tmp_path / "units").exists()


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(UserError, match=f"{tmp_path}/no/units.json"):
        units.load(tmp_path / "no")
