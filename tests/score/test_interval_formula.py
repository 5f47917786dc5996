"""Check the bootstrap interval and the word error rate against their formulas written out in numpy.

U utterances, R resamples. The resamples of the test are its own, so an interval is compared within its sampling error: a
90 % interval is narrower than a 95 % one by a sixth, many times that error.
"""

import numpy as np
import pytest

from hfftools import score
from hfftools.score.compare import chance, compare
from hfftools.score.counts import Counts, align, count, interval
from hfftools.score.counts import score as counts_score
from hfftools.score.folder import Decoded

RESAMPLES = 20_000


@pytest.fixture(scope="module")
def counts():
    """Return errors of two systems and words of 70 utterances, whose error rates grow with their lengths."""
    rng = np.random.default_rng(11)
    words_U = rng.integers(3, 40, 70)
    return rng.binomial(words_U, words_U / 80), rng.binomial(words_U, words_U / 100), words_U


def resampled(errors_U, words_U):
    """Return the rate of each of R resamples: U utterances drawn with replacement, sum of errors / sum of words."""
    drawn_RU = np.random.default_rng(12).integers(0, len(words_U), (RESAMPLES, len(words_U)))
    return errors_U[drawn_RU].sum(1) / words_U[drawn_RU].sum(1)


def ends(rate_R):
    """Return the values below which 2.5 % and 97.5 % of the sorted rates lie."""
    ordered_R = np.sort(rate_R)
    return ordered_R[round(0.025 * RESAMPLES) - 1], ordered_R[round(0.975 * RESAMPLES) - 1]


def test_interval_ends_at_the_percentiles_of_resampled_utterances(counts):
    errors_U, _, words_U = counts
    rate_R = resampled(errors_U, words_U)
    assert interval(errors_U, words_U, resamples=RESAMPLES) == pytest.approx(ends(rate_R), abs=0.1 * rate_R.std())


def test_interval_of_a_difference_ends_at_the_percentiles_of_paired_resamples(counts):
    one_U, two_U, words_U = counts
    rate_R = resampled(two_U - one_U, words_U)
    found = chance(one_U, two_U, words_U, resamples=RESAMPLES)
    assert (found.low, found.high) == pytest.approx(ends(rate_R), abs=0.1 * rate_R.std())
    assert found.improvement == pytest.approx((rate_R < 0).mean() + (rate_R == 0).mean() / 2, abs=0.01)


def test_interval_covers_95_percent_of_the_resampled_rates(counts):
    errors_U, _, words_U = counts
    low, high = interval(errors_U, words_U, resamples=RESAMPLES)
    rate_R = resampled(errors_U, words_U)
    assert (rate_R < low).mean() == pytest.approx(0.025, abs=0.006)
    assert (rate_R > high).mean() == pytest.approx(0.025, abs=0.006)


REFS = ["a b c d e f g", "h i", "j k l m n", "o p q r"]
HYPS = ["a x c e f g y z", "h i", "j n", "w o p v v"]
# substitutions, deletions and insertions of each, by hand; the sum is 3 + 4 + 3 of 18 words
BY_HAND = [(1, 1, 2), (0, 0, 0), (0, 3, 0), (2, 0, 1)]


def test_word_error_rate_is_substitutions_deletions_and_insertions_over_words():
    alignments = align([ref.split() for ref in REFS], [hyp.split() for hyp in HYPS])
    for alignment, (s, d, i), ref in zip(alignments, BY_HAND, REFS, strict=True):
        found = count("wer", [alignment])
        assert (found.substitutions, found.deletions, found.insertions) == (s, d, i)
        assert found.rate == pytest.approx((s + d + i) / len(ref.split()))
    s, d, i = np.sum(BY_HAND, axis=0)
    words = sum(len(ref.split()) for ref in REFS)
    found = count("wer", alignments)
    assert (found.substitutions, found.deletions, found.insertions, found.words) == (s, d, i, words)
    assert found.correct == words - s - d and found.wrong_sentences == 3
    assert found.rate == score.mean_error(*score.errors("wer", REFS, HYPS)) == pytest.approx((s + d + i) / words)
    assert found.rate != pytest.approx(np.mean([sum(e) / len(r.split()) for e, r in zip(BY_HAND, REFS, strict=True)]))


def test_rate_exceeds_one_where_insertions_do():
    found = Counts("WER", 3, words=5, correct=2, substitutions=2, deletions=1, insertions=4, wrong_sentences=3)
    assert found.rate == pytest.approx((2 + 1 + 4) / 5)


def test_a_sentence_with_one_error_is_wrong():
    assert count("wer", align([["a", "b"], ["c"], ["d"]], [["a", "x"], ["c"], ["d"]])).wrong_sentences == 1


def test_the_interval_over_speakers_is_that_of_their_sums():
    words, speakers = [3, 4, 5, 6, 7, 8], ["ann", "ann", "bob", "bob", "cem", "cem"]
    hyps = [["w"] * n if n % 2 else ["x", *["w"] * (n - 1)] for n in words]
    found = counts_score("wer", align([["w"] * n for n in words], hyps), speakers)
    wanted = interval(np.array([1, 1, 1]), np.array([7, 11, 15]))
    assert (found.speaker_low, found.speaker_high) == wanted != (found.low, found.high)


def test_better_and_worse_are_the_second_system_s(tmp_path):
    refs = ["a b", "c d", "e f", "g h"]
    first = Decoded(tmp_path, list("1234"), ["ann"] * 4, refs, ["x b", "x y", "e f", "g h"])
    second = Decoded(tmp_path, list("1234"), ["ann"] * 4, refs, ["a b", "c y", "e x", "g h"])
    found = compare(first, second, "wer")
    assert (found.better, found.worse, found.errors_first, found.errors_second) == (2, 1, 3, 2)
