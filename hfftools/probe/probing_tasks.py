"""What layers are asked: units, phones or speakers of utterances in, losses of a head's scores and measures out.

A measure comes with its 95 % bootstrap interval over utterances, as `wer`, `wer_low` and `wer_high`.
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


def with_interval(name: str, counts_U: Sequence[int], totals_U: Sequence[int]) -> dict[str, float]:
    """{name: sum(counts) / sum(totals), name_low, name_high}, resampled over U utterances."""
    counts_U, totals_U = np.asarray(counts_U), np.asarray(totals_U)
    low, high = score.interval(counts_U, totals_U)
    return {name: float(counts_U.sum() / max(totals_U.sum(), 1)), f"{name}_low": low, f"{name}_high": high}


class _EveryFrame:
    """Questions whose head reads each frame of a layer."""

    evaluate_on = "dev"
    facts: dict[str, int]  # numbers to state beside the measures

    def enter(self, h_BTD: Tensor, lens_B: Tensor) -> tuple[Tensor, Tensor]:
        return h_BTD, lens_B


class Words(_EveryFrame):
    """Speech recognition: units by CTC, best path; WER and CER."""

    name = "asr"

    def __init__(self, units: Units, head: str, head_dim: int, head_layers: int, dropout: float):
        self.facts = {"units": len(units)}
        self.units, self._head, self._options = units, HEADS[head], (head_dim, head_layers, dropout)

    def head(self, dim: int) -> nn.Module:
        return self._head(dim, len(self.units), *self._options)

    def loss(self, scores_BTU: Tensor, lens_B: Tensor, batch: Batch) -> Tensor:
        return ctc_loss(scores_BTU.log_softmax(-1), lens_B, batch.targets_BL, batch.target_lens_B).mean()

    def read(self, scores_BTU: Tensor, lens_B: Tensor, batch: Batch) -> dict[str, tuple[str, str]]:
        found = map(self.units.decode, greedy(scores_BTU, lens_B))
        return dict(zip(batch.ids, zip(batch.texts, found, strict=True), strict=True))

    def score(self, answers: dict[str, tuple[str, str]]) -> tuple[dict[str, float], dict[str, list[int]]]:
        references, hypotheses = zip(*(answers[utt] for utt in sorted(answers)), strict=True)
        row, counts = {}, {}
        for metric in ("wer", "cer"):
            errors_U, tokens_U = score.errors(metric, references, hypotheses)
            row |= with_interval(metric, errors_U, tokens_U)
            counts |= {f"{metric}_errors": errors_U.tolist(), f"{metric}_tokens": tokens_U.tolist()}
        return row, counts


class Phones(_EveryFrame):
    """The phones of an utterance: their sequence by CTC, best path; the phone error rate (PER)."""

    name = "phone sequence"

    def __init__(self, phones: dict[str, list[str]], inventory: list[str]):
        """`phones` {utterance: its phones}; an utterance that is not in it is passed over."""
        self.phones, self.inventory = phones, ["<silence>", *inventory]
        self.facts = {"phones": len(inventory)}
        ids = {phone: id for id, phone in enumerate(self.inventory)}
        self._targets = {utt: [ids[p] for p in seq if p in ids] for utt, seq in phones.items()}

    def head(self, dim: int) -> nn.Module:
        return LinearHead(dim, len(self.inventory))

    def loss(self, scores_BTU: Tensor, lens_B: Tensor, batch: Batch) -> Tensor | None:
        targets = [self._targets.get(utt, []) for utt in batch.ids]
        fit = [row for row, t in enumerate(targets) if t and frames_needed(t) <= lens_B[row]]
        if not fit:
            return None
        targets_BL, target_lens_B = pad_batch([torch.tensor(targets[row]) for row in fit])
        log_probs_BTU = scores_BTU[fit].log_softmax(-1)
        device = scores_BTU.device
        return ctc_loss(log_probs_BTU, lens_B[fit], targets_BL.to(device), target_lens_B.to(device)).mean()

    def read(self, scores_BTU: Tensor, lens_B: Tensor, batch: Batch) -> dict[str, list[str]]:
        found = zip(batch.ids, greedy(scores_BTU, lens_B), strict=True)
        return {utt: [self.inventory[id] for id in ids] for utt, ids in found if utt in self.phones}

    def score(self, answers: dict[str, list[str]]) -> tuple[dict[str, float], dict[str, list[int]]]:
        utts = sorted(answers)
        references, hypotheses = ([" ".join(table[utt]) for utt in utts] for table in (self.phones, answers))
        return with_interval("per", *score.errors("wer", references, hypotheses)), {}


class PhoneFrames(_EveryFrame):
    """The phone of each frame, or silence, by a classifier; the share of frames that it has right."""

    name = "phone of a frame"

    def __init__(self, frames: dict[str, list[tuple[int, int, str]]], inventory: list[str]):
        """`frames` {utterance: (first frame, end frame, phone) of each of its phones}."""
        self.inventory = ["<silence>", *inventory]
        ids = {phone: id for id, phone in enumerate(self.inventory)}
        self.facts = {"phones": len(inventory)}
        self._spans = {utt: [(a, b, ids.get(p, -1)) for a, b, p in spans] for utt, spans in frames.items()}
        self._last: tuple[Batch | None, Tensor] = (None, torch.empty(0))  # a batch and its classes

    def head(self, dim: int) -> nn.Module:
        return LinearHead(dim, len(self.inventory))

    def _labels(self, batch: Batch, lens_B: Tensor) -> Tensor:
        """Classes [B, T]; -1, which no classifier answers, for a phone outside the inventory, -100 beyond the end."""
        if self._last[0] is not batch:  # every layer asks for the classes of the same batch
            self._last = (batch, self._classes(batch, lens_B))
        return self._last[1]

    def _classes(self, batch: Batch, lens_B: Tensor) -> Tensor:
        labels_BT = torch.full((len(batch.ids), int(lens_B.max())), -100)
        for row, (utt, length) in enumerate(zip(batch.ids, lens_B.tolist(), strict=True)):
            if utt in self._spans:
                labels_BT[row, :length] = SILENCE
                for first, end, id in self._spans[utt]:
                    labels_BT[row, first : min(end, length)] = id
        return labels_BT.to(lens_B.device)

    def loss(self, scores_BTU: Tensor, lens_B: Tensor, batch: Batch) -> Tensor | None:
        labels_BT = self._labels(batch, lens_B)
        known_BT = labels_BT >= 0
        if not known_BT.any():
            return None
        return nn.functional.cross_entropy(scores_BTU[:, : labels_BT.shape[1]][known_BT], labels_BT[known_BT])

    def read(self, scores_BTU: Tensor, lens_B: Tensor, batch: Batch) -> dict[str, tuple[int, int]]:
        labels_BT = self._labels(batch, lens_B)
        right_BT = scores_BTU[:, : labels_BT.shape[1]].argmax(-1) == labels_BT
        counts = zip(batch.ids, right_BT.sum(1).tolist(), lens_B.tolist(), strict=True)
        return {utt: (right, total) for utt, right, total in counts if utt in self._spans}

    def score(self, answers: dict[str, tuple[int, int]]) -> tuple[dict[str, float], dict[str, list[int]]]:
        right_U, total_U = zip(*answers.values(), strict=True)
        return with_interval("frame_accuracy", right_U, total_U), {}


class Speakers:
    """The speaker, from mean and deviation of an utterance's frames, on utterances of known speakers that were held out.

    Both, since a front end may take the mean of an utterance out, as our log-mel does.
    """

    name = "speaker"
    evaluate_on = "held_out"

    def __init__(self, utterances: Collection[Utterance], held_out: Collection[str]):
        self.inventory = sorted({u.speaker for u in utterances})
        ids = {speaker: id for id, speaker in enumerate(self.inventory)}
        self.facts = {"speakers": len(self.inventory), "speaker_test_utterances": len(held_out)}
        self._speaker, self._held_out = {u.id: ids[u.speaker] for u in utterances}, held_out

    def head(self, dim: int) -> nn.Module:
        return LinearHead(2 * dim, len(self.inventory))

    def enter(self, h_BTD: Tensor, lens_B: Tensor) -> tuple[Tensor, Tensor]:
        """Means and standard deviations over the valid frames, [B, 1, 2 D]."""
        valid_BT1, frames_B11 = valid_mask(lens_B, h_BTD.shape[1])[:, :, None], lens_B.clamp(min=1)[:, None, None]
        mean_B1D = (h_BTD * valid_BT1).sum(1, keepdim=True) / frames_B11
        square_B1D = ((h_BTD - mean_B1D).square() * valid_BT1).sum(1, keepdim=True) / frames_B11
        return torch.cat([mean_B1D, square_B1D.sqrt()], dim=2), torch.ones_like(lens_B)

    def loss(self, scores_B1U: Tensor, lens_B: Tensor, batch: Batch) -> Tensor | None:
        rows = [row for row, utt in enumerate(batch.ids) if utt not in self._held_out]
        if not rows:
            return None
        target_B = torch.tensor([self._speaker[batch.ids[row]] for row in rows], device=scores_B1U.device)
        return nn.functional.cross_entropy(scores_B1U[rows, 0], target_B)

    def read(self, scores_B1U: Tensor, lens_B: Tensor, batch: Batch) -> dict[str, int]:
        found = zip(batch.ids, scores_B1U[:, 0].argmax(-1).tolist(), strict=True)
        return {utt: int(id == self._speaker[utt]) for utt, id in found if utt in self._held_out}

    def score(self, answers: dict[str, int]) -> tuple[dict[str, float], dict[str, list[int]]]:
        return with_interval("speaker_accuracy", list(answers.values()), [1] * len(answers)), {}


HELD_OUT = 5  # one utterance in so many of each speaker is kept for the evaluation


def held_out(utterances: Sequence[Utterance]) -> set[str]:
    """Ids of a fifth of each speaker's utterances (at least one), of speakers who have two or more; every fifth in order.

    None of a single speaker, whom no classifier could miss.
    """
    by_speaker: dict[str, list[str]] = {}
    for utt in utterances:
        by_speaker.setdefault(utt.speaker, []).append(utt.id)
    return {id for ids in by_speaker.values() if len(ids) > 1 < len(by_speaker) for id in ids[1::HELD_OUT]}
