"""What is looked at: a configuration in; the frozen model, its transcribed speech, and hidden states by batch out."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import OmegaConf
from torch import Tensor

from hfftools.analysis.align import Aligned, Span, align
from hfftools.analysis.survey import Look
from hfftools.data import datadir
from hfftools.data.batch import Batch, Speech, plan
from hfftools.data.phones import Phones
from hfftools.data.prepare import prepare
from hfftools.data.units import Units
from hfftools.data.units import load as load_units
from hfftools.data.units import make
from hfftools.expdir import ExpDir
from hfftools.log import UserError
from hfftools.model import choose_layers
from hfftools.nn.logmel import HOP_SAMPLES, RATE_HZ, LogMel
from hfftools.train.experiment import device_of, learnable, open_cache
from hfftools.train.extract import extract
from hfftools.upstream.names import load_upstream
from hfftools.upstream.pair import align as to_frames

BUILT_IN = 200  # sentences of the set that is spoken where no data is given


def settle(config: Any, exp: ExpDir) -> tuple[Any, list[str]]:
    """(the configuration with every empty path filled in, what had to be assumed, one line each).

    Without data: that of data/train and data/dev where a recipe made them, or else a small set of sentences spoken by
    eSpeak NG into the folder of the experiment. Without units: those of the recipe, or the characters of the transcripts.
    """
    filled, assumed = config.copy(), []
    OmegaConf.set_readonly(filled, False)
    for one, other in (("train", "dev"), ("dev", "train")):
        if config[one] and not config[other]:
            raise UserError(
                f"{one}={config[one]} was given without {other}; a probe learns from train, is scored on dev"
            )
    if not config.train and Path("data/train").is_dir():
        filled.train, filled.dev = "data/train", "data/dev"
        assumed.append("data: data/train and data/dev, which a recipe made here; others by train=DIR dev=DIR")
        if not config.units and Path("data/units").is_dir():
            filled.units = "data/units"
    elif not config.train:
        spoken = exp.built_in
        prepare("mini", None, spoken, BUILT_IN)
        filled.train, filled.dev = str(spoken / "train"), str(spoken / "dev")
        filled.features = config.features or str(exp.kept_states)
        assumed.append(
            f"data: none was given, so {BUILT_IN} commands spoken by eSpeak NG; layers are compared on synthetic voices. "
            "Your own by train=DIR dev=DIR, in Kaldi's form"
        )
    if not filled.units:
        texts = [u.text for u in datadir.read(filled.train)]
        units = make("char", texts, None, exp.units)
        filled.units = str(exp.units)
        assumed.append(f"units: the {len(units)} characters of {filled.train}; others by units=DIR (hff-units)")
    filled.alignments = config.alignments or str(exp.alignments)
    OmegaConf.set_readonly(filled, True)
    return filled, assumed


class Material:
    """The model, the speech, and what is known of it."""

    def __init__(self, config: Any):
        self.config, self.device = config, device_of(config.device)
        self.upstream = load_upstream(config.upstream).eval().to(self.device)
        self.upstream.requires_grad_(False)
        self.layers = choose_layers(config.layers, self.upstream, "layers")
        self.units: Units = load_units(Path(config.units))
        if config.features:
            self._keep_states()
        self.train, self.dev = (self._speech(config[key], key == "train") for key in ("train", "dev"))
        self._aligned: dict[str, Aligned] | None = None

    def _keep_states(self) -> None:
        """Fill the cache with the sets that have no folder in it; a folder of other states is left, and refused later."""
        sets = [self.config[key] for key in ("train", "dev")]
        missing = [d for d in sets if not open_cache(self.config.features, d, [])[0].info_file.exists()]
        if missing:
            seconds, out = self.config.batch_seconds, Path(self.config.features)
            extract(self.config.upstream, missing, out, self.layers, seconds, self.device)

    def _speech(self, directory: str, train: bool) -> Speech:
        return learnable(directory, self.units, self.upstream, self.layers, self.config.features, train)

    def inputs(self) -> dict[str, str]:
        """Digests of all that a result depends on beside the configuration."""
        digests = {key: datadir.digest(datadir.read(self.config[key])) for key in ("train", "dev")}
        phones = Phones(self.config.phones).digest
        return {"upstream": self.upstream.hash, "units": self.units.digest, "phones": phones, **digests}

    @property
    def aligned(self) -> dict[str, Aligned]:
        """When each phone and word of both sets is spoken; made at first use, and kept."""
        if self._aligned is None:
            config, phones = self.config, Phones(self.config.phones)
            sets, folder = [config.train, config.dev], Path(config.alignments)
            self._aligned = align(config.train, sets, phones, folder, config.seed, self.device)
        return self._aligned

    def hidden(self, batch: Batch) -> tuple[dict[int, Tensor], Tensor]:
        """({layer: h [B, T, D]}, lens [B]) of a batch on the device, from the cache or the frozen model."""
        if batch.hidden is not None:
            return batch.hidden, batch.lens_B
        with torch.no_grad():
            return self.upstream(batch.wav_BN, batch.num_samples_B, self.layers)

    def frames(self, spans: list[Span]) -> list[tuple[int, int, str]]:
        """Spans of time -> (first frame, end frame, label): the frames whose middle lies in the span, at least one."""
        stride_s = self.upstream.stride_samples / RATE_HZ
        found = []
        for span in spans:
            first, end = (round(at_s / stride_s) for at_s in (span.start_s, span.end_s))
            nearest = int((span.start_s + span.end_s) / 2 / stride_s)
            found.append((first, end, span.label) if end > first else (nearest, nearest + 1, span.label))
        return found

    def looks(self, most_frames: int, aligned: dict[str, Aligned] | None) -> Iterator[Look]:
        """Batches of training utterances drawn at random until they have `most_frames` frames, always the same ones.

        Log-mel frames of 10 ms are averaged to as many as make a frame of the model.
        """
        chosen = self._draw(most_frames)
        waves, logmel = Speech(self.train.utterances, None), LogMel().to(self.device)
        order = [[chosen[i] for i in batch] for batch in self._order(chosen)]
        stride = self.upstream.stride_samples
        pool = max(1, round(stride / HOP_SAMPLES))
        for batch, heard in zip(self.train.batches(order, 1), waves.batches(order, 1), strict=True):
            batch, heard = batch.to(self.device), heard.to(self.device)
            hidden, lens_B = self.hidden(batch)
            mel_BTM, mel_lens_B = logmel(heard.wav_BN, heard.num_samples_B)
            mel_BTM = torch.nn.functional.avg_pool1d(mel_BTM.transpose(1, 2), pool, ceil_mode=True).transpose(1, 2)
            frames = next(iter(hidden.values())).shape[1]
            mel_BTM = to_frames(mel_BTM, (mel_lens_B // pool).clamp(min=1), pool * HOP_SAMPLES, stride, frames)
            labels: dict[str, Any] = {"phones": None, "words": None}
            if aligned is not None:
                found = [aligned.get(utt, Aligned([], [])) for utt in batch.ids]
                labels = {key: [self.frames(getattr(a, key)) for a in found] for key in labels}
            yield Look(batch.ids, hidden, lens_B, mel_BTM, **labels)

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
