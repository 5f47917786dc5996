"""Batches of hidden states with the labels of their frames, as layer statistics read them: utterance by utterance."""

import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from hfftools.probe.covariance import View

FOLDS = 4  # for PWCCA: two train, one dev, one test, rotated

Segment = tuple[int, int, str]  # first frame, end frame (exclusive), label


@dataclass(frozen=True)
class StateBatch:
    """Hidden states, log-mel and labels of one batch of utterances; all tensors on one device."""

    ids: list[str]
    hidden: dict[int, Tensor]  # {layer: [B, T, D]}; widths may differ between layers
    lens_B: Tensor  # valid frames
    mel_BTM: Tensor  # log-mel at the same frames
    phones: list[list[Segment]] | None  # of each utterance; None: no alignment
    words: list[list[Segment]] | None

    def utterances(self, layers: list[int]) -> Iterator[tuple[int, dict[View, Tensor], dict[str, list[Segment]]]]:
        """Yield (fold, {view: valid frames [T, D]}, {kind: segments}) of each utterance that has frames."""
        labels = {"phone": self.phones, "word": self.words}
        for row, (utt, frames) in enumerate(zip(self.ids, self.lens_B.tolist(), strict=True)):
            if frames == 0:
                continue
            views: dict[View, Tensor] = {layer: self.hidden[layer][row, :frames] for layer in layers}
            views["mel"] = self.mel_BTM[row, :frames]
            views["norm"] = torch.stack([self.hidden[layer][row, :frames].double().norm(dim=1) for layer in layers], 1)
            segments = {kind: of_all[row] for kind, of_all in labels.items() if of_all is not None}
            # the fold follows from the utterance alone, so that it does not depend on how batches are made
            yield zlib.crc32(utt.encode()) % FOLDS, views, segments
