"""Define every option of an experiment: its method, its data, its optimiser and how long it trains."""

from dataclasses import dataclass, field
from typing import Any

from hfftools.config import above, at_least, check_seed
from hfftools.data.perturb import Config as PerturbConfig
from hfftools.model import Config as ModelConfig
from hfftools.nn.precision import check_bf16
from hfftools.train.optim import Config as OptimConfig


@dataclass(frozen=True)
class DataConfig:
    """Which data, and how much of it at a time."""

    train: str = "data/train"  # data directory to learn from
    dev: str = "data/dev"  # data directory by which epochs and search weights are chosen
    test: list[str] = field(default_factory=lambda: ["data/test"])  # data directories that hff-decode decodes
    units: str = "data/units"  # folder of the output units, made by hff-units
    features: str = ""  # folder of cached hidden states, one folder a set in it; empty: run the upstream
    batch_seconds: float = 120.0  # count times longest utterance
    workers: int = 1  # processes that load audio

    def __post_init__(self):
        above(self, 0, "batch_seconds")
        at_least(self, 0, "workers")


@dataclass(frozen=True)
class LoopConfig:
    """How long to train, and what to keep; the dev error is WER, or CER where the dev set is unspaced text."""

    epochs: int = 40  # passes over data.train
    accumulate: int = 1  # batches whose gradients make one step
    # autocast to bfloat16: true, false, or auto: where the processor or GPU multiplies it natively; the experiment's
    # config.yaml and resources.json record which it was
    bf16: Any = "auto"
    average: int = 5  # best epochs by dev error whose mean is the final checkpoint
    patience: int = 0  # epochs without a lower dev error after which to stop; 0: never
    blank_epochs: int = 15  # epochs of all-empty hypotheses after which the run is given up; 0: never
    minutes: float = 0.0  # of training steps, all calls together, after which to stop with what there is; 0: never
    save_minutes: float = 5.0  # between saves within an epoch; 0: after each step

    def __post_init__(self):
        at_least(self, 1, "epochs", "accumulate", "average")
        at_least(self, 0, "patience", "blank_epochs", "minutes", "save_minutes")
        check_bf16(self.bf16, "train.bf16")


@dataclass(frozen=True)
class Config(ModelConfig):
    """One experiment."""

    seed: int = 0  # of initial weights, order, dropout and masks
    device: str = "auto"  # auto, cpu, cuda, cuda:1 …
    data: DataConfig = field(default_factory=DataConfig)  # which data
    perturb: PerturbConfig = field(default_factory=PerturbConfig)  # of data.train alone
    optim: OptimConfig = field(default_factory=OptimConfig)  # learning rates of the parts
    train: LoopConfig = field(default_factory=LoopConfig)

    def __post_init__(self):
        check_seed(self)
