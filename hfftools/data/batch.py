"""Group utterances into padded batches of limited duration, from waveforms or from cached hidden states.

The order of the batches depends on (seed, epoch) only, so a resumed run sees the same batches as an uninterrupted one.

Axes: B utterances, N samples, T frames, D features, L units of a transcript.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from copy import copy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol
from zlib import crc32

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader, Dataset

from hfftools import memory
from hfftools.data import datadir
from hfftools.data.datadir import Utterance
from hfftools.data.perturb import Perturb
from hfftools.log import UserError


@dataclass(frozen=True)
class Batch:
    """Hold B utterances, either as waveforms or as cached hidden states of the upstream."""

    ids: list[str]
    texts: list[str | None]
    seconds: float  # summed duration, without padding
    wav_BN: Tensor | None  # float32, 16 kHz
    num_samples_B: Tensor | None
    hidden: dict[int, Tensor] | None  # {layer: [B, T, D]}
    lens_B: Tensor | None  # frames of `hidden`
    targets_BL: Tensor  # unit ids, zero-padded
    target_lens_B: Tensor

    @property
    def seconds_B(self) -> list[float]:
        """Return the duration of each utterance: its share of the summed one."""
        lens_B = self.num_samples_B if self.lens_B is None else self.lens_B
        assert lens_B is not None, "a batch holds waveforms or cached states"
        return (lens_B * (self.seconds / max(1, int(lens_B.sum())))).tolist()

    def to(self, device: torch.device) -> "Batch":
        """Return the batch with all tensors on `device`."""
        return self._map(lambda tensor: tensor.to(device))

    def select(self, rows: Sequence[int]) -> "Batch":
        """Return the utterances at `rows`; the padding is kept, and `seconds` remains that of the whole batch."""
        chosen = self._map(lambda tensor: tensor[list(rows)])
        return replace(chosen, ids=[self.ids[row] for row in rows], texts=[self.texts[row] for row in rows])

    def _map(self, change: Callable[[Tensor], Tensor]) -> "Batch":
        """Return the batch with every tensor changed; each has B as its first axis."""
        changed: dict[str, Any] = {key: change(value) for key, value in vars(self).items() if isinstance(value, Tensor)}
        if self.hidden is not None:
            changed["hidden"] = {layer: change(h_BTD) for layer, h_BTD in self.hidden.items()}
        return replace(self, **changed)

    def random_seeds(self, seed: int, epoch: int) -> list[tuple[int, int, int]]:
        """Return one seed per utterance, which does not depend on the batch that contains it."""
        return [(seed, epoch, crc32(utt.encode())) for utt in self.ids]


def waveform_batch(wavs: Sequence[Tensor], seconds: float, ids: Sequence[str]) -> Batch:
    """Return waveforms [N_i] at 16 kHz as a batch without transcripts; `seconds` is their summed duration."""
    wav_BN, num_samples_B = pad_batch(wavs)
    targets_BL, target_lens_B = pad_batch([torch.zeros(0, dtype=torch.long)] * len(wavs))
    texts: list[str | None] = [None] * len(wavs)
    return Batch(list(ids), texts, seconds, wav_BN, num_samples_B, None, None, targets_BL, target_lens_B)


def plan(
    durations_s: Sequence[float], batch_seconds: float, seed: int | None = None, epoch: int = 0
) -> list[list[int]]:
    """Group utterances of similar duration; return the utterance indices of each batch.

    The padded size of a batch (number of utterances times longest duration) is at most `batch_seconds`; an utterance
    longer than that forms a batch by itself. Without a seed, batches are sorted from longest to shortest. With a seed,
    durations are perturbed before sorting and batches are shuffled, differently in each epoch.
    """
    durations = np.asarray(durations_s, float)
    rng = np.random.default_rng([seed, epoch]) if seed is not None else None
    # up to 10 % of noise on the sort key, so that batches are composed differently in each epoch
    blur = durations * rng.uniform(0.9, 1.1, len(durations)) if rng is not None else durations
    batches: list[list[int]] = []
    longest = 0.0
    for index in np.argsort(-blur, kind="stable").tolist():
        longest = max(longest, durations[index])
        if batches and longest * (len(batches[-1]) + 1) <= batch_seconds:
            batches[-1].append(index)
        else:
            batches.append([index])
            longest = durations[index]
    if rng is not None:
        rng.shuffle(batches)
    return batches


def pad_batch(rows: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Pad with zeros waveforms [N_i], label ids [L_i] or frames [T_i, D] to [B, longest, …]; return them and lengths [B]."""
    return pad_sequence(list(rows), batch_first=True), torch.tensor([len(row) for row in rows])


class StateReader(Protocol):
    """Define the cache interface that `Speech` reads; upstream/state_cache.py implements it."""

    def read(self, utt: str, layers: Iterable[int]) -> dict[int, np.ndarray]:
        """Return {layer: h [T, D] float32} of one utterance."""


