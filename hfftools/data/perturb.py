"""Perturb the speed of speech and add noise, either per training epoch or as a copied data directory.

Pitch and tempo change together (Ko et al. 2015, Kaldi's perturb_data_dir_speed). Random numbers depend on (seed, epoch,
utterance) only, not on batches or on the process that loads them. The number of threads of a process may change the
rounding of the resampling.
"""

import re
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from itertools import product
from pathlib import Path

import numpy as np
import torch
import torchaudio

from hfftools.audio import waveform
from hfftools.audio.command import threads
from hfftools.config import between
from hfftools.data import datadir, noise
from hfftools.data.datadir import Utterance
from hfftools.data.inputs import of_set
from hfftools.data.table import listed, read_loosely
from hfftools.log import UserError, log, progress, require

COPY = re.compile(r"sp[0-9.]+-")  # how the names of copied utterances and speakers begin


@dataclass(frozen=True)
class Config:
    """Configure the perturbation of training waveforms; by default they are unchanged."""

    speeds: list[float] = field(default_factory=lambda: [1.0])  # speed factors; one is drawn per utterance and epoch
    noise_share: float = 0.0  # share of utterances (0 to 1) that get noise, drawn again each epoch
    noise: str = ""  # data directory or folder of noise recordings; empty: synthetic coloured noise
    snr_db: list[float] = field(default_factory=lambda: [10.0, 30.0])  # lowest and highest signal-to-noise ratio, in dB

    def __post_init__(self):
        _check_speeds(self.speeds, "perturb.speeds")
        between(self, 0, 1, "noise_share")
        unused = bool(self.noise) and self.noise_share == 0
        require(
            not unused,
            f"perturb.noise: {self.noise} has no effect while perturb.noise_share is 0; set that, or leave it out",
        )
        ordered = len(self.snr_db) == 2 and self.snr_db[0] <= self.snr_db[1]
        require(ordered, f"perturb.snr_db: {list(self.snr_db)} is not a lowest and a highest, as in [10,30]")

    @property
    def wanted(self) -> bool:
        return set(self.speeds) != {1.0} or self.noise_share > 0


class Perturb:
    """Apply speed perturbation and noise to training speech."""

    def __init__(self, config: Config, seed: int):
        self.config, self.seed = config, seed
        self.recordings = noise.recordings(config.noise) if config.noise else []

    def _number(self, utt: str, epoch: int) -> int:
        return int.from_bytes(blake2b(f"{self.seed} {epoch} {utt}".encode(), digest_size=8).digest())

    def speed(self, utt: str, epoch: int) -> float:
        """Return the speed factor of an utterance in an epoch; cheap, because batches are planned with it."""
        return self.config.speeds[self._number(utt, epoch) % len(self.config.speeds)]

    def __call__(self, samples: np.ndarray, utt: str, epoch: int) -> np.ndarray:
        """Return the perturbed samples [N / speed] of an utterance in an epoch."""
        samples = at_speed(samples, self.speed(utt, epoch))
        rng = np.random.default_rng(self._number(utt, epoch))
        if rng.random() >= self.config.noise_share:
            return samples
        low_db, high_db = self.config.snr_db
        snr_db = rng.uniform(low_db, high_db)
        if self.recordings:
            recording = self.recordings[rng.integers(len(self.recordings))]
            return noise.mix(samples, noise.excerpt(recording, len(samples), rng), snr_db)
        fast = 1 << (len(samples) - 1).bit_length()  # a power of two: other FFT lengths can be several times slower
        return noise.mix(samples, noise.coloured(fast, rng)[: len(samples)], snr_db)


def at_speed(samples: np.ndarray, factor: float) -> np.ndarray:
    """Resample [N] to [N / factor], which is faster by `factor` when played at the same sampling rate."""
    if factor == 1:
        return samples
    return torchaudio.functional.resample(torch.from_numpy(samples), round(1000 * factor), 1000).numpy()


def _check_speeds(speeds: list[float], option: str) -> None:
    wrong = [s for s in speeds if not 0.5 <= s <= 2]
    if wrong or not speeds:
        raise UserError(f"{option}: {wrong[0] if wrong else 'none given'}; speeds lie between 0.5 and 2")


def speed(source: Path, out: Path, speeds: list[float]) -> int:
    """Write every utterance of `source` at each of `speeds` to `out`; return the number of utterances written.

    A copy gets a new speaker name, `sp0.9-<speaker>`; speed 1 keeps its audio file and names. The name of a copy's file
    has digests of what it was made from; copies of the same content are used again. Raise UserError for a speed outside
    0.5 to 2, or if `out` holds another set.
    """
    _check_speeds(speeds, "--speeds")
    if out.resolve() == source.resolve():
        raise UserError(f"{out}: copies would overwrite the set they are made from; name another folder")
    originals = datadir.read(source)
    _refuse_other_set(out, {utt.id for utt in originals})
    jobs = list(product(originals, sorted(set(speeds))))

    def at(job: tuple[Utterance, float]) -> Utterance:
        utt, factor = job
        return utt if factor == 1 else _copy(utt, factor, out / "wav")

    with threads(2) as pool:
        copies = pool.map(at, jobs)
        utterances = list(progress(copies, len(jobs), f"speeds of {source.name}"))
    datadir.write(out, utterances)
    log.info(f"{out}: {len(utterances)} utterances at speeds {speeds}")
    return len(utterances)


def _refuse_other_set(out: Path, originals: set[str]) -> None:
    """Raise UserError if the folder holds a set that is not of copies, nor of the utterances `originals`."""
    name = next((name for name in ("utt2spk", "wav.scp") if listed(out, name)), None)
    others = [utt for utt in read_loosely(out / name) if not COPY.match(utt) and utt not in originals] if name else []
    if others:
        raise UserError(f"{out} holds a set of other utterances, first {others[0]}; name another folder for the copies")


def _copy(utt: Utterance, factor: float, folder: Path) -> Utterance:
    prefix = f"sp{factor:g}-"
    contents = [digest for part, digest in of_set("copy", [utt], text=False).items() if part != "copy"]
    path = folder / f"{prefix}{utt.id.replace('/', '_')}-{''.join(contents)}.flac"
    if not path.exists():
        waveform.save(path, at_speed(datadir.load(utt), factor))
    source, seconds = str(path.resolve()), waveform.duration_s(str(path))
    return replace(
        utt,
        id=prefix + utt.id,
        speaker=prefix + utt.speaker,
        source=source,
        start_s=0.0,
        end_s=None,
        duration_s=seconds,
    )
