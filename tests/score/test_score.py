"""Scores: counts agree with hand counts and with another edit distance, and what is printed is what users parse."""

import random
import subprocess
import sys

import jiwer
import numpy as np
import pytest

from hfftools import score
from hfftools.data.table import write_table
from hfftools.log import UserError
from hfftools.score.counts import by_speaker
from hfftools.score.result import LINE_WIDTH
from hfftools.text import units

REFS = {
    "ann-1": "the cat sat on the mat",
    "ann-2": "hello world",
    "bob-1": "",
    "bob-2": "你 好 é",
    "bob-3": "all is well",
}
HYPS = {
    "ann-1": "the bat sat the mat",  # cat -> bat, without on
    "ann-2": "",  # two deletions
    "bob-1": "noise",  # one insertion
    "bob-2": "你 好 é now",  # one insertion
    "bob-3": "all is well",
}


def rate(metric, refs, hyps):
    return score.mean_error(*score.errors(metric, refs, hyps))


def decode_dir(tmp_path, refs, hyps):
    folder = tmp_path / "exp" / "fusion" / "decode" / "test"
    folder.mkdir(parents=True, exist_ok=True)
    write_table(folder / "ref", refs)
    write_table(folder / "text", hyps)
    return folder


@pytest.fixture
def decoded(tmp_path):
    return decode_dir(tmp_path, REFS, HYPS)


def distance(ref, hyp):
    """Levenshtein distance of two sequences, by the textbook's recurrence."""
    row = list(range(len(hyp) + 1))
    for i, r in enumerate(ref, 1):
        above, row[0] = row[0], i
        for j, h in enumerate(hyp, 1):
            above, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, above + (r != h))
    return row[-1]


def random_texts(seed, count=60):
    rng = random.Random(seed)
    return [" ".join(rng.choices(["a", "b", "ab", "ba", "你", "é"], k=rng.randint(0, 8))) for _ in range(count)]


def test_counts_by_hand(decoded):
    wer = score.score_dir(decoded, None)["wer"]
    assert (wer.sentences, wer.words, wer.correct) == (5, 14, 10)
    assert (wer.substitutions, wer.deletions, wer.insertions, wer.errors) == (1, 3, 2, 6)
    assert wer.wrong_sentences == 4
    cer = score.score_dir(decoded, None)["cer"]
    # references: 22, 11, 0, 5 and 11 characters, spaces counted
    assert cer.words == 49
    # c -> b; "on "; "hello world"; "noise"; " now"
    assert (cer.substitutions, cer.deletions, cer.insertions) == (1, 3 + 11, 5 + 4)


def test_lines_are_as_kaldi_prints_them(decoded):
    scores = score.score_dir(decoded, None)
    assert scores["wer"].line("exp/fusion/decode/test") == (
        "%WER 42.86 [ 6 / 14, 2 ins, 3 del, 1 sub ] exp/fusion/decode/test"
    )
    assert scores["cer"].line("x") == "%CER 48.98 [ 24 / 49, 9 ins, 14 del, 1 sub ] x"
    long = score.Score("WER", 2620, 54402, 50638, 3337, 427, 695, 1500, low=0.0, high=0.0)
    assert long.line("exp/x") == "%WER 8.20 [ 4459 / 54402, 695 ins, 427 del, 3337 sub ] exp/x"
    assert score.row("test", long) == "| test | 2620 | 54402 | 93.1 | 6.1 | 0.8 | 1.3 | 8.2 | 57.3 |\n"
    assert score.HEAD.splitlines()[0].count("|") == score.row("test", long).count("|")


@pytest.mark.parametrize("seed", range(4))
def test_counts_agree_with_other_edit_distances(tmp_path, seed):
    utts = [f"s-{n:03d}" for n in range(60)]
    refs = dict(zip(utts, random_texts(seed), strict=True))
    hyps = dict(zip(utts, random_texts(seed + 100), strict=True))
    inventory = units.train("bpe", refs.values(), 20, tmp_path / "units")
    scores = score.score_dir(decode_dir(tmp_path, refs, hyps), inventory)
    for name, split in (("wer", str.split), ("cer", list), ("ter", inventory.encode)):
        pairs = [(split(refs[utt]), split(hyps[utt])) for utt in utts]
        found = scores[name]
        assert found.errors == sum(distance(r, h) for r, h in pairs)
        assert found.words == sum(len(r) for r, _ in pairs) == found.correct + found.substitutions + found.deletions
        assert found.correct + found.substitutions + found.insertions == sum(len(h) for _, h in pairs)
        assert found.wrong_sentences == sum(r != h for r, h in pairs)
    assert scores["wer"].rate == jiwer.wer(list(refs.values()), list(hyps.values()))
    assert scores["cer"].rate == jiwer.cer(list(refs.values()), list(hyps.values()))
    assert rate("wer", list(refs.values()), list(hyps.values())) == scores["wer"].rate
    assert rate("cer", list(refs.values()), list(hyps.values())) == scores["cer"].rate


