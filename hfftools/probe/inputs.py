"""What is looked at: a configuration in; the frozen model, its transcribed speech, and hidden states by batch out."""

import shutil
from collections.abc import Iterator
from dataclasses import replace
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hfftools.corpora.prepare import prepare
from hfftools.data import datadir
from hfftools.data.batch import Batch, Speech, plan
from hfftools.expdir import ExpDir
from hfftools.log import UserError
from hfftools.nn.ctc import frames_needed
from hfftools.nn.logmel import HOP_SAMPLES, RATE_HZ, WINDOW_SAMPLES, LogMel
from hfftools.probe.alignment import Aligned, Span, align
from hfftools.probe.config import Config
from hfftools.probe.state_batch import StateBatch
from hfftools.text.phones import Phones
from hfftools.text.units import Units
from hfftools.text.units import load as load_units
from hfftools.text.units import make
from hfftools.train.experiment import device_of, learnable, open_cache
from hfftools.upstream.base import choose_layers
from hfftools.upstream.extract import extract
from hfftools.upstream.names import load_upstream

BUILT_IN = 200  # sentences of the set that is spoken where no data is given
UNITS = 100  # of the pieces that are made where no units are given: fewer than frames, even at 25 frames/s


def settle(config: Config, exp: ExpDir) -> tuple[Config, list[str]]:
    """(the configuration with every empty path filled in, what had to be assumed, one line each).

    Without data: that of data/train and data/dev where a recipe made them, or else a small set of sentences spoken by
    eSpeak NG into the folder of the experiment. Without units: those of the recipe, or BPE pieces of the transcripts.
    """
    filled, assumed = config, []
    given = {"train": config.train, "dev": config.dev}
    for one, other in (("train", "dev"), ("dev", "train")):
        if given[one] and not given[other]:
            raise UserError(
                f"{one}={given[one]} was given without {other}; a probe learns from train, is scored on dev"
            )
    if not config.train and Path("data/train").is_dir():
        filled = replace(filled, train="data/train", dev="data/dev")
        assumed.append("data: data/train and data/dev, which a recipe made here; others by train=DIR dev=DIR")
        if not config.units and Path("data/units").is_dir():
            filled = replace(filled, units="data/units")
    elif not config.train:
        spoken = exp.built_in
        prepare("mini", None, spoken, BUILT_IN)
        features = config.features or str(exp.kept_states)
        filled = replace(filled, train=str(spoken / "train"), dev=str(spoken / "dev"), features=features)
        assumed.append(
            f"data: none was given, so at most {BUILT_IN} commands a set, spoken by eSpeak NG; layers are compared on "
            "synthetic voices. Your own by train=DIR dev=DIR, in Kaldi's form"
        )
    if not filled.units and "asr" in filled.parts:
        units = make("bpe", [u.text for u in datadir.read(filled.train)], UNITS, exp.units)
        filled = replace(filled, units=str(exp.units))
        assumed.append(f"units: {len(units)} BPE pieces of {filled.train}; others by units=DIR (hff-units)")
    return replace(filled, alignments=config.alignments or str(exp.alignments)), assumed


