"""Define what a probe predicts from a layer: words, phones, the phone of each frame, or the speaker.

Each class is a ProbingTask of heads.py. A measure has a 95 % bootstrap interval over utterances, as `wer`, `wer_low`
and `wer_high`.

Axes: B utterances of a batch, T frames, D features of a layer, U utterances of the evaluated set, or in the scores of a
head, units or classes.
"""

from collections.abc import Collection, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from hfftools import score
from hfftools.data.batch import Batch, pad_batch
from hfftools.data.datadir import Utterance
from hfftools.decode.greedy import greedy
from hfftools.nn.ctc import ctc_loss, frames_needed
from hfftools.nn.heads import HEADS, LinearHead
from hfftools.nn.mask import valid_mask
from hfftools.text.units import Units

SILENCE = 0  # the class of frames in no phone, and the blank of CTC


def with_interval(
    name: str, counts: Sequence[int] | np.ndarray, totals: Sequence[int] | np.ndarray
) -> dict[str, float]:
    """Return {name: sum(counts) / sum(totals), name_low, name_high}, from the [U] counts and totals of U utterances."""
    counts_U, totals_U = np.asarray(counts), np.asarray(totals)
    low, high = score.interval(counts_U, totals_U)
    return {name: float(counts_U.sum() / max(totals_U.sum(), 1)), f"{name}_low": low, f"{name}_high": high}


class _EveryFrame:
    """Give the head each frame of a layer, as it is."""

    evaluate_on = "dev"
    facts: dict[str, int]  # numbers that the result states along with the measures

    def head_inputs(self, h_BTD: Tensor, lens_B: Tensor) -> tuple[Tensor, Tensor]:
        """Return the states and lengths unchanged."""
        return h_BTD, lens_B


class Words(_EveryFrame):
    """Recognise speech: a CTC head over units, decoded by best path, measured by WER and CER."""

    name = "asr"

    def __init__(self, units: Units, head: str, head_dim: int, head_layers: int, dropout: float):
        """Take the inventory and the kind, width, depth and dropout of the head (see Config)."""
        self.facts = {"units": len(units)}
        self.units, self._head, self._options = units, HEADS[head], (head_dim, head_layers, dropout)

    def head(self, dim: int) -> nn.Module:
        """Return a head of the configured kind, with scores [B, T, units]."""
        return self._head(dim, len(self.units), *self._options)

    def loss(self, scores_BTU: Tensor, lens_B: Tensor, batch: Batch) -> Tensor:
        """Return the mean CTC loss of an utterance, in nats."""
        return ctc_loss(scores_BTU.log_softmax(-1), lens_B, batch.targets_BL, batch.target_lens_B).mean()

    def read(self, scores_BTU: Tensor, lens_B: Tensor, batch: Batch) -> dict[str, tuple[str, str]]:
        """Return {utterance: (its transcript, the decoded text)}."""
        answers = {}
        for utt, reference, ids in zip(batch.ids, batch.texts, greedy(scores_BTU, lens_B), strict=True):
            assert reference is not None, "data directories are read with need_text for this task"
            answers[utt] = (reference, self.units.decode(ids))
        return answers

    def score(self, answers: dict[str, tuple[str, str]]) -> tuple[dict[str, float], dict[str, list[int]]]:
        """Return wer and cer, and errors and reference tokens of each utterance in the order of the ids."""
        references, hypotheses = zip(*(answers[utt] for utt in sorted(answers)), strict=True)
        row: dict[str, float] = {}
        counts: dict[str, list[int]] = {}
        for metric in ("wer", "cer"):
            errors_U, tokens_U = score.errors(metric, references, hypotheses)
            row |= with_interval(metric, errors_U, tokens_U)
            counts |= {f"{metric}_errors": errors_U.tolist(), f"{metric}_tokens": tokens_U.tolist()}
        return row, counts