def test_wer_of_training():
    assert rate("wer", ["a b", "c d"], ["a b", "c x"]) == 0.25
    assert rate("wer", ["a b"], [""]) == 1.0
    assert rate("wer", ["a"], ["b c d"]) == 3.0
    assert rate("wer", ["a  b\u00a0c"], [" a b c"]) == 0.0
    assert rate("wer", [""], ["a b"]) == 2.0
    assert rate("cer", ["ab c"], ["abc"]) == 0.25
    with pytest.raises(ValueError):
        rate("wer", ["a", "b"], ["a"])


def test_characters_and_units_of_one_set_agree_in_any_script(tmp_path):
    refs = {"a-1": "你好 世界", "a-2": "e\u0301 é", "a-3": "مرحبا بك"}
    hyps = {"a-1": "你好世界", "a-2": "é é", "a-3": "مرحبا بك"}
    inventory = units.train("char", [*refs.values(), *hyps.values()], None, tmp_path / "units")
    scores = score.score_dir(decode_dir(tmp_path, refs, hyps), inventory)
    # the space left out; and e with a combining accent is not the one letter é
    assert scores["cer"].errors == scores["ter"].errors == 1 + 2
    assert scores["cer"].words == scores["ter"].words == 5 + 4 + 8


def test_files_say_what_was_compared(decoded):
    inventory = units.train("char", [*REFS.values(), *HYPS.values()], None, decoded.parents[1] / "units")
    scores = score.score_dir(decoded, inventory)
    for name in ("wer", "cer", "ter"):
        result = (decoded / f"score_{name}" / "result.txt").read_text(encoding="utf-8")
        assert result.startswith(scores[name].line(decoded) + "\n")
        assert score.row("test", scores[name]) in result
        for side in ("ref", "hyp"):
            assert len((decoded / f"score_{name}" / f"{side}.trn").read_text(encoding="utf-8").splitlines()) == 5
    trn = (decoded / "score_wer" / "hyp.trn").read_text(encoding="utf-8").splitlines()
    assert trn[:2] == ["the bat sat the mat (ann-ann-1)", "(ann-ann-2)"]
    trn = (decoded / "score_cer" / "ref.trn").read_text(encoding="utf-8").splitlines()
    assert trn[3] == "你 <space> 好 <space> é (bob-bob-2)"


def test_speakers_of_trn_files_come_from_utt2spk_where_there_is_one(decoded):
    write_table(decoded / "utt2spk", {utt: "spk" for utt in REFS})
    score.score_dir(decoded, None)
    assert "hello world (spk-ann-2)\n" in (decoded / "score_wer" / "ref.trn").read_text(encoding="utf-8")
    write_table(decoded / "utt2spk", {utt: "spk" for utt in REFS if utt != "ann-2"})
    with pytest.raises(UserError, match="missing from utt2spk, first ann-2"):
        score.score_dir(decoded, None)


def test_errors_are_shown_aligned_and_worst_first(tmp_path):
    refs = {"a-1": "x y", "a-2": "the cat sat on the mat", "a-3": "x y z", "a-4": "x y", "a-5": "the cat"}
    hyps = {"a-1": "y", "a-2": "the bat sat the mat", "a-3": "", "a-4": "x y", "a-5": "the bat"}
    folder = decode_dir(tmp_path, refs, hyps)
    score.score_dir(folder, None)
    result = (folder / "score_wer" / "result.txt").read_text(encoding="utf-8")
    assert "REF:  the cat sat on the mat\nHYP:  the bat sat *  the mat\nEVAL:     S       D\n" in result
    assert "-> hypothesis\n       2  cat -> bat   (2 of 2)\n\nCommonest deletions\n" in result
    assert "deletions\n       2  x   (2 of 3)\n       1  on   (1 of 1)\n" in result
    assert "nothing\n       2 of 2  cat: bat 2\n       2 of 3  x: * 2\n" in result
    order = [line.split(":")[0] for line in result.splitlines() if " wrong of " in line]
    assert order == ["a-3", "a-2", "a-1", "a-5"]