class Encoder(Protocol):
    """Define what `Speech` needs of targets: the ids of a text."""

    def encode(self, text: str) -> list[int]:
        """Return the ids of an utterance's reference."""


class Targets(Encoder, Protocol):
    """Define what a task can predict: the units of a recogniser (text/units.py), the labels of a classifier."""

    @property
    def digest(self) -> str:
        """Return a text that differs between different targets; an experiment records it among its inputs."""

    def unknown(self, text: str) -> list[str]:
        """Return what of an utterance's reference cannot be predicted, each part once."""

    def save(self, folder: Path | str) -> None:
        """Write the folder that the task's `load_targets` reads."""


class Speech(Dataset):
    """Provide utterances with the ids of their targets; read hidden states from `cache`, if given, instead of the audio.

    With `perturb`, audio is perturbed as in one epoch of training: epoch 0, or the epoch passed to `at`.
    """

    def __init__(
        self,
        utterances: list[Utterance],
        targets: Encoder | None,
        cache: StateReader | None = None,
        layers: Sequence[int] = (),
        perturb: Perturb | None = None,
    ):
        assert cache is None or perturb is None, "cached states are those of unperturbed speech"
        self.utterances, self.cache, self.layers, self.perturb = utterances, cache, list(layers), perturb
        self.targets = [targets.encode(u.text) if targets and u.text is not None else [] for u in utterances]
        self._set_epoch(0)

    def _set_epoch(self, epoch: int) -> None:
        self.epoch = epoch
        speeds = [self.perturb.speed(u.id, epoch) if self.perturb else 1.0 for u in self.utterances]
        self.durations_s = [u.duration_s / speed for u, speed in zip(self.utterances, speeds, strict=True)]

    def at(self, epoch: int) -> "Speech":
        """Return this dataset with the perturbations of the given training epoch."""
        if self.perturb is None:
            return self
        other = copy(self)
        other._set_epoch(epoch)
        return other

    def __len__(self) -> int:
        return len(self.utterances)

    def __getitem__(self, index: int) -> tuple[int, Any]:
        """Return the index with the waveform [N] of an utterance or, with a cache, {layer: h [T, D]}."""
        utt = self.utterances[index]
        if self.cache is not None:
            return index, {k: torch.from_numpy(h) for k, h in self.cache.read(utt.id, self.layers).items()}
        samples = datadir.load(utt)
        return index, torch.from_numpy(self.perturb(samples, utt.id, self.epoch) if self.perturb else samples)

    def collate(self, items: list[tuple[int, Any]]) -> Batch:
        """Return what `__getitem__` gave for several utterances as one padded batch."""
        chosen = [self.utterances[index] for index, _ in items]
        targets = [torch.tensor(self.targets[index], dtype=torch.long) for index, _ in items]
        wav_BN = num_samples_B = hidden = lens_B = None
        if self.cache is None:
            wav_BN, num_samples_B = pad_batch([wav for _, wav in items])
        else:
            padded: dict[int, Tensor] = {}
            for layer in self.layers:
                padded[layer], lens_B = pad_batch([h[layer] for _, h in items])  # all layers have the same lengths
            hidden = padded
        targets_BL, target_lens_B = pad_batch(targets)
        return Batch(
            ids=[u.id for u in chosen],
            texts=[u.text for u in chosen],
            seconds=sum(self.durations_s[index] for index, _ in items),
            wav_BN=wav_BN,
            num_samples_B=num_samples_B,
            hidden=hidden,
            lens_B=lens_B,
            targets_BL=targets_BL,
            target_lens_B=target_lens_B,
        )

    def batch(self, rows: Sequence[int]) -> Batch:
        """Return the utterances at `rows` as one batch, read by this process."""
        self.work_on(rows)
        return self.collate([self[row] for row in rows])

    def work_on(self, rows: Sequence[int]) -> None:
        """Announce that the utterances at `rows` are computed next, to be named where memory runs out."""
        memory.work_on([self.utterances[row].id for row in rows], [self.durations_s[row] for row in rows])

    def batches(self, order: list[list[int]], workers: int = 0) -> Iterator[Batch]:
        """Yield the batches of `order`, prefetched by `workers` processes (none for cached states, which load quickly)."""
        workers = 0 if self.cache is not None else workers
        loader = iter(DataLoader(self, batch_sampler=order, collate_fn=self.collate, num_workers=workers))
        try:
            for rows in order:
                self.work_on(rows)
                yield next(loader)
            memory.work_on((), ())
        except UserError as error:  # a worker's error carries a traceback; its last line is our message
            raise UserError(str(error).strip().splitlines()[-1].rpartition("UserError: ")[2]) from None
