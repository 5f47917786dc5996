"""Speech in, the same at other speeds and in noise out: anew for each utterance and epoch, or as a directory of copies.

Pitch and tempo change together (Ko et al. 2015, Kaldi's perturb_data_dir_speed). What is drawn follows from (seed, epoch,
utterance) alone, so it depends neither on batches nor on which process loads them; how many threads that has may change
the rounding of the resampling, nothing else.
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from pathlib import Path

import numpy as np
import torch
import torchaudio

from hfftools.audio import waveform
from hfftools.data import datadir, noise
from hfftools.data.datadir import Utterance
from hfftools.log import UserError, log, progress, require


@dataclass
class Config:
    """What happens to the waveforms of training speech on their way in; by default nothing."""

    speeds: list[float] = field(default_factory=lambda: [1.0])  # one is drawn for each utterance and epoch
    noise_share: float = 0.0  # of the utterances, anew each epoch, that noise is added to
    noise: str = ""  # a data directory or folder of recordings; empty: synthetic, its spectrum falls by a random slope
    snr_db: list[float] = field(default_factory=lambda: [10.0, 30.0])  # lowest and highest

    def __post_init__(self):
        _check_speeds(self.speeds, "perturb.speeds")
        require(0 <= self.noise_share <= 1, f"perturb.noise_share: {self.noise_share} is not from 0 to 1")
        unheard = bool(self.noise) and self.noise_share == 0
        require(
            not unheard,
            f"perturb.noise: {self.noise} is not heard while perturb.noise_share is 0; set that, or leave it out",
        )
        ordered = len(self.snr_db) == 2 and self.snr_db[0] <= self.snr_db[1]
        require(ordered, f"perturb.snr_db: {list(self.snr_db)} is not a lowest and a highest, as in [10,30]")

    @property
    def wanted(self) -> bool:
        return set(self.speeds) != {1.0} or self.noise_share > 0


class Perturb:
    """The speeds and the noise of training speech."""

    def __init__(self, config: Config, seed: int):
        self.config, self.seed = config, seed
        self.recordings = noise.recordings(config.noise) if config.noise else []

    def _number(self, utt: str, epoch: int) -> int:
        return int.from_bytes(blake2b(f"{self.seed} {epoch} {utt}".encode(), digest_size=8).digest())

    def speed(self, utt: str, epoch: int) -> float:
        """The factor by which an utterance is faster in an epoch; cheap, since batches are planned by it."""
        return self.config.speeds[self._number(utt, epoch) % len(self.config.speeds)]

    def __call__(self, samples: np.ndarray, utt: str, epoch: int) -> np.ndarray:
        """An utterance's samples as they are heard in an epoch."""
        samples = at_speed(samples, self.speed(utt, epoch))
        rng = np.random.default_rng(self._number(utt, epoch))
        if rng.random() >= self.config.noise_share:
            return samples
        snr_db = rng.uniform(*self.config.snr_db)
        if self.recordings:
            recording = self.recordings[rng.integers(len(self.recordings))]
            return noise.mix(samples, noise.excerpt(recording, len(samples), rng), snr_db)
        fast = 1 << (len(samples) - 1).bit_length()  # transforms of most other lengths take several times as long
        return noise.mix(samples, noise.coloured(fast, rng)[: len(samples)], snr_db)


def at_speed(samples: np.ndarray, factor: float) -> np.ndarray:
    """Samples [N] -> [N / factor], to be heard at the same rate."""
    if factor == 1:
        return samples
    return torchaudio.functional.resample(torch.from_numpy(samples), round(1000 * factor), 1000).numpy()


def _check_speeds(speeds: list[float], option: str) -> None:
    wrong = [s for s in speeds if not 0.5 <= s <= 2]
    if wrong or not speeds:
        raise UserError(f"{option}: {wrong[0] if wrong else 'none given'}; speeds lie between 0.5 and 2")


def speed(source: Path, out: Path, speeds: list[float]) -> int:
    """Write `out` with every utterance of `source` at each of `speeds`; how many. Newer copies are kept.

    Copies are speakers of their own: `sp0.9-<speaker>`; speed 1 keeps its audio and its names. UserError for a speed
    outside 0.5 to 2.
    """
    _check_speeds(speeds, "--speeds")
    if out.resolve() == source.resolve():
        raise UserError(f"{out}: copies would overwrite the set they are made from; name another folder")
    jobs = [(utt, factor) for utt in datadir.read(source) for factor in sorted(set(speeds))]
    with ThreadPoolExecutor(2) as pool:
        copies = pool.map(lambda job: job[0] if job[1] == 1 else _copy(*job, out / "wav"), jobs)
        utterances = list(progress(copies, len(jobs), f"speeds of {source.name}"))
    datadir.write(out, utterances)
    log.info(f"{out}: {len(utterances)} utterances at speeds {speeds}")
    return len(utterances)


def _copy(utt: Utterance, factor: float, folder: Path) -> Utterance:
    prefix = f"sp{factor:g}-"
    path = folder / f"{prefix}{utt.id}.flac"
    original = Path(utt.source)
    if not (path.exists() and original.is_file() and path.stat().st_mtime > original.stat().st_mtime):
        waveform.save(path, at_speed(waveform.load(utt.source, utt.start_s, utt.end_s), factor))
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
