"""Two systems: known cases, an independent computation, the share of false alarms, and what does not match is refused."""

import itertools
import json
import random
import shutil
import subprocess
import sys

import numpy as np
import pytest

from hfftools import score
from hfftools.data.table import write_table
from hfftools.log import UserError, log
from hfftools.report.compare_systems import compare, decoded_sets
from hfftools.score.compare import chance, swap_test
from hfftools.score.counts import by_speaker

RNG = random.Random(0)
REFS = {
    f"s{speaker}-{n:02d}": " ".join(RNG.choices("one two three four five".split(), k=6))
    for speaker in range(4)
    for n in range(10)
}


def spoilt(share, seed):
    """Transcripts in which a share of the words is replaced."""
    rng = random.Random(seed)
    return {utt: " ".join("x" if rng.random() < share else w for w in text.split()) for utt, text in REFS.items()}


def decoded(tmp_path, name, hyps, refs=REFS, set_name="test"):
    folder = tmp_path / "exp" / name / "decode" / set_name
    folder.mkdir(parents=True, exist_ok=True)
    write_table(folder / "ref", refs)
    write_table(folder / "text", hyps)
    (folder / "decode.json").write_text('{"scores": {}}')
    return folder


def test_a_system_beside_itself(tmp_path):
    hyps = spoilt(0.3, 1)
    a, b = decoded(tmp_path, "a", hyps), decoded(tmp_path, "b", hyps)
    [found] = compare(a, b)
    assert (found.difference, found.better, found.worse, found.differ_most) == (0.0, 0, 0, [])
    for over in (found.over_utterances, found.over_speakers):
        assert (over.p, over.low, over.high, over.improvement) == (1.0, 0.0, 0.0, 0.5)


def test_a_clearly_better_system_and_the_other_way_round(tmp_path):
    folders = decoded(tmp_path, "a", spoilt(0.4, 1)), decoded(tmp_path, "b", spoilt(0.1, 2))
    [found], [back] = compare(*folders), compare(*folders[::-1])
    over = found.over_utterances
    assert over.p < 1e-4 and over.high < 0 and over.improvement > 0.999 and over.units == 40
    assert found.over_speakers.units == 4 and found.over_speakers.p == 2 / 2**4
    assert back.difference == -found.difference and back.over_utterances.p == over.p
    assert (back.over_utterances.low, back.over_utterances.high) == pytest.approx((-over.high, -over.low))
    assert back.over_utterances.improvement == pytest.approx(1 - over.improvement)
    wers = [score.score_dir(folder, None)["wer"] for folder in folders]
    assert found.difference == pytest.approx(wers[1].rate - wers[0].rate)
    steps = [abs(utt["errors_second"] - utt["errors_first"]) for utt in found.differ_most]
    assert len(steps) == 10 and steps == sorted(steps, reverse=True)
    worst = found.differ_most[0]
    assert worst["ref"] == REFS[worst["utt"]] and worst["errors_first"] == worst["first"].split().count("x")


@pytest.mark.parametrize("seed", range(5))
def test_p_is_that_of_all_choices_of_signs(seed):
    steps = np.random.default_rng(seed).integers(-4, 6, 10)
    totals = [abs(np.dot(signs, abs(steps))) for signs in itertools.product((1, -1), repeat=len(steps))]
    assert swap_test(steps) == pytest.approx(np.mean([total >= abs(steps.sum()) for total in totals]))


def test_interval_and_improvement_agree_with_the_normal_approximation():
    rng = np.random.default_rng(1)
    words_U = np.full(1500, 10)
    one_U, two_U = rng.binomial(words_U, 0.2), rng.binomial(words_U, 0.19)
    found, step_U = chance(one_U, two_U, words_U), two_U - one_U
    middle, error = step_U.mean() / 10, step_U.std() / np.sqrt(1500) / 10
    assert (found.low, found.high) == pytest.approx((middle - 1.96 * error, middle + 1.96 * error), abs=0.1 * error)
    below = np.mean(rng.normal(middle, error, 100_000) < 0)
    assert found.improvement == pytest.approx(below, abs=0.02)
    two_sided = 2 * min(below, 1 - below)
    assert found.p == pytest.approx(two_sided, abs=0.03)


def test_equally_good_systems_differ_significantly_in_one_of_twenty():
    """Errors that hang together by utterance, as those of two systems do; 1000 sets of 100 utterances."""
    rng = np.random.default_rng(2)
    alarms, left_out = 0, 0
    for _ in range(1000):
        hard_U = rng.beta(1, 6, 100)
        one_U, two_U = rng.binomial(10, hard_U), rng.binomial(10, hard_U)
        alarms += swap_test(two_U - one_U) < 0.05
        if _ < 200:
            found = chance(one_U, two_U, np.full(100, 10), resamples=500)
            left_out += not found.low <= 0 <= found.high
    assert 0.03 < alarms / 1000 < 0.065
    assert 0.01 < left_out / 200 < 0.11


