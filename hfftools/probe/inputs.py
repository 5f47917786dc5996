"""Provide what a probe reads: the frozen model, transcribed speech, alignments, and hidden states batch by batch.

Axes: B utterances, N samples, T frames of the model, D features of a layer, M log-mel channels.
"""

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
from hfftools.data.inputs import of_set
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
from hfftools.train.experiment import device_of, learnable, open_cache, precision_of, states_from
from hfftools.upstream.base import choose_layers
from hfftools.upstream.extract import extract
from hfftools.upstream.names import load_upstream

BUILT_IN = 200  # sentences of each synthetic set, made if no data is given
UNITS = 100  # BPE pieces, made if no units are given; a transcript has fewer of them than frames, even at 25 frames/s


def fill_empty_paths(config: Config, exp: ExpDir) -> tuple[Config, list[str]]:
    """Return the configuration with every empty path filled in, and one line on each assumption.

    Without data: data/train and data/dev, if a recipe made them, or else a small set of sentences that eSpeak NG speaks
    into the folder of the experiment. Without units: those of the recipe, or BPE pieces of the transcripts. Raise
    UserError if only one of train and dev is given.
    """
    filled, assumed = config, []
    given = {"train": config.train, "dev": config.dev}
    for one, other in (("train", "dev"), ("dev", "train")):
        if given[one] and not given[other]:
            raise UserError(
                f"{one}={given[one]} is given without {other}; add {other}=DIR: train is to learn, dev to score"
            )
    if not config.train and Path("data/train").is_dir():
        filled = replace(filled, train="data/train", dev="data/dev")
        assumed.append(
            "data: data/train and data/dev, which a recipe made here; to use other data, give train=DIR dev=DIR"
        )
        if not config.units and Path("data/units").is_dir():
            filled = replace(filled, units="data/units")
    elif not config.train:
        spoken = exp.built_in
        prepare("mini", None, spoken, BUILT_IN)
        features = config.features or str(exp.kept_states)
        filled = replace(filled, train=str(spoken / "train"), dev=str(spoken / "dev"), features=features)
        assumed.append(
            f"data: none was given, so sets of at most {BUILT_IN} commands spoken by eSpeak NG; layers are compared on "
            "synthetic voices. To use your own, give train=DIR dev=DIR, Kaldi data directories"
        )
    if not filled.units and "asr" in filled.parts:
        units = make("bpe", [u.text or "" for u in datadir.read(filled.train)], UNITS, exp.units)
        filled = replace(filled, units=str(exp.units))
        assumed.append(f"units: {len(units)} BPE pieces of {filled.train}; to use others, give units=DIR (hff-units)")
    return replace(filled, alignments=config.alignments or str(exp.alignments)), assumed