def test_aligned_lines_fold_and_keep_their_columns(tmp_path):
    ref = " ".join(f"{c}{n}" for n in range(40) for c in "a你é")
    folder = decode_dir(tmp_path, {"a-1": ref}, {"a-1": ref.replace("你7", "x").replace("é9", "")})
    score.score_dir(folder, None)
    lines = (
        (folder / "score_wer" / "result.txt").read_text(encoding="utf-8").split("a-1: 2 wrong of 120\n")[1].splitlines()
    )
    assert max(len(line) + line.count("你") for line in lines) <= LINE_WIDTH + len("EVAL: ")
    assert sum(len(line.split()) for line in lines[0::3]) == 120 + len(["REF:"])
    [(top, bottom, marks)] = [
        trio for trio in zip(lines[0::3], lines[1::3], lines[2::3], strict=True) if "S" in trio[2]
    ]
    # a Chinese character takes two columns
    before = [line[: line.index(word)] for line, word in ((top, "你7"), (bottom, "x"), (marks, "S"))]
    assert len({len(start) + start.count("你") for start in before}) == 1


def test_a_perfect_set_has_no_errors(tmp_path):
    refs = {"a-1": "x y", "a-2": "z"}
    scores = score.score_dir(decode_dir(tmp_path, refs, refs), None)
    assert (scores["wer"].errors, scores["wer"].low, scores["wer"].high) == (0, 0.0, 0.0)


@pytest.mark.parametrize(
    ("refs", "hyps", "words"),
    [
        ({"a-1": "x", "a-2": "y", "a-3": "z"}, {"a-1": "x"}, "ref: 2 utterances missing from text, first a-2"),
        ({"a-1": "x"}, {"a-1": "x", "a-0": "y"}, "text: 1 utterances missing from ref, first a-0"),
        ({"a-1": "", "a-2": " "}, {"a-1": "x", "a-2": "y"}, "every reference is empty"),
        ({}, {}, "every reference is empty"),
    ],
)
def test_sets_that_do_not_match_are_refused(tmp_path, refs, hyps, words):
    folder = decode_dir(tmp_path, refs, hyps)
    with pytest.raises(UserError, match=f"{folder}/.*{words}"):
        score.score_dir(folder, None)
    assert not (folder / "score_wer").exists()


def test_missing_and_broken_tables_are_named(decoded):
    (decoded / "text").write_text("ann-1 x\nann-1 y\n")
    with pytest.raises(UserError, match="text:2: 'ann-1' is there twice"):
        score.score_dir(decoded, None)
    (decoded / "text").unlink()
    with pytest.raises(UserError, match="text is missing"):
        score.score_dir(decoded, None)


def test_the_interval_is_repeatable_and_narrows_with_data():
    rng = np.random.default_rng(0)
    words_U = rng.integers(5, 20, 2000)
    errors_U = rng.binomial(words_U, 0.1)
    low, high = score.interval(errors_U, words_U)
    assert (low, high) == score.interval(errors_U, words_U)
    assert low < errors_U.sum() / words_U.sum() < high
    # utterances are independent here, so that the interval is the binomial one, within the noise of 1000 resamples
    expected = 2 * 1.96 * np.sqrt(0.1 * 0.9 / words_U.sum())
    assert high - low == pytest.approx(expected, rel=0.2)
    few = score.interval(errors_U[:100], words_U[:100])
    assert few[1] - few[0] > 2 * (high - low)


def test_speakers_add_up_and_the_worst_comes_first(decoded):
    scores = score.score_dir(decoded, None)
    for metric, whole in scores.items():
        lines = (decoded / f"score_{metric}" / "by_speaker.tsv").read_text(encoding="utf-8").splitlines()
        titles, *rows = [line.split("\t") for line in lines]
        assert {"sentences", "words", "correct", "errors", "wrong_sentences"} < set(titles)
        for place, name in list(enumerate(titles))[1:-1]:
            assert sum(int(row[place]) for row in rows) == getattr(whole, name), name
        percents = [float(row[-1]) for row in rows]
        assert percents == sorted(percents, reverse=True) and {row[0] for row in rows} == {"ann", "bob"}
    result = (decoded / "score_wer" / "result.txt").read_text(encoding="utf-8")
    assert "\nSpeakers, worst first\nspeaker  Snt  Wrd" in result
    assert "\nann        2    8   50.0  12.5  37.5   0.0  50.0  100.0\nbob        3    6  100.0 " in result
    assert "resamples of 5 utterances" in result and "resamples of 2 speakers" in result


