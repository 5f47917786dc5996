"""Prefix beam search: equal to summing over all alignments, and true to its lexicon, language model and times."""

import itertools
import math
from types import SimpleNamespace

import pytest
import torch

from hfftools.decode import beam, greedy, ngram
from hfftools.decode.grammar import Grammar
from hfftools.decode.hypothesis import runs
from hfftools.decode.search import Search, configure
from hfftools.log import UserError
from hfftools.text import units


def posteriors(made, text_or_ids, sharp=6.0, seed=0, frames=2):
    """Log posteriors [1, T, U] that say these units, each for so many frames with a blank after it."""
    ids = made.encode(text_or_ids) if isinstance(text_or_ids, str) else text_or_ids
    path = [unit for id in ids for unit in (*[id] * frames, 0)]
    logits_TU = torch.randn(len(path), len(made), generator=torch.Generator().manual_seed(seed))
    logits_TU[torch.arange(len(path)), torch.tensor(path)] += sharp
    return logits_TU.log_softmax(-1)[None]


def best(made, log_probs, **options):
    found = beam.BeamSearch(made, Search("beam", **options))(log_probs, torch.tensor([log_probs.shape[1]]))
    return found[0]


@pytest.fixture(params=["char", "bpe", "unigram"])
def english(request, tmp_path):
    texts = ["the light is on", "turn the lights off", "one five five nine", "on five light turns"]
    return units.train(request.param, texts, 28, tmp_path / "units")


@pytest.mark.parametrize("seed", range(4))
def test_it_sums_over_all_alignments(tmp_path, seed):
    made = units.train("char", ["ab"], None, tmp_path)
    log_probs = (torch.randn(6, len(made), generator=torch.Generator().manual_seed(seed)) * 1.5).log_softmax(-1)
    sums = {}
    for path in itertools.product(range(len(made)), repeat=6):
        ids = tuple(unit for unit, _ in itertools.groupby(path) if unit)
        sums[ids] = sums.get(ids, 0.0) + math.exp(sum(log_probs[t, u].item() for t, u in enumerate(path)))
    grammar = Grammar(made, None, None, 0.0, 0.0)
    found = beam.search(log_probs, grammar, 10**5, len(made))
    ranked = sorted(sums.items(), key=lambda item: -item[1])
    for (ids, score), (true_ids, total) in zip(found[:50], ranked, strict=False):
        assert tuple(ids) == true_ids and score == pytest.approx(math.log(total), abs=1e-5)


def test_a_beam_of_one_is_greedy_where_posteriors_are_sharp_and_a_wider_one_is_no_worse(english):
    for seed in range(3):
        log_probs = posteriors(english, "turn the light five five", 12.0, seed)
        lens = torch.tensor([log_probs.shape[1]])
        ((path,),) = greedy.hypotheses(log_probs, lens, english)
        (narrow,) = best(english, log_probs, beam_size=1)
        assert narrow.text == path.text == "turn the light five five" and narrow.words == path.words
        blurred = posteriors(english, "turn the light", 1.0, seed)
        ((path,),) = greedy.hypotheses(blurred, torch.tensor([blurred.shape[1]]), english)
        assert best(english, blurred)[0].score >= path.score


def test_a_lexicon_admits_its_words_only(english, tmp_path):
    (tmp_path / "words").write_text("the\nlight\nfive 3\noff\n")
    for seed in range(3):
        for text, sharp in (("the lights on", 3.0), ("nine turn", 1.0)):
            found = best(english, posteriors(english, text, sharp, seed), lexicon=str(tmp_path / "words"), nbest=5)
            assert all(set(h.text.split()) <= {"the", "light", "five", "off"} for h in found)
    whole = "five five the light"
    assert best(english, posteriors(english, whole), lexicon=str(tmp_path / "words"))[0].text == whole
    (tmp_path / "words").write_text("öö\n")
    with pytest.raises(UserError, match="search.lexicon: 1 of 1 words cannot be spelled with .*, first: öö; use a lex"):
        best(english, posteriors(english, whole), lexicon=str(tmp_path / "words"))
    (tmp_path / "words").write_text("\n")
    with pytest.raises(UserError, match="search.lexicon: it has no words"):
        best(english, posteriors(english, whole), lexicon=str(tmp_path / "words"))


