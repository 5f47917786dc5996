"""Kneser-Ney: probabilities sum to one after any history, and are those worked out by hand."""

import gzip
import math

import pytest

from hfftools.decode import ngram
from hfftools.log import UserError
from hfftools.text import units

TEXTS = ["a b a", "a b c", "b a", "c c a b", "d"]


def ngrams(path):
    pytest.importorskip("kenlm", reason="kenlm is not there: pip install 'hff[lm]'")
    from hfftools.decode.lm import Ngram

    return Ngram(path)


def after(model, history):
    memory = model.start
    for word in history:
        memory, _ = model.score(memory, word)
    return memory


@pytest.mark.parametrize("order", [2, 3, 5])
def test_probabilities_sum_to_one_after_any_history(tmp_path, order):
    model = ngrams(ngram.make(TEXTS, order, None, tmp_path))
    words = [*(tmp_path / "words.txt").read_text().split(), "</s>", "<unk>"]
    assert words[:4] == ["a", "b", "c", "d"]
    for history in ([], ["a"], ["a", "b"], ["c", "c"], ["d", "d", "a"], ["never", "a"]):
        total = sum(math.exp(model.score(after(model, history), word)[1]) for word in words)
        assert total == pytest.approx(1, abs=1e-5), history


def test_probabilities_by_hand():
    """Two sentences `a b` and `a`: discounts fall back to 0.5, 1, 1.5."""
    one, two = ngram.estimate([["a", "b"], ["a"]], 2)
    # continuation counts: a follows <s>; b follows a; </s> follows b and a; uniform over a, b, </s>, <unk>
    freed = 0.5 + 0.5 + 1.0
    assert one[("a",)][0] == pytest.approx((1 - 0.5 + freed / 4) / 4)
    assert one[("</s>",)][0] == pytest.approx((2 - 1 + freed / 4) / 4)
    assert one[("<unk>",)][0] == pytest.approx(freed / 4 / 4)
    assert two[("<s>", "a")][0] == pytest.approx((2 - 1) / 2 + 1 / 2 * one[("a",)][0])
    assert one[("a",)][1] == pytest.approx((0.5 + 0.5) / 2)


def test_the_order_matters_and_is_cut_to_what_the_text_has(tmp_path):
    assert len(ngram.estimate([["a"]], 5)) == 3
    texts = ["a b c x", "d b c y", "a c b y", "d c b x"] * 5
    perplexities = []
    for order in (2, 3, 4):
        model = ngrams(ngram.make(texts, order, None, tmp_path / str(order)))
        perplexities.append(model.perplexity([text.split() for text in texts])[0])
    assert perplexities[0] > perplexities[1] > perplexities[2]
    assert model.perplexity([["a", "zzz"]])[1:] == (2, 1)


def test_it_is_made_once_of_the_same_text(tmp_path):
    path = ngram.make(TEXTS, 2, None, tmp_path)
    stamp = path.stat().st_mtime_ns
    assert ngram.make(TEXTS, 2, None, tmp_path).stat().st_mtime_ns == stamp
    assert ngram.make(TEXTS[1:], 2, None, tmp_path).stat().st_mtime_ns != stamp
    with pytest.raises(UserError, match="marks a sentence's edge"):
        ngram.make(["a </s>"], 2, None, tmp_path)
    for order in (0, 1, 7, 9):
        with pytest.raises(UserError, match=f"order {order} is not from 2 to 6, the orders that KenLM reads"):
            ngram.make(TEXTS, order, None, tmp_path)
    with pytest.raises(UserError, match="no text"):
        ngram.make([], 2, None, tmp_path)


def test_files_of_others_are_read_gzipped_too_and_their_words_listed(tmp_path):
    path = ngram.make(["שלום עולם", "你好", "e\u0301t\u00e9 n'est"], 2, None, tmp_path)
    packed = tmp_path / "3-gram.arpa.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    one, other = ngrams(path), ngrams(packed)
    from hfftools.decode import lm

    assert lm.words(packed) == lm.words(path) == lm.words(tmp_path / "words.txt")
    assert "עולם" in lm.words(packed)
    assert one.score(one.start, "你好")[1] == other.score(other.start, "你好")[1]
    with pytest.raises(UserError, match="is not a file; make one with hff-lm"):
        lm.Ngram(tmp_path / "nothing")


def test_the_highest_order_is_read_and_kenlm_says_why_it_refuses_a_file(tmp_path, monkeypatch):
    sentence = "a b c d e f g h i"
    content = ngrams(ngram.make([sentence], 6, None, tmp_path)).path.read_text()
    monkeypatch.setattr(ngram, "KENLM_ORDERS", (2, 9))
    seventh = ngram.make([sentence], 7, None, tmp_path / "7").read_text()
    for broken, reason in (
        (b"no model", 'first non-empty line was "no model" not'),
        (seventh.encode(), "This model has order 7 but KenLM was compiled to support up to 6;"),
        (content[: len(content) // 2].encode(), "End of file in the 3-gram"),
        (content.replace("\ta", " a").encode(), "Expected tab after probability in the 1-gram at byte"),
        (content.replace("\tb\t", "\ta\t").encode(), "Word b was not seen in the unigrams"),
        (content.encode("utf-16"), "can't decode byte"),
        (b"", "End of file"),
    ):
        (tmp_path / "broken.arpa").write_bytes(broken)
        with pytest.raises(UserError, match=f"broken.arpa is no language model that KenLM reads: .*{reason}") as caught:
            ngrams(tmp_path / "broken.arpa")
        assert not {"\n", "threw", "lm/", "cmake"} & set(str(caught.value).replace(str(tmp_path), "").split())


def test_over_units(tmp_path):
    made = units.train("bpe", ["the light", "the lights"], 16, tmp_path / "units")
    model = ngrams(ngram.make(["the light"], 3, made, tmp_path / "lm"))
    assert made.symbols[made.encode("the")[0]] in model
    from hfftools.decode import lm

    lm.check_units(model, made)
    with pytest.raises(UserError, match="hff-lm --units"):
        lm.check_units(model, units.train("char", ["xyz"], None, tmp_path / "other"))
    with pytest.raises(
        UserError, match="2 of 2 words cannot be spelled with .*, first: LIGHT, THE; 2 of them fit in another"
    ):
        ngram.make(["THE LIGHT"], 3, made, tmp_path / "lm")


def test_discounts_are_those_of_chen_and_goodman():
    """Check D_k = k - (k + 1) Y n_(k+1) / n_k with Y = n_1 / (n_1 + 2 n_2), over 20, 8, 5 and 2 counts of 1 to 4."""
    y = 20 / (20 + 2 * 8)
    wanted = (1 - 2 * y * 8 / 20, 2 - 3 * y * 5 / 8, 3 - 4 * y * 2 / 5)
    assert ngram._discounts([1] * 20 + [2] * 8 + [3] * 5 + [4] * 2) == pytest.approx(wanted)


def test_perplexity_is_over_words_and_ends_of_sentences(tmp_path):
    model, logs = ngrams(ngram.make(TEXTS, 2, None, tmp_path)), []
    for word, history in (("a", []), ("b", ["a"]), ("</s>", ["a", "b"]), ("d", []), ("</s>", ["d"])):
        logs.append(model.score(after(model, history), word)[1])
    assert model.perplexity([["a", "b"], ["d"]])[0] == pytest.approx(math.exp(-sum(logs) / 5), rel=1e-5)
