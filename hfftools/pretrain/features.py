"""Compute the log-mel frames of data directories once per pre-training, as one memory-mapped array with an index."""

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch

from hfftools.data import datadir
from hfftools.data.inputs import of_set
from hfftools.disk import alone
from hfftools.expdir import changed_inputs, write_aside, write_json
from hfftools.log import UserError, progress
from hfftools.nn.logmel import LogMel
from hfftools.records import read_json, readable
from hfftools.upstream.conformer import subsampled_len


@dataclass(frozen=True)
class Corpus:
    """Log-mel of all utterances end to end [sum T, M], in half precision, and where each of them lies."""

    frames: np.ndarray
    starts: np.ndarray  # first frame of each utterance
    lens: np.ndarray  # frames of each utterance
    digests: dict[str, str]  # of the parts of the data that the frames are made from
    utterances: list[datadir.Utterance]
    file: Path  # which holds the frames

    def __len__(self) -> int:
        return len(self.lens)

    def mel(self, index: int) -> np.ndarray:
        """Return the log-mel frames [T, M] of one utterance, float32; raise UserError where they are not finite."""
        start = self.starts[index]
        mel_TM = np.asarray(self.frames[start : start + self.lens[index]], np.float32)
        if not np.isfinite(mel_TM).all():
            where = f"frames {start} to {start + len(mel_TM)} hold values that are not finite numbers"
            raise UserError(f"{self.file} is damaged ({where}); {_fix(self.file.parent)}")
        return mel_TM

    @cached_property
    def sub_lens(self) -> np.ndarray:
        """Return the frames of each utterance that an encoder puts out."""
        return subsampled_len(torch.from_numpy(self.lens)).numpy()

    @property
    def hours(self) -> float:
        return float(self.lens.sum()) / 360_000  # frames of 10 ms


def _fix(folder: Path) -> str:
    return f"remove {folder} and run the same command again"


def corpus(directories: list[str], folder: Path) -> Corpus:
    """Return the corpus of `directories`, computed into `folder` unless it is there already.

    Raises UserError where the folder holds the frames of other utterances.
    """
    index_file, frames_file = folder / "index.json", folder / "mel.npy"
    utterances = [u for d in directories for u in datadir.read(d, need_text=False)]
    digests = of_set("data", utterances, text=False)
    with alone(folder, waits=True):
        if not index_file.exists():
            _compute(utterances, digests, index_file, frames_file)
    fix = _fix(folder)
    index = read_json(index_file, {"data": str | dict, "lens": [int]}, fix)
    record = {"data": index["data"]} if isinstance(index["data"], str) else index["data"]  # a str of older versions
    if changed := changed_inputs(record, digests):
        raise UserError(
            f"{folder} holds the log-mel of other utterances than {list(directories)}: the content of "
            f"{', '.join(changed)} has changed since; remove that folder, or use another one"
        )
    lens = np.array(index["lens"])
    frames = read_arrays(frames_file, ("mel",), fix)["mel"]
    if len(frames) != lens.sum():
        raise UserError(f"{frames_file} is damaged ({len(frames)} frames in place of {lens.sum()}); {fix}")
    return Corpus(frames, np.concatenate([[0], np.cumsum(lens)[:-1]]), lens, digests, utterances, frames_file)


def read_arrays(path: Path, names: tuple[str, ...], fix: str, maybe: tuple[str, ...] = ()) -> dict[str, np.ndarray]:
    """Return the arrays `names` of a .npz file, and those of `maybe` that are there; the one of a .npy file stays on disk.

    Raise UserError, which ends in `fix`, for a damaged file, and for one with pickled objects, which are never unpickled.
    """
    with readable(path, fix):
        stored = np.load(path, mmap_mode="c", allow_pickle=False)  # c: torch wants to be able to write; the file stays
        if isinstance(stored, np.ndarray):
            return {names[0]: stored}
        return {name: stored[name] for name in (*names, *(name for name in maybe if name in stored))}


@torch.no_grad()
def _compute(utterances: list[datadir.Utterance], digests: dict[str, str], index_file: Path, frames_file: Path) -> None:
    logmel = LogMel()

    def mel(utt: datadir.Utterance) -> np.ndarray:
        wav_BN = torch.from_numpy(datadir.load(utt))[None]
        return logmel(wav_BN, torch.tensor([wav_BN.shape[1]]))[0][0].numpy().astype(np.float16)

    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        chunks = list(progress(pool.map(mel, utterances), len(utterances), "log-mel"))
    with write_aside(frames_file) as aside, open(aside, "wb") as file:
        np.save(file, np.concatenate(chunks))
    write_json(index_file, {"data": digests, "lens": [len(c) for c in chunks]})