def test_words_that_do_not_fit_the_units_are_counted_and_named(english, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr("hfftools.log.log.propagate", True)
    listing, log_probs = tmp_path / "words", posteriors(english, "the light")
    listing.write_text("the\nlight\nöö\nzoo\n")
    best(english, log_probs, lexicon=str(listing))
    assert "2 of 4 words cannot be spelled with the experiment's units, first: zoo, öö; use" in caplog.text
    listing.write_text("The\nLIGHT\noff\nzoo\nLight\n")
    message = "4 of 5 words .*, first: LIGHT, Light, The, zoo; 3 of them fit in another case: set search.fold_case"
    with pytest.raises(UserError, match=message):
        best(english, log_probs, lexicon=str(listing))
    assert best(english, log_probs, lexicon=str(listing), fold_case=True)[0].text == "the light"


def test_a_language_model_in_another_case_is_refused_or_folded(english, tmp_path):
    pytest.importorskip("kenlm", reason="kenlm is not there: pip install 'hff[lm]'")
    lm = ngram.make(["The LIGHT is On", "The LIGHT off On", "five The one", "THE ON Light"], 2, None, tmp_path / "lm")
    options = {"lm": str(lm), "lm_weight": 0.5, "word_score": 0.0}
    log_probs = posteriors(english, "the light on")
    with pytest.raises(
        UserError, match="6 of 10 words cannot be spelled .* 6 of them fit in another case: set search.fold"
    ):
        best(english, log_probs, lexicon=str(lm), **options)
    (tmp_path / "words").write_text("light\non\nthe\n")
    with pytest.raises(
        UserError, match="search.lexicon: 3 of 3 words are not in .*arpa, first: light, on, the; .*another case"
    ):
        best(english, log_probs, lexicon=str(tmp_path / "words"), **options)
    from hfftools.decode.lm import LN10, Ngram

    plain = best(english, log_probs, lexicon=str(tmp_path / "words"))[0].score
    folded = best(english, log_probs, lexicon=str(lm), fold_case=True, **options)[0]
    # of The and THE, of LIGHT and Light, and of On and ON, the more probable one stands for both
    expected = plain + 0.5 * LN10 * Ngram(lm).model.score("The LIGHT On")
    assert folded.text == "the light on" and folded.score == pytest.approx(expected, abs=1e-3)


def test_a_language_model_decides_between_words_that_sound_alike(english, tmp_path):
    pytest.importorskip("kenlm", reason="kenlm is not there: pip install 'hff[lm]'")
    texts = ["turn the light on", "one five"] * 20 + ["five lights"]
    lm = ngram.make(texts, 3, None, tmp_path / "lm")
    one, other = posteriors(english, "turn the light on", 9.0), posteriors(english, "turn the light off", 9.0)
    length = min(one.shape[1], other.shape[1])
    mixed = (0.45 * one[:, :length].exp() + 0.55 * other[:, :length].exp()).log()  # acoustically `off` is likelier
    weights = {"lm": str(lm), "lexicon": str(lm), "word_score": 0.0}
    if english.encode("turn the light off")[:-2] == english.encode("turn the light on")[:-2]:
        assert best(english, mixed, lm_weight=1.0, **weights)[0].text == "turn the light on"
    # the score is the sum over alignments, the model's and the bonus: as the search gives it at zero weight
    text = "five five"
    log_probs = posteriors(english, text)
    plain = best(english, log_probs, lm_weight=0.0, **weights)[0]
    weighed = best(english, log_probs, lm_weight=0.5, **{**weights, "word_score": 2.0})[0]
    from hfftools.decode.lm import LN10, Ngram

    expected = plain.score + 0.5 * LN10 * Ngram(lm).model.score(text) + 2.0 * 2
    assert weighed.text == text and weighed.score == pytest.approx(expected, abs=1e-3)


def test_a_model_over_units_needs_no_lexicon(english, tmp_path):
    pytest.importorskip("kenlm", reason="kenlm is not there: pip install 'hff[lm]'")
    lm = ngram.make(["the light is on"], 4, english, tmp_path / "lm")
    options = {"lm": str(lm), "lm_weight": 0.5, "word_score": 0.0}
    assert best(english, posteriors(english, "the light is on"), **options)[0].text == "the light is on"
    words = ngram.make(["the light is on"], 2, None, tmp_path / "words")
    with pytest.raises(UserError, match="hff-lm --units"):
        best(english, posteriors(english, "the"), **{**options, "lm": str(words)})


def test_n_best_are_distinct_and_sorted(english):
    found = best(english, posteriors(english, "the light", 2.0), nbest=8)
    texts, scores = [h.text for h in found], [h.score for h in found]
    assert len(set(texts)) == len(texts) == 8 and scores == sorted(scores, reverse=True)


def test_words_are_timed(english):
    text = "five the five light"
    log_probs = posteriors(english, text, 12.0)
    for hypothesis in (best(english, log_probs)[0], greedy.hypotheses(log_probs, torch.tensor([999]), english)[0][0]):
        assert [word for word, _, _ in hypothesis.words] == text.split()
        edges = [edge for _, first, end in hypothesis.words for edge in (first, end)]
        assert edges == sorted(edges) and 0 <= edges[0] and edges[-1] <= log_probs.shape[1]
        assert all(first < end for _, first, end in hypothesis.words)
    assert runs([0, 3, 3, 0, 3, 2]) == ([3, 3, 2], [(1, 3), (4, 5), (5, 6)])


@pytest.mark.parametrize("kind", ["char", "bpe"])
@pytest.mark.parametrize("text", ["שלום עולם טוב", "今天天气很好", "สวัสดี ครับ", "e\u0301te\u0301 d'ici"])
def test_any_script(tmp_path, kind, text):
    made = units.train(kind, [text, text], 40, tmp_path / "units")
    (tmp_path / "words").write_text("\n".join(text.split()), encoding="utf-8")
    for options in ({}, {"lexicon": str(tmp_path / "words")}):
        (found,) = best(made, posteriors(made, text, 12.0), **options)
        assert found.text == text and [word for word, _, _ in found.words] == text.split()


def test_nothing_to_hear(english, tmp_path):
    (tmp_path / "words").write_text("turn\n")
    none = torch.zeros(1, 0, len(english))
    assert [h.text for h in best(english, none)] == [""]
    short = posteriors(english, english.encode("turn")[:1], frames=1)[:, :1]
    assert len(best(english, short, lexicon=str(tmp_path / "words"))) == 1


def test_it_agrees_with_flashlight(tmp_path):
    """Without a lexicon the two searches are one algorithm, but for what their beams lose."""
    pytest.importorskip("flashlight.lib.text.decoder", reason="flashlight-text is not there")
    from torchaudio.models.decoder import ctc_decoder

    made = units.train("char", ["ab ba"], None, tmp_path)
    theirs = ctc_decoder(
        lexicon=None, tokens=made.symbols, nbest=10, beam_size=5000, beam_threshold=1e3, log_add=True,
        blank_token="<blank>", sil_token="<blank>", unk_word="<unk>",
    )  # fmt: skip
    log_probs = torch.randn(1, 8, len(made), generator=torch.Generator().manual_seed(1)).log_softmax(-1)
    ours = beam.search(log_probs[0], Grammar(made, None, None, 0.0, 0.0), 5000, len(made))
    for (ids, score), their in zip(ours[:10], theirs(log_probs)[0], strict=True):
        assert ids == their.tokens.tolist() and score == pytest.approx(their.score, abs=5e-3)


@pytest.mark.parametrize(
    "words, reason",
    [
        (["search.name=astar"], "not one of greedy, beam"),
        (["search.lm=x"], "search.lm needs search.name=beam"),
        (["search.nbest=3"], "search.nbest needs"),
        (["search.name=beam", "search.beam_size=0"], "is below 1"),
        (["search.name=beam", "search.beam_size=2", "search.nbest=3"], "3 is more than search.beam_size, 2"),
        (["search.name=beam", "search.lm_weight=1"], "needs a language model"),
        (["search.name=beam", "search.weight=1"], "there is no option"),
    ],
)
def test_options_that_make_no_sense_are_refused(words, reason):
    with pytest.raises(UserError, match=reason):
        configure([], words)


def test_labels():
    labels = {(): "", ("search.name=beam",): "beam", ("search.name=beam", "search.lexicon=true"): "beam_lexicon"}
    labels[("search.name=beam", "search.lm=x")] = "beam_lm"
    labels[("search.name=beam", "search.tag=mine")] = "mine"
    for words, label in labels.items():
        assert configure([], list(words)).label == label


def test_the_grammar_takes_part_in_what_a_narrow_beam_keeps():
    """Keep one prefix of `b` with 0.6 and `a` with 0.39, where the grammar gives `a` a bonus of 1 nat."""
    grammar = SimpleNamespace(start=None, step=lambda state, unit: (None, float(unit == 1)), finish=lambda state: 0.0)
    log_probs_TU = torch.tensor([[0.01, 0.39, 0.6], [0.98, 0.01, 0.01]]).log()
    ((ids, score),) = beam.search(log_probs_TU, grammar, 1, 3)
    # 0.39 · (blank 0.98 + held 0.01)
    assert ids == [1] and score == pytest.approx(math.log(0.39 * 0.99) + 1.0, abs=1e-5)
