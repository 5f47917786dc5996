"""Make discrete targets by k-means, as in HuBERT (Hsu et al., arXiv:2106.07447): cluster numbers [T, S] of log-mel frames.

The first iteration clusters MFCC with deltas, two targets (S = 2, 20 ms apart) for each 40 ms frame of the encoder; the
second clusters one hidden layer of an earlier model, one target (S = 1) a frame.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torchaudio
from torch import Tensor

from hfftools.log import log, progress
from hfftools.nn.kmeans import assign, fit
from hfftools.pretrain.features import Corpus
from hfftools.upstream.base import check_layers
from hfftools.upstream.conformer import Door, subsampled_len


@dataclass(frozen=True)
class Config:
    """What is clustered, and into how many."""

    name: str = "kmeans"
    clusters: int = 200  # number of clusters, the classes that are predicted
    source: str = "mfcc"  # mfcc, or the path of an encoder whose hidden states are clustered
    layer: int = 5  # which of its layers
    fit_frames: int = 400_000  # frames drawn at random to fit the clusters


def digests(config: Config) -> dict[str, str]:
    """Return the digests of the files that the targets are made from, apart from the speech."""
    if config.source == "mfcc":
        return {}
    return {f"targets.source: {name}": digest for name, digest in Door(config.source).digests().items()}


def compute(corpus: Corpus, config: Config, seed: int) -> tuple[np.ndarray, int]:
    """Return the clusters of every encoder frame, all utterances end to end, [sum T/4, S] int16, and their number."""
    rng = np.random.default_rng(seed)
    total = corpus.lens.sum() / (2 if config.source == "mfcc" else 4)
    share, rows = min(1.0, config.fit_frames / total), []
    for view in _views(corpus, config, "drawing frames"):
        flat = view.reshape(-1, view.shape[-1])
        rows.append(flat[rng.random(len(flat)) < share])
    centres = fit(torch.from_numpy(np.concatenate(rows)), config.clusters, seed)
    log.info(f"k-means: {config.clusters} clusters of {config.source} on {sum(map(len, rows))} frames")
    targets = []
    for view in _views(corpus, config, "assigning clusters"):
        rows_ND = torch.from_numpy(view.reshape(-1, view.shape[-1]))
        targets.append(assign(rows_ND, centres).reshape(view.shape[:2]).numpy())
    return np.concatenate(targets).astype(np.int16), config.clusters


def _views(corpus: Corpus, config: Config, what: str) -> Iterator[np.ndarray]:
    """Yield what is clustered of each utterance, [T, S, feature width]."""
    indices = progress(range(len(corpus)), len(corpus), what)
    if config.source == "mfcc":
        yield from (mfcc(torch.from_numpy(corpus.mel(i))).numpy() for i in indices)
        return
    encoder = Door(config.source).load()
    check_layers(encoder, [config.layer])
    with torch.inference_mode():
        for i in indices:
            mel_BTM = torch.from_numpy(corpus.mel(i))[None]
            states, lens_B = encoder.encode(mel_BTM, torch.tensor([mel_BTM.shape[1]]), [config.layer])
            yield states[config.layer][0, : lens_B[0], None].float().numpy()


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
