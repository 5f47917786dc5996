"""Define every option of a probe: what is looked at, how it is measured, and on which speech."""

from dataclasses import dataclass, field
from typing import Any

from hfftools.config import OptionError, above, at_least, check_seed
from hfftools.nn.heads import check_head

PARTS = ("asr", "phone", "speaker", "similarity", "geometry")


@dataclass(frozen=True)
class Config:
    """One probing."""

    upstream: str = "hff_tiny"  # name, alias or path of the foundation model
    train: str = ""  # data directories and units; empty: the recipe's in data/, or a small set that is spoken here
    dev: str = ""  # as train, for the figures
    units: str = ""  # as train
    features: str = ""  # folder of cached hidden states, filled where a set is not in it; empty: run the upstream
    layers: Any = "all"  # all, blocks, last, or a list of layer numbers
    parts: list[str] = field(default_factory=lambda: list(PARTS))  # what is asked of the layers
    phones: str = "espeak:en-us"  # or the path of a lexicon
    alignments: str = ""  # folder of phone and word times, made where it is not there; empty: in the probe's own folder
    head: str = "linear"  # of the asr probe: linear, blstm, or conformer
    head_dim: int = 256  # width of a hidden layer of the asr probe
    head_layers: int = 1  # hidden layers of the asr probe
    dropout: float = 0.0  # in the probes
    epochs: int = 20  # passes over the training set
    lr: float = 1e-2  # of the probes
    batch_seconds: float = 30.0  # count times longest utterance
    workers: int = 1  # processes that load audio
    clip: float = 5.0  # largest norm of the gradient
    frames: int = 30_000  # at most so many for similarity and geometry
    clusters: int = 100  # of k-means, for the mutual information with labels
    seed: int = 0  # of the probes
    device: str = "auto"  # auto, cpu, cuda, cuda:1 …

    def __post_init__(self):
        unknown = [part for part in self.parts if part not in PARTS]
        if unknown or not self.parts:
            raise OptionError(f"parts: {self.parts} is not some of {', '.join(PARTS)}")
        at_least(self, 1, "epochs")
        above(self, 0, "lr", "batch_seconds", "clip")
        at_least(self, 2, "frames", "clusters")
        at_least(self, 0, "workers")
        check_seed(self)
        check_head(self)
