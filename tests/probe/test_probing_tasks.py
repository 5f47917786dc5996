"""Probing tasks: labels are where they were put, and measures are what a count by hand gives."""

import jiwer
import pytest
import torch

from hfftools.data.batch import Batch
from hfftools.data.datadir import Utterance
from hfftools.probe.probing_tasks import PhoneFrames, Phones, Speakers, Words, held_out, with_interval
from hfftools.text.units import train


def batch(ids, targets_BL=None):
    lens = torch.tensor([2] * len(ids))
    targets_BL = torch.ones(len(ids), 2, dtype=torch.long) if targets_BL is None else targets_BL
    return Batch(list(ids), ["AB"] * len(ids), 1.0, None, None, {}, lens, targets_BL, lens)


def one_hot(classes, count):
    return 10.0 * torch.nn.functional.one_hot(torch.tensor(classes), count).float()


def test_an_interval_holds_its_rate_and_shrinks_with_more_utterances():
    few, many = (with_interval("x", [0, 1] * n, [1, 1] * n) for n in (10, 1000))
    for found in (few, many):
        assert found["x"] == 0.5 and found["x_low"] < 0.5 < found["x_high"]
    assert many["x_high"] - many["x_low"] < 0.2 * (few["x_high"] - few["x_low"])


def test_wer_and_cer_are_jiwers(tmp_path):
    task = Words(train("char", ["A B C"], None, tmp_path), "linear", 1, 1, 0.0)
    answers = {"a": ("THE CAT SAT", "THE CAT"), "b": ("ON A MAT", "UN A MAT X")}
    row, counts = task.score(answers)
    refs, hyps = zip(*answers.values(), strict=True)
    assert row["wer"] == pytest.approx(jiwer.wer(list(refs), list(hyps)))
    assert row["cer"] == pytest.approx(jiwer.cer(list(refs), list(hyps)))
    assert counts["wer_errors"] == [1, 2] and counts["wer_tokens"] == [3, 3]


def test_frames_of_a_phone_have_its_class_and_the_rest_are_silence():
    task = PhoneFrames({"a": [(1, 3, "k"), (3, 4, "æ")], "b": [(0, 9, "ʒ")]}, ["k", "æ"])
    scores = torch.stack([one_hot([0, 1, 1, 1, 0], 3), one_hot([0, 0, 0, 0, 0], 3)])
    lens_B = torch.tensor([5, 4])
    answers = task.read(scores, lens_B, batch("ab"))
    assert answers == {"a": (4, 5), "b": (0, 4)}  # æ was taken for k; ʒ is in no inventory, so nothing is right there
    assert task.score(answers)[0]["frame_accuracy"] == pytest.approx(4 / 9)
    known = one_hot([0, 1, 1, 2, 0], 3)[None]
    assert task.loss(known, lens_B[:1], batch("a")) < 1e-3
    assert task.loss(known, lens_B[:1], batch("x")) is None  # no alignment, nothing to learn
    assert "x" not in task.read(known, lens_B[:1], batch("x"))


def test_each_batch_has_classes_of_its_own_and_layers_share_them(monkeypatch):
    task, lens_B, right = PhoneFrames({"a": [(0, 2, "k")], "b": []}, ["k"]), torch.tensor([2]), one_hot([1, 1], 2)
    one, other, made = batch("a"), batch("b"), []
    classes = task._classes
    monkeypatch.setattr(task, "_classes", lambda *given: made.append(given) or classes(*given))
    for _ in range(3):  # layers
        assert task.read(right[None], lens_B, one) == {"a": (2, 2)}
    assert task.read(right[None], lens_B, other) == {"b": (0, 2)}
    assert len(made) == 2


def test_padding_changes_neither_loss_nor_answers_of_frames():
    task = PhoneFrames({"a": [(1, 3, "k")], "b": [(0, 2, "k")]}, ["k"])
    scores, lens_B = torch.randn(2, 6, 2), torch.tensor([4, 6])
    garbage = scores.clone()
    garbage[0, 4:] = 100.0
    assert torch.equal(task.loss(scores, lens_B, batch("ab")), task.loss(garbage, lens_B, batch("ab")))
    assert task.read(scores, lens_B, batch("ab")) == task.read(garbage, lens_B, batch("ab"))


def test_the_phone_error_rate_counts_phones():
    task = Phones({"a": ["k", "æ", "t"], "b": ["æ"]}, ["k", "t", "æ"])
    scores = torch.stack([one_hot([1, 1, 0, 2, 0], 4), one_hot([3, 0, 0, 0, 0], 4)])
    answers = task.read(scores, torch.tensor([5, 2]), batch("ab"))
    assert answers == {"a": ["k", "t"], "b": ["æ"]}
    assert task.score(answers)[0]["per"] == pytest.approx(1 / 4)


def test_an_utterance_with_more_phones_than_frames_spoils_no_batch():
    task = Phones({"a": ["k"] * 9, "b": ["k"]}, ["k"])
    loss = task.loss(torch.randn(2, 4, 2), torch.tensor([4, 4]), batch("ab"))
    assert torch.isfinite(loss)
    assert task.loss(torch.randn(1, 4, 2), torch.tensor([4]), batch("a")) is None


def utterances(**speakers):
    return [Utterance(f"{s}-{i}", s, "x.wav") for s, count in speakers.items() for i in range(count)]


def test_a_fifth_of_each_speaker_is_held_out_and_never_learned_from():
    said = utterances(ann=10, bob=2, eve=1)
    kept = held_out(said)
    assert {s: sum(id.startswith(s) for id in kept) for s in ("ann", "bob", "eve")} == {"ann": 2, "bob": 1, "eve": 0}
    task = Speakers(said, kept)
    scores = torch.randn(3, 1, 3, requires_grad=True)
    ids = ["ann-0", "ann-1", "eve-0"]
    task.loss(scores, torch.ones(3), batch(ids)).backward()
    assert "ann-1" in kept and scores.grad[1].abs().max() == 0 and scores.grad[0].abs().max() > 0
    answers = task.read(one_hot([[0], [0], [2]], 3), torch.ones(3), batch(ids))
    assert answers == {"ann-1": 1}


def test_the_speaker_is_asked_of_the_mean_of_valid_frames():
    task = Speakers(utterances(ann=2), {"ann-1"})
    h_BTD = torch.tensor([[[1.0], [3.0], [50.0]]])
    pooled_B1D, lens_B = task.head_inputs(h_BTD, torch.tensor([2]))
    assert pooled_B1D.tolist() == [[[2.0, 1.0]]] and lens_B.tolist() == [1]  # mean and deviation
    assert held_out(utterances(ann=9)) == set()  # one speaker is no question