class Phones(_EveryFrame):
    """Recognise the phone sequence of an utterance: a linear CTC head, best path, phone error rate (PER)."""

    name = "phone sequence"

    def __init__(self, phones: dict[str, list[str]], inventory: list[str]):
        """Take {utterance: its phones}, without which an utterance is skipped, and the phones of the training set."""
        self.phones, self.inventory = phones, ["<silence>", *inventory]
        self.facts = {"phones": len(inventory)}
        ids = {phone: id for id, phone in enumerate(self.inventory)}
        self._targets = {utt: [ids[p] for p in seq if p in ids] for utt, seq in phones.items()}

    def head(self, dim: int) -> nn.Module:
        """Return a linear head, with scores [B, T, phones + silence], where silence is the blank of CTC."""
        return LinearHead(dim, len(self.inventory))

    def loss(self, scores_BTU: Tensor, lens_B: Tensor, batch: Batch) -> Tensor | None:
        """Return the mean CTC loss of the utterances that have phones, and frames enough for them."""
        targets = [self._targets.get(utt, []) for utt in batch.ids]
        # CTC has no path through fewer frames than targets and repeats need: its loss would be infinite
        fit = [row for row, t in enumerate(targets) if t and frames_needed(t) <= lens_B[row]]
        if not fit:
            return None
        targets_BL, target_lens_B = pad_batch([torch.tensor(targets[row]) for row in fit])
        log_probs_BTU = scores_BTU[fit].log_softmax(-1)
        device = scores_BTU.device
        return ctc_loss(log_probs_BTU, lens_B[fit], targets_BL.to(device), target_lens_B.to(device)).mean()

    def read(self, scores_BTU: Tensor, lens_B: Tensor, batch: Batch) -> dict[str, list[str]]:
        """Return {utterance: the recognised phones}."""
        answers = {}
        for utt, ids in zip(batch.ids, greedy(scores_BTU, lens_B), strict=True):
            if utt in self.phones:
                answers[utt] = [self.inventory[id] for id in ids]
        return answers

    def score(self, answers: dict[str, list[str]]) -> tuple[dict[str, float], dict[str, list[int]]]:
        """Return the phone error rate; a phone counts as a word does in WER."""
        utts = sorted(answers)
        references, hypotheses = ([" ".join(table[utt]) for utt in utts] for table in (self.phones, answers))
        return with_interval("per", *score.errors("wer", references, hypotheses)), {}


class PhoneFrames(_EveryFrame):
    """Classify each frame as a phone or silence, by a linear head; measured by the share of correct frames."""

    name = "phone of a frame"

    def __init__(self, frames: dict[str, list[tuple[int, int, str]]], inventory: list[str]):
        """Take {utterance: [(first frame, end frame, phone)]} and the phones of the training set."""
        self.inventory = ["<silence>", *inventory]
        ids = {phone: id for id, phone in enumerate(self.inventory)}
        self.facts = {"phones": len(inventory)}
        self._spans = {utt: [(a, b, ids.get(p, -1)) for a, b, p in spans] for utt, spans in frames.items()}
        self._last: tuple[Batch | None, Tensor] = (None, torch.empty(0))  # a batch and its classes

    def head(self, dim: int) -> nn.Module:
        """Return a linear head, with scores [B, T, phones + silence]."""
        return LinearHead(dim, len(self.inventory))

    def _labels(self, batch: Batch, lens_B: Tensor) -> Tensor:
        """Return classes [B, T]: -1, which no head can answer, for a phone outside the inventory, -100 for padding."""
        if self._last[0] is not batch:  # every layer asks for the classes of the same batch
            self._last = (batch, self._classes(batch, lens_B))
        return self._last[1]

    def _classes(self, batch: Batch, lens_B: Tensor) -> Tensor:
        """Compute what `_labels` returns."""
        labels_BT = torch.full((len(batch.ids), int(lens_B.max())), -100)
        for row, (utt, length) in enumerate(zip(batch.ids, lens_B.tolist(), strict=True)):
            if utt in self._spans:
                labels_BT[row, :length] = SILENCE
                for first, end, id in self._spans[utt]:
                    labels_BT[row, first : min(end, length)] = id
        return labels_BT.to(lens_B.device)

    def loss(self, scores_BTU: Tensor, lens_B: Tensor, batch: Batch) -> Tensor | None:
        """Return the mean cross-entropy of the frames whose class is known."""
        labels_BT = self._labels(batch, lens_B)
        known_BT = labels_BT >= 0
        if not known_BT.any():
            return None
        return nn.functional.cross_entropy(scores_BTU[:, : labels_BT.shape[1]][known_BT], labels_BT[known_BT])

    def read(self, scores_BTU: Tensor, lens_B: Tensor, batch: Batch) -> dict[str, tuple[int, int]]:
        """Return {utterance: (correct frames, frames)}; the frames of an unknown phone count as wrong."""
        labels_BT = self._labels(batch, lens_B)
        right_BT = scores_BTU[:, : labels_BT.shape[1]].argmax(-1) == labels_BT
        counts = zip(batch.ids, right_BT.sum(1).tolist(), lens_B.tolist(), strict=True)
        return {utt: (right, total) for utt, right, total in counts if utt in self._spans}

    def score(self, answers: dict[str, tuple[int, int]]) -> tuple[dict[str, float], dict[str, list[int]]]:
        """Return the share of correct frames."""
        right_U, total_U = zip(*answers.values(), strict=True)
        return with_interval("frame_accuracy", right_U, total_U), {}