def test_the_interval_over_speakers_is_wider_where_errors_cluster_by_speaker(tmp_path):
    rng = np.random.default_rng(0)
    names = np.repeat(np.arange(20), 50)
    words_U = np.full(1000, 10)
    clustered = rng.binomial(words_U, np.where(names % 2, 0.3, 0.05))
    alike = rng.binomial(words_U, 0.175, 1000)

    def width(errors_U, words_U):
        low, high = score.interval(errors_U, words_U)
        return high - low

    speaker_words = by_speaker(words_U, names)
    assert width(by_speaker(clustered, names), speaker_words) > 3 * width(clustered, words_U)
    assert width(by_speaker(alike, names), speaker_words) == pytest.approx(width(alike, words_U), rel=0.4)
    # the interval is there where speakers are more than one and fewer than utterances
    for utts, there in ((["a-1", "a-2"], False), (["a-1", "b-1"], False), (["a-1", "a-2", "b-1"], True)):
        texts = {utt: "x y" for utt in utts}
        found = score.score_dir(decode_dir(tmp_path, texts, texts), None)["wer"]
        assert (found.speaker_low is not None) == there and found.speakers == len({utt[0] for utt in utts})


def test_marks_hidden_letters_and_lookalikes_are_distinguishable(tmp_path):
    refs = {"a-1": "e\u0301a", "a-2": "हिन्दी", "a-3": "می\u200cخواهم را", "a-4": "\u00e9"}
    hyps = {"a-1": "ea", "a-2": "हन्दी", "a-3": "میخواهم را", "a-4": "e\u0301"}
    folder = decode_dir(tmp_path, refs, hyps)
    score.score_dir(folder, None)
    characters, words = (
        (folder / f"score_{m}" / "result.txt").read_text(encoding="utf-8").split("The 4 worst of 4")
        for m in ("cer", "wer")
    )
    assert "  ◌\u0301   (" in characters[0] and "  ◌ि   (" in characters[0] and "  <U+200C>   (" in characters[0]
    assert "  \u00e9 (U+00E9) -> e\u0301 (U+0065 U+0301)   (1 of 1)\n" in words[0]
    # a mark that is an error stands in a column of its own, over the letter D
    [(ref, marks)] = [
        (one, two)
        for one, two in zip(characters[1].splitlines(), characters[1].splitlines()[2:])
        if one[:9] == "REF:  e ◌"
    ]
    assert marks == "EVAL:   D"
    # words of right-to-left scripts keep the order of the row they stand in
    rows = [line.split()[1:] for line in words[1].splitlines() if "را" in line]
    assert len(rows) == 2 and all(word.endswith("\u200e") for row in rows for word in row)


@pytest.mark.parametrize(
    ("refs", "metric"),
    [
        (["你好世界", "今天天气很好"], "cer"),
        (["こんにちは世界、今日はいい天気ですね そうですね"], "cer"),
        (["สวัสดีครับ", "วันนี้อากาศดีมาก ไปเที่ยวกัน"], "cer"),
        (["你 好 世 界", "今天 天气 很 好"], "wer"),  # cut into words
        (["我用 iPhone 打電話給他們", "再见"], "cer"),  # spaces beside a foreign word
        (["안녕하세요 세계", "예"], "wer"),
        (["yes", "no"], "wer"),
        (["مرحبا بك", "लोग"], "wer"),
        (["你好世界", "the cat", "a dog"], "wer"),
        (["", " ", "你好"], "cer"),
        ([], "wer"),
    ],
)
def test_the_headline_is_characters_where_words_are_not_spaced_apart(refs, metric):
    assert score.headline(refs) == metric


def test_the_command_prints_three_lines(decoded):
    units.train("char", REFS.values(), None, decoded.parents[1] / "units")
    command = [sys.executable, "-m", "hfftools.bin.score", "exp/fusion/decode/test"]
    done = subprocess.run(command, cwd=decoded.parents[3], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "%WER 42.86 [ 6 / 14, 2 ins, 3 del, 1 sub ] exp/fusion/decode/test"
    assert [line.split()[0] for line in lines] == ["%WER", "%CER", "%TER"]
    (decoded / "text").unlink()
    done = subprocess.run(command, cwd=decoded.parents[3], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "score.py: error: exp/fusion/decode/test: there is no text of a decoded set in it: "
        "neither exp/<name>/decode/<set> nor an experiment; run hff-decode"
    ]