class ProbeInputs:
    """Hold the frozen model, the training and dev speech, and the units, phones and alignments that the parts need."""

    def __init__(self, config: Config):
        """Load the model and read the sets; raise UserError if they share utterances or lack text that a part needs."""
        self.config, self.device, parts = config, device_of(config.device), set(config.parts)
        self.upstream = load_upstream(config.upstream).eval().to(self.device)
        self.upstream.requires_grad_(False)
        self.layers = choose_layers(config.layers, self.upstream, "layers")
        self.units: Units | None = load_units(Path(config.units)) if "asr" in parts else None
        self.phones = Phones(config.phones) if parts & {"phone", "similarity"} else None
        with_text = self.units is not None or self.phones is not None
        self.directories = {"train": config.train, "dev": config.dev}
        self.sets = {key: datadir.read(path, need_text=with_text) for key, path in self.directories.items()}
        shared = {u.id for u in self.sets["train"]} & {u.id for u in self.sets["dev"]}
        if shared:
            raise UserError(
                f"{config.dev}: {len(shared)} utterances are in {config.train} too, first {min(shared)}; remove them"
            )
        for key, utterances in self.sets.items():
            words = " ".join(u.text or "" for u in utterances)
            if with_text and not words.strip():
                raise UserError(
                    f"{self.directories[key]}/text: every transcript is empty; write one for each utterance"
                )
            if self.phones is not None:
                self.phones(words)  # raises UserError for words that a lexicon lacks, before anything is computed
        self._aligned: dict[str, Aligned] | None = None

    def digests(self) -> dict[str, str]:
        """Return digests of all that a result depends on, apart from the configuration."""
        digests = dict(self.upstream.digests)
        for key, utterances in self.sets.items():
            digests |= of_set(key, utterances, speakers=True)
        digests |= {"units": self.units.digest} if self.units else {}
        digests |= {"phones": self.phones.digest} if self.phones else {}
        return digests | precision_of(self.config.features, list(self.directories.values()))

    def open(self) -> None:
        """Set `train` and `dev`; with `features`, first cache the states of each set that has no folder there.

        Raise UserError if a folder in the cache holds other states; it is not changed.
        """
        features, directories = self.config.features, list(self.directories.values())
        if features:
            missing = [d for d in directories if not open_cache(features, d).info_file.exists()]
            if missing:
                seconds, out = self.config.batch_seconds, Path(features)
                extract(self.config.upstream, missing, out, self.layers, seconds, self.device, self.config.workers)
        self.train, self.dev = (self._speech(directory) for directory in directories)

    def _speech(self, directory: str) -> Speech:
        """Return one of the two sets; for training, without utterances too short for their units."""
        train = directory == self.config.train
        if self.units is not None:
            needed = frames_needed if train else None
            return learnable(directory, self.units, self.upstream, self.layers, self.config.features, needed)
        utterances, cache = self.sets["train" if train else "dev"], None
        if self.config.features:
            cache = open_cache(self.config.features, directory)
            cache.check(self.layers, states_from(self.upstream, utterances))
        return Speech(utterances, None, cache, self.layers)

    @property
    def aligned(self) -> dict[str, Aligned]:
        """Return {utterance: the times of its phones and words} of both sets, computed at the first use."""
        if self._aligned is None:
            assert self.phones is not None, "only the parts phone and similarity, which have phones, need alignments"
            config = self.config
            sets, folder = [config.train, config.dev], Path(config.alignments)
            self._aligned = align(config.train, sets, self.phones, folder, config.seed, self.device)
        return self._aligned

    def hidden(self, batch: Batch) -> tuple[dict[int, Tensor], Tensor]:
        """Return ({layer: h [B, T, D]}, frames [B]) of a batch on the device, from the cache or the frozen model."""
        if batch.hidden is not None:
            assert batch.lens_B is not None, "a batch of cached states has their lengths"
            return batch.hidden, batch.lens_B
        assert batch.wav_BN is not None, "a batch without cached states has waveforms"
        with torch.no_grad():
            return self.upstream(batch.wav_BN, batch.num_samples_B, self.layers)

    def frames(self, spans: list[Span]) -> list[tuple[int, int, str]]:
        """Return (first frame, end frame, label) of each span: the frames whose middle lies in it, at least one."""
        stride_s, middle_s = self.upstream.stride_samples / RATE_HZ, self.upstream.middle_samples / RATE_HZ
        segments = []
        for span in spans:
            first, end = (max(0, ceil((at_s - middle_s) / stride_s)) for at_s in (span.start_s, span.end_s))
            nearest = max(0, round(((span.start_s + span.end_s) / 2 - middle_s) / stride_s))
            segments.append((first, end, span.label) if end > first else (nearest, nearest + 1, span.label))
        return segments

    def state_batches(self, most_frames: int, aligned: dict[str, Aligned] | None) -> Iterator[StateBatch]:
        """Yield batches of training utterances drawn at random, the same at each call, of at most `most_frames` frames.

        The log-mel of a frame is the mean of the 10 ms log-mel frames around the middle of the model's frame. Without
        `aligned`, batches have no phones and words.
        """
        chosen = self._draw(most_frames)
        waves, logmel = Speech(self.train.utterances, None), LogMel().to(self.device)
        order = [[chosen[i] for i in batch] for batch in self._order(chosen)]
        # the waveforms are read separately: with cached states, the batches of `train` have none
        workers = self.config.workers
        for batch, audio in zip(self.train.batches(order, workers), waves.batches(order, workers), strict=True):
            batch, audio = batch.to(self.device), audio.to(self.device)
            hidden, lens_B = self.hidden(batch)
            mel_BTM, mel_lens_B = logmel(audio.wav_BN, audio.num_samples_B)
            mel_BTM = self._mel(mel_BTM, mel_lens_B, next(iter(hidden.values())).shape[1])
            labels: dict[str, Any] = {"phones": None, "words": None}
            if aligned is not None:
                times = [aligned.get(utt, Aligned([], [])) for utt in batch.ids]
                labels["phones"] = [self.frames(utt.phones) for utt in times]
                labels["words"] = [self.frames(utt.words) for utt in times]
            yield StateBatch(batch.ids, hidden, lens_B, mel_BTM, **labels)

    def _mel(self, mel_BTM: Tensor, mel_lens_B: Tensor, frames: int) -> Tensor:
        """Return log-mel [B, frames, M] at the model's frames, from log-mel every 10 ms; the ends are repeated."""
        stride = self.upstream.stride_samples
        span = torch.arange(max(1, round(stride / HOP_SAMPLES)), device=mel_BTM.device)
        middle_T = (self.upstream.middle_samples - WINDOW_SAMPLES / 2 + stride * torch.arange(frames)) / HOP_SAMPLES
        at_TS = (middle_T.to(mel_BTM.device)[:, None] - (len(span) - 1) / 2 + span).round().long()
        at_BTS = at_TS.clamp(min=0).minimum(mel_lens_B.clamp(min=1)[:, None, None] - 1)
        rows_B11 = torch.arange(len(mel_BTM), device=mel_BTM.device)[:, None, None]
        return mel_BTM[rows_B11, at_BTS].mean(2)

    def _draw(self, most_frames: int) -> list[int]:
        """Return indices of training utterances of at most `most_frames` frames in total, at least one utterance."""
        frames_U = np.array(self.train.durations_s) * self.upstream.frame_rate_hz
        mixed = np.random.default_rng(self.config.seed).permutation(len(frames_U))
        return sorted(mixed[: max(1, int((np.cumsum(frames_U[mixed]) <= most_frames).sum()))].tolist())

    def _order(self, chosen: list[int]) -> list[list[int]]:
        """Return batches of positions in `chosen`."""
        return plan([self.train.durations_s[i] for i in chosen], self.config.batch_seconds)

    def dev_batches(self) -> Iterator[Batch]:
        """Yield the batches of the dev set."""
        yield from self.dev.batches(plan(self.dev.durations_s, self.config.batch_seconds), self.config.workers)

    def train_batches(self, ids: set[str]) -> Iterator[Batch]:
        """Yield batches of the utterances `ids` of the training set."""
        chosen = [i for i, utt in enumerate(self.train.utterances) if utt.id in ids]
        yield from self.train.batches(
            [[chosen[i] for i in batch] for batch in self._order(chosen)], self.config.workers
        )


def forget_states(exp: ExpDir) -> None:
    """Remove the hidden states of the built-in set."""
    shutil.rmtree(exp.kept_states, ignore_errors=True)