class Speakers:
    """Classify the speaker of an utterance, evaluated on held-out utterances of the training speakers.

    The head reads the mean and the standard deviation over the frames. The mean alone is not enough, since a front end
    may subtract the mean of each utterance, as our log-mel does.
    """

    name = "speaker"
    evaluate_on = "held_out"

    def __init__(self, utterances: Collection[Utterance], held_out: Collection[str]):
        """Take all utterances, and the ids of those that are for the evaluation only."""
        self.inventory = sorted({u.speaker for u in utterances})
        ids = {speaker: id for id, speaker in enumerate(self.inventory)}
        self.facts = {"speakers": len(self.inventory), "speaker_test_utterances": len(held_out)}
        self._speaker, self._held_out = {u.id: ids[u.speaker] for u in utterances}, held_out

    def head(self, dim: int) -> nn.Module:
        """Return a linear head over mean and deviation, with scores [B, 1, speakers]."""
        return LinearHead(2 * dim, len(self.inventory))

    def head_inputs(self, h_BTD: Tensor, lens_B: Tensor) -> tuple[Tensor, Tensor]:
        """Return means and standard deviations over the valid frames, [B, 1, 2 D], and lengths of one."""
        valid_BT1, frames_B11 = valid_mask(lens_B, h_BTD.shape[1])[:, :, None], lens_B.clamp(min=1)[:, None, None]
        mean_B1D = (h_BTD * valid_BT1).sum(1, keepdim=True) / frames_B11
        square_B1D = ((h_BTD - mean_B1D).square() * valid_BT1).sum(1, keepdim=True) / frames_B11
        return torch.cat([mean_B1D, square_B1D.sqrt()], dim=2), torch.ones_like(lens_B)

    def loss(self, scores_B1U: Tensor, lens_B: Tensor, batch: Batch) -> Tensor | None:
        """Return the mean cross-entropy of the utterances that are not held out."""
        rows = [row for row, utt in enumerate(batch.ids) if utt not in self._held_out]
        if not rows:
            return None
        target_B = torch.tensor([self._speaker[batch.ids[row]] for row in rows], device=scores_B1U.device)
        return nn.functional.cross_entropy(scores_B1U[rows, 0], target_B)

    def read(self, scores_B1U: Tensor, lens_B: Tensor, batch: Batch) -> dict[str, int]:
        """Return {utterance: 1 if its speaker is recognised, else 0} of the held-out utterances."""
        best = zip(batch.ids, scores_B1U[:, 0].argmax(-1).tolist(), strict=True)
        return {utt: int(id == self._speaker[utt]) for utt, id in best if utt in self._held_out}

    def score(self, answers: dict[str, int]) -> tuple[dict[str, float], dict[str, list[int]]]:
        """Return the share of utterances whose speaker is recognised."""
        return with_interval("speaker_accuracy", list(answers.values()), [1] * len(answers)), {}


HELD_OUT = 5  # every fifth utterance of a speaker is kept for the evaluation


def held_out(utterances: Sequence[Utterance]) -> set[str]:
    """Return the ids of every fifth utterance, at least one, of each speaker who has two or more.

    Return none if there is only one speaker: any classifier would be right.
    """
    by_speaker: dict[str, list[str]] = {}
    for utt in utterances:
        by_speaker.setdefault(utt.speaker, []).append(utt.id)
    chosen: set[str] = set()
    if len(by_speaker) > 1:
        for ids in by_speaker.values():
            chosen.update(ids[1::HELD_OUT])  # from the second on, so that one is always left to learn from
    return chosen
