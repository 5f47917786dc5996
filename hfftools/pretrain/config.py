"""Define every option of a pre-training: its data, encoder and targets, and how it is trained."""

from dataclasses import dataclass, field
from typing import Any

from hfftools.config import above, at_least, between, check_seed
from hfftools.nn.precision import check_bf16
from hfftools.upstream.conformer import EncoderConfig

SHORTEST_S = 0.5  # of an utterance: there is nothing to mask in a shorter one


@dataclass(frozen=True)
class Config:
    """One pre-training."""

    data: list[str] = field(default_factory=list)  # data directories, transcripts not needed
    features: str = ""  # folder of the log-mel cache; inside the experiment where empty
    encoder: EncoderConfig = field(default_factory=EncoderConfig)  # sizes of the encoder
    targets: Any = field(default_factory=lambda: {"name": "kmeans"})  # what is predicted
    init: str = ""  # an encoder to start from, in place of random weights
    seed: int = 0  # of weights, masks and order
    steps: int = 10_000  # updates of the weights
    minutes: float = 0.0  # of training, all calls together, after which to stop; 0: after the steps alone
    batch_seconds: float = 160.0  # seconds of audio in a batch
    crop_seconds: float = 10.0  # longest excerpt of an utterance
    mask_prob: float = 0.13  # chance that a masked span starts at a frame
    mask_frames: int = 5  # 200 ms
    alpha: float = 0.5  # share of the masked frames in the loss; from random weights, 1 stays at the plateau for long
    lr: float = 1e-3  # peak learning rate of AdamW
    warmup: float = 0.08  # share of the steps, or of the minutes where they run out first
    weight_decay: float = 0.01  # of AdamW
    clip: float = 5.0  # largest norm of the gradient
    device: str = "auto"  # auto, cpu, cuda, cuda:1 …
    bf16: Any = "auto"  # autocast to bfloat16: true, false, or auto: where the device multiplies it natively
    threads: int = 0  # 0: as many as torch finds
    log_steps: int = 50  # steps between lines in the log
    save_steps: int = 250  # steps between saves of the state

    def __post_init__(self):
        at_least(self, 1, "steps", "mask_frames", "log_steps", "save_steps")
        at_least(self, 0, "weight_decay", "minutes")
        between(self, 0, 1024, "threads")
        at_least(self, SHORTEST_S, "batch_seconds", "crop_seconds")
        check_seed(self)
        above(self, 0, "lr", "clip")
        between(self, 0, 1, "mask_prob", "alpha", "warmup")
        check_bf16(self.bf16, "bf16")