def test_speakers_who_each_suit_one_system_deceive_the_test_over_utterances_but_not_that_over_speakers():
    rng, names = np.random.default_rng(3), np.repeat(np.arange(20), 20)
    alarms = np.zeros(2)
    for _ in range(200):
        lean_U = rng.normal(0, 0.05, 20)[names]
        one_U, two_U = (rng.binomial(10, np.clip(0.2 + side * lean_U, 0, 1)) for side in (1, -1))
        step_U = two_U - one_U
        alarms += swap_test(step_U) < 0.05, swap_test(by_speaker(step_U, names)) < 0.05
    assert alarms[0] / 200 > 0.25 and alarms[1] / 200 < 0.1


def test_what_does_not_match_is_refused_by_name(tmp_path):
    a = decoded(tmp_path, "a", spoilt(0.1, 1))
    fewer = {utt: text for utt, text in REFS.items() if utt not in ("s1-03", "s2-00")}
    b = decoded(tmp_path, "b", {utt: "x" for utt in fewer}, fewer)
    for pair in ((a, b), (b, a)):
        with pytest.raises(UserError, match=f"{b}/ref: 2 utterances of {a}/ref are not there, first s1-03; decode"):
            compare(*pair)
    c = decoded(tmp_path, "c", spoilt(0.1, 1), {**REFS, "s3-09": "another text"})
    with pytest.raises(UserError, match=f"{c}/ref: 1 references differ from those of {a}/ref, first s3-09; decode"):
        compare(a, c)
    with pytest.raises(UserError, match="one is an experiment and one a decoded set"):
        compare(tmp_path / "exp" / "a", c)
    with pytest.raises(UserError, match="neither exp/<name>/decode/<set> nor an experiment"):
        compare(a, tmp_path)
    shutil.move(b.parent, tmp_path / "exp" / "d" / "decode")
    (tmp_path / "exp" / "d" / "decode" / "test").rename(tmp_path / "exp" / "d" / "decode" / "dev")
    with pytest.raises(UserError, match="have decoded no set in common"):
        compare(tmp_path / "exp" / "a", tmp_path / "exp" / "d")


def test_experiments_are_compared_set_by_set_and_unspaced_text_by_characters(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(log, "propagate", True)
    chinese = {"a-1": "今天天气很好", "a-2": "你好世界", "b-1": "再见"}
    for name, hyps in (("one", {**chinese, "a-2": "你好"}), ("two", chinese)):
        decoded(tmp_path, name, hyps, chinese, "zh")
        decoded(tmp_path, name, spoilt(0.2, 3))
    decoded(tmp_path, "two", REFS, set_name="only")
    exps = [tmp_path / "exp" / name for name in ("one", "two")]
    test, zh = compare(*exps)
    assert "has not decoded only" in caplog.text
    assert (test.metric, test.words) == ("WER", 240) and test.first.endswith("one/decode/test")
    assert (zh.metric, zh.words, zh.errors_first, zh.errors_second) == ("CER", 12, 2, 0)
    (exps[1] / "decode" / "only" / "ref").unlink()
    assert [folder.name for folder in decoded_sets(exps[1])] == ["test", "zh"]


def test_the_command_compares_with_the_first_and_writes_json(tmp_path):
    for name, share in (("a", 0.4), ("b", 0.1), ("c", 0.4)):
        decoded(tmp_path, name, spoilt(share, name))
    command = [sys.executable, "-m", "hfftools.bin.score", "--out", "found.json"]
    done = subprocess.run([*command, "exp/a", "exp/b", "exp/c"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("A %WER") == 2 and "2 comparisons" in done.stdout
    assert "over 40 utterances: 95 % interval -" in done.stdout and "over 4 speakers" in done.stdout
    assert "(with 4, never below 0.125)" in done.stdout
    found = json.loads((tmp_path / "found.json").read_text())
    assert [entry["second"] for entry in found] == ["exp/b/decode/test", "exp/c/decode/test"]
    assert found[0]["over_utterances"]["p"] < 1e-3 < found[1]["over_utterances"]["p"]
    # one argument: every decoded set of the experiment is scored
    done = subprocess.run([*command, "exp/a"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0 and [line.split()[0] for line in done.stdout.splitlines()] == ["%WER", "%CER"]
    assert json.loads((tmp_path / "found.json").read_text())["exp/a/decode/test"]["wer"]["words"] == 240
