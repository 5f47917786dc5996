"""Make discrete targets by k-means, as in HuBERT (Hsu et al., arXiv:2106.07447): cluster numbers [T, S] of speech frames.

The first iteration clusters MFCC with deltas, two targets (S = 2) for each 40 ms frame of the encoder. A further one
clusters a hidden layer of a teacher: of an earlier model, or of any other upstream. The states of a recogniser make
better targets than those of a model without supervision (arXiv:2506.01192).
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torchaudio
from torch import Tensor

from hfftools.config import at_least, between
from hfftools.log import log
from hfftools.nn.kmeans import assign, fit
from hfftools.pretrain.features import Corpus
from hfftools.pretrain.teacher import Teacher
from hfftools.upstream.conformer import subsampled_len
from hfftools.upstream.names import parse


@dataclass(frozen=True)
class Config:
    """What is clustered, and into how many."""

    name: str = "kmeans"
    clusters: int = 200  # number of clusters, the classes that are predicted
    source: str = "mfcc"  # mfcc, or the teacher: any upstream, such as hf:FOLDER, whose hidden states are clustered
    layer: int = 5  # which of the teacher's layers
    points: int = 1  # frames of the teacher that are predicted for each frame of the encoder; of mfcc they are 2
    fit_frames: int = 400_000  # frames, of utterances drawn at random, to fit the clusters

    def __post_init__(self):
        at_least(self, 1, "points", "fit_frames")
        between(self, 2, 2**15, "clusters")  # kept as 16-bit numbers


def digests(config: Config) -> dict[str, str]:
    """Return the digests of the files that the targets are made from, apart from the speech."""
    if config.source == "mfcc":
        return {}
    return {f"targets.source: {name}": digest for name, digest in parse(config.source).digests().items()}


def about(config: Config) -> dict[str, str | int]:
    """Return what a model card says of the targets: their source, and what the teacher's own card says of its licence."""
    facts: dict[str, str | int] = {"source": config.source, "clusters": config.clusters}
    if config.source == "mfcc":
        return facts
    lines = parse(config.source).card().splitlines()
    licence = next((line.strip()[:200] for line in lines if re.search("licen[cs]e", line, re.IGNORECASE)), "not known")
    return {**facts, "layer": config.layer, "licence": licence}


class Maker:
    """Fit clusters to the frames of a corpus, and give each of its frames the number of the nearest one."""

    def __init__(self, corpus: Corpus, config: Config, device: torch.device):
        self.corpus, self.config, self.device = corpus, config, device
        mfccs = config.source == "mfcc"
        self.teacher = None if mfccs else Teacher(config.source, config.layer, config.points, corpus, device)

    def fit(self, seed: int) -> np.ndarray:
        """Return the centres [K, D] of the frames of utterances that are drawn at random."""
        chosen, frames = [], 0
        for row in np.random.default_rng(seed).permutation(len(self.corpus)).tolist():
            if frames >= self.config.fit_frames:
                break
            chosen.append(row)
            frames += int(self.corpus.sub_lens[row]) * (self.config.points if self.teacher else 2)
        rows_ND = torch.cat([view_TSD.flatten(0, 1) for view_TSD in self._views(chosen)])
        log.info(f"k-means: {self.config.clusters} clusters of {self.config.source} on {len(rows_ND)} frames")
        return fit(rows_ND, self.config.clusters, seed).numpy()

    def assign(self, rows: Sequence[int], centres_KD: np.ndarray) -> np.ndarray:
        """Return the clusters of the frames of the utterances `rows`, end to end, [sum T, S] int16."""
        centres = torch.from_numpy(centres_KD).to(self.device)
        found = []
        for view_TSD in self._views(rows):
            numbers_N = assign(view_TSD.flatten(0, 1).to(self.device), centres)
            found.append(numbers_N.view(view_TSD.shape[:2]).cpu().numpy().astype(np.int16))
        return np.concatenate(found)

    def _views(self, rows: Sequence[int]) -> Iterator[Tensor]:
        """Yield what is clustered of each utterance, [T, S, feature width]."""
        if self.teacher is not None:
            return self.teacher.views(rows)
        return (mfcc(torch.from_numpy(self.corpus.mel(row))) for row in rows)


def mfcc(mel_TM: Tensor) -> Tensor:
    """Return 13 cepstra with first and second deltas at the two 20 ms points of each encoder frame, [T, M] -> [T/4, 2, 39].

    Frame t of the encoder sees log-mel frames 4t to 4t + 6; its points are the means of 4t + 1, 4t + 2 and 4t + 4, 4t + 5.
    """
    dct = torchaudio.functional.create_dct(13, mel_TM.shape[1], norm="ortho")
    cepstra_CT = (mel_TM @ dct).T
    delta_CT = torchaudio.functional.compute_deltas(cepstra_CT)
    all_TC = torch.cat([cepstra_CT, delta_CT * 2, torchaudio.functional.compute_deltas(delta_CT) * 4]).T
    frames = int(subsampled_len(torch.tensor(len(mel_TM))))
    points = [(all_TC[i : i + 4 * frames : 4] + all_TC[i + 1 : i + 1 + 4 * frames : 4]) / 2 for i in (1, 4)]
    return torch.stack([p[:frames] for p in points], 1)