class Material:
    """The model, the speech, and what is known of it."""

    def __init__(self, config: Config):
        self.config, self.device, self.asked = config, device_of(config.device), set(config.parts)
        self.upstream = load_upstream(config.upstream).eval().to(self.device)
        self.upstream.requires_grad_(False)
        self.layers = choose_layers(config.layers, self.upstream, "layers")
        self.units: Units | None = load_units(Path(config.units)) if "asr" in self.asked else None
        self.phones = Phones(config.phones) if self.asked & {"phone", "similarity"} else None
        with_text = self.units is not None or self.phones is not None
        self.directories = {"train": config.train, "dev": config.dev}
        self.sets = {key: datadir.read(path, need_text=with_text) for key, path in self.directories.items()}
        shared = {u.id for u in self.sets["train"]} & {u.id for u in self.sets["dev"]}
        if shared:
            raise UserError(f"{config.dev}: {len(shared)} utterances are in {config.train} too, first {min(shared)}")
        for key, utterances in self.sets.items():
            words = " ".join(u.text or "" for u in utterances)
            if with_text and not words.strip():
                raise UserError(f"{self.directories[key]}/text: every transcript is empty")
            if self.phones is not None:
                self.phones(words)  # a lexicon that lacks words says so before anything is computed
        self._aligned: dict[str, Aligned] | None = None

    def inputs(self) -> dict[str, str]:
        """Digests of all that a result depends on beside the configuration."""
        digests = {key: datadir.digest(utterances) for key, utterances in self.sets.items()}
        digests |= {"units": self.units.digest} if self.units else {}
        digests |= {"phones": self.phones.digest} if self.phones else {}
        return {"upstream": self.upstream.hash, **digests}

    def open(self) -> None:
        """Make the speech ready, `train` and `dev`; with `features`, fill the cache with the sets that have no folder in it.

        A folder of other states is left, and refused.
        """
        features, directories = self.config.features, list(self.directories.values())
        if features:
            missing = [d for d in directories if not open_cache(features, d, [])[0].info_file.exists()]
            if missing:
                seconds, out = self.config.batch_seconds, Path(features)
                extract(self.config.upstream, missing, out, self.layers, seconds, self.device)
        self.train, self.dev = (self._speech(directory) for directory in directories)

    def _speech(self, directory: str) -> Speech:
        train = directory == self.config.train
        if self.units is not None:
            needed = frames_needed if train else None
            return learnable(directory, self.units, self.upstream, self.layers, self.config.features, needed)
        utterances, cache = self.sets["train" if train else "dev"], None
        if self.config.features:
            cache, digest = open_cache(self.config.features, directory, utterances)
            cache.check(self.upstream.hash, self.layers, digest)
        return Speech(utterances, None, cache, self.layers)

    @property
    def aligned(self) -> dict[str, Aligned]:
        """When each phone and word of both sets is spoken; made at first use, and kept."""
        if self._aligned is None:
            config = self.config
            sets, folder = [config.train, config.dev], Path(config.alignments)
            self._aligned = align(config.train, sets, self.phones, folder, config.seed, self.device)
        return self._aligned

    def hidden(self, batch: Batch) -> tuple[dict[int, Tensor], Tensor]:
        """({layer: h [B, T, D]}, lens [B]) of a batch on the device, from the cache or the frozen model."""
        if batch.hidden is not None:
            return batch.hidden, batch.lens_B
        with torch.no_grad():
            return self.upstream(batch.wav_BN, batch.num_samples_B, self.layers)

    def frames(self, spans: list[Span]) -> list[tuple[int, int, str]]:
        """Spans of time -> (first frame, end frame, label): the frames whose middle lies in the span, at least one."""
        stride_s, middle_s = self.upstream.stride_samples / RATE_HZ, self.upstream.middle_samples / RATE_HZ
        found = []
        for span in spans:
            first, end = (max(0, ceil((at_s - middle_s) / stride_s)) for at_s in (span.start_s, span.end_s))
            nearest = max(0, round(((span.start_s + span.end_s) / 2 - middle_s) / stride_s))
            found.append((first, end, span.label) if end > first else (nearest, nearest + 1, span.label))
        return found

    def state_batches(self, most_frames: int, aligned: dict[str, Aligned] | None) -> Iterator[StateBatch]:
        """Batches of training utterances drawn at random until they have `most_frames` frames, always the same ones.

        Log-mel frames of 10 ms are averaged to as many as make a frame of the model, around its middle.
        """
        chosen = self._draw(most_frames)
        waves, logmel = Speech(self.train.utterances, None), LogMel().to(self.device)
        order = [[chosen[i] for i in batch] for batch in self._order(chosen)]
        for batch, heard in zip(self.train.batches(order, 1), waves.batches(order, 1), strict=True):
            batch, heard = batch.to(self.device), heard.to(self.device)
            hidden, lens_B = self.hidden(batch)
            mel_BTM = self._mel(*logmel(heard.wav_BN, heard.num_samples_B), next(iter(hidden.values())).shape[1])
            labels: dict[str, Any] = {"phones": None, "words": None}
            if aligned is not None:
                found = [aligned.get(utt, Aligned([], [])) for utt in batch.ids]
                labels = {key: [self.frames(getattr(a, key)) for a in found] for key in labels}
            yield StateBatch(batch.ids, hidden, lens_B, mel_BTM, **labels)

    def _mel(self, mel_BTM: Tensor, mel_lens_B: Tensor, frames: int) -> Tensor:
        """Log-mel [B, frames, M] at the model's frames, from log-mel every 10 ms; beyond the ends stands the last frame."""
        stride = self.upstream.stride_samples
        span = torch.arange(max(1, round(stride / HOP_SAMPLES)), device=mel_BTM.device)
        middle_T = (self.upstream.middle_samples - WINDOW_SAMPLES / 2 + stride * torch.arange(frames)) / HOP_SAMPLES
        at_TS = (middle_T.to(mel_BTM.device)[:, None] - (len(span) - 1) / 2 + span).round().long()
        at_BTS = at_TS.clamp(min=0).minimum(mel_lens_B.clamp(min=1)[:, None, None] - 1)
        rows_B11 = torch.arange(len(mel_BTM), device=mel_BTM.device)[:, None, None]
        return mel_BTM[rows_B11, at_BTS].mean(2)

    def _draw(self, most_frames: int) -> list[int]:
        frames_U = np.array(self.train.durations_s) * self.upstream.frame_rate_hz
        mixed = np.random.default_rng(self.config.seed).permutation(len(frames_U))
        return sorted(mixed[: max(1, int((np.cumsum(frames_U[mixed]) <= most_frames).sum()))].tolist())

    def _order(self, chosen: list[int]) -> list[list[int]]:
        return plan([self.train.durations_s[i] for i in chosen], self.config.batch_seconds)

    def dev_batches(self) -> Iterator[Batch]:
        """The dev set, once."""
        yield from self.dev.batches(plan(self.dev.durations_s, self.config.batch_seconds), 1)

    def train_batches(self, ids: set[str]) -> Iterator[Batch]:
        """Some utterances of the training set, once."""
        chosen = [i for i, utt in enumerate(self.train.utterances) if utt.id in ids]
        yield from self.train.batches([[chosen[i] for i in batch] for batch in self._order(chosen)], 1)


def forget_states(exp: ExpDir) -> None:
    """Remove the hidden states that were kept for the built-in set."""
    shutil.rmtree(exp.kept_states, ignore_errors=True)
