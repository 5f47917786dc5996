"""hff's own foundation model, a Conformer encoder over log-mel: the bundled hff_tiny, and what hff-pretrain writes.

A checkpoint is one safetensors file: half-precision weights, with the sizes and the model card's facts in its metadata.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from importlib.resources import files
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from hfftools.config import OptionError, at_least, between, share_below_one
from hfftools.data.inputs import file_digest
from hfftools.expdir import write_aside
from hfftools.log import UserError, require
from hfftools.nn.conformer import MOST_LAYERS, ConformerBlock
from hfftools.nn.logmel import HOP_SAMPLES, WINDOW_SAMPLES, LogMel
from hfftools.nn.mask import conv_out_len, valid_mask
from hfftools.records import check_finite, readable
from hfftools.upstream.base import Upstream, model_digests
from hfftools.upstream.source import Source

BUNDLED = ("hff_tiny",)  # names of weights/<name>.safetensors, each with its card in weights/<name>.md
ENCODER = "encoder.safetensors"  # what hff-pretrain calls its result


@dataclass(frozen=True)
class EncoderConfig:
    """Sizes of the encoder."""

    dim: int = 192  # D, the width of every layer
    layers: int = 8  # number of Conformer blocks
    heads: int = 4  # attention heads of a block
    expansion: int = 4  # width of the feed-forward, in dims
    kernel: int = 15  # frames of the depthwise convolution
    num_mels: int = 80  # log-mel bins
    dropout: float = 0.0  # in the blocks, in training

    def __post_init__(self):
        at_least(self, 1, "dim", "heads", "expansion", "kernel", "num_mels")
        between(self, 1, MOST_LAYERS, "layers")
        share_below_one(self, "dropout")
        if self.dim % self.heads:
            raise OptionError(f"dim: {self.dim} is no multiple of heads, {self.heads}")
        if self.kernel % 2 == 0:  # the output would be longer than the input
            raise OptionError(f"kernel: {self.kernel} is even; give an odd number")


def subsampled_len(mel_lens: Tensor) -> Tensor:
    """Return the lengths, of any shape, of log-mel after the two convolutions of Subsample."""
    return conv_out_len(conv_out_len(mel_lens, 3, 2), 3, 2)


class Subsample(nn.Module):
    """Two unpadded convolutions of kernel 3 and stride 2 over time: log-mel at 10 ms [B, T, M] -> [B, T/4, D] at 40 ms."""

    def __init__(self, num_mels: int, dim: int):
        super().__init__()
        self.conv1 = nn.Conv1d(num_mels, dim, 3, stride=2)
        self.conv2 = nn.Conv1d(dim, dim, 3, stride=2)
        self.project = nn.Linear(dim, dim)
        self.norm = nn.LayerNorm(dim)

    def forward(self, mel_BTM: Tensor) -> Tensor:
        x_BDT = nn.functional.gelu(self.conv1(mel_BTM.transpose(1, 2)))
        x_BDT = nn.functional.gelu(self.conv2(x_BDT))
        return self.norm(self.project(x_BDT.transpose(1, 2)))


class ConformerUpstream(Upstream):
    """Log-mel, subsampling to 40 ms, Conformer blocks; state 0 is the subsampled input of the first block."""

    stride_samples = 4 * HOP_SAMPLES
    middle_samples = (
        WINDOW_SAMPLES / 2 + 3 * HOP_SAMPLES
    )  # two convolutions of three with stride two: log-mel frames 0 to 6

    def __init__(self, config: EncoderConfig, name: str = "conformer", digest: str = ""):
        super().__init__()
        self.name, self.hash, self.config = name, digest, config
        self.num_layers, self.dim = config.layers, config.dim
        self.logmel = LogMel(config.num_mels)
        self.subsample = Subsample(config.num_mels, config.dim)
        self.mask_D = nn.Parameter(torch.empty(config.dim).uniform_())
        self.encoder = nn.ModuleList(
            ConformerBlock(config.dim, config.heads, config.expansion, config.kernel, config.dropout)
            for _ in range(config.layers)
        )

    @property
    def mask_embedding(self) -> Tensor:
        """Return [D], what stood for masked frames in pre-training."""
        return self.mask_D

    def blocks(self) -> nn.ModuleList:
        return self.encoder

    def front_end(self) -> list[nn.Module]:
        return [self.subsample.conv1, self.subsample.conv2]

    def convolutions(self) -> list[tuple[nn.Module, str]]:
        return [(self.subsample, "conv1"), (self.subsample, "conv2")]

    def out_lens(self, num_samples_B: Tensor) -> Tensor:
        return subsampled_len(self.logmel.out_lens(num_samples_B))

    def forward(self, wav_BN, num_samples_B, layers, augment=None):
        mel_BTM, lens_B = self.logmel(wav_BN, num_samples_B)
        return self.encode(mel_BTM, lens_B, layers, augment=augment)

    def encode(
        self,
        mel_BTM: Tensor,
        mel_lens_B: Tensor,
        layers: Sequence[int],
        masked_BT: Tensor | None = None,
        augment: Callable[[Tensor, Tensor, Upstream], Tensor] | None = None,
    ) -> tuple[dict[int, Tensor], Tensor]:
        """Compute the same from log-mel; frames where `masked_BT` is True enter the first block as the mask embedding."""
        if mel_BTM.shape[1] < 7:  # the receptive field of the two convolutions
            mel_BTM = nn.functional.pad(mel_BTM, (0, 0, 0, 7 - mel_BTM.shape[1]))
        x_BTD, lens_B = self.subsample(mel_BTM), subsampled_len(mel_lens_B)
        valid_BT = valid_mask(lens_B, x_BTD.shape[1])
        attend_BT = valid_mask(lens_B.clamp(min=1), x_BTD.shape[1])  # a row without any key would be NaN
        x_BTD = x_BTD.masked_fill(~valid_BT[:, :, None], 0.0)
        if masked_BT is not None:
            x_BTD = torch.where(masked_BT[:, :, None], self.mask_D.to(x_BTD.dtype), x_BTD)
        if augment is not None:
            x_BTD = augment(x_BTD, lens_B, self)
        states = {0: x_BTD}
        for number, block in enumerate(self.encoder[: max(layers)], 1):
            x_BTD = block(x_BTD, attend_BT)
            states[number] = x_BTD
        return {layer: states[layer] for layer in layers}, lens_B


def save(model: ConformerUpstream, path: Path, card: dict) -> None:
    """Write half-precision weights with `card` in the metadata; the file appears whole or not at all."""
    weights = {k: v.detach().half().contiguous() for k, v in model.state_dict().items() if not k.startswith("logmel.")}
    metadata = {"encoder": json.dumps(asdict(model.config)), "card": json.dumps(card)}
    with write_aside(path) as aside:
        save_file(weights, aside, metadata)


def load(path: Path, name: str) -> ConformerUpstream:
    """Read a checkpoint; UserError that names the file where it is missing, cut short, or not one of ours."""
    require(path.exists(), f"upstream {name}: {path} does not exist")
    known = {f.name for f in fields(EncoderConfig)}
    with readable(path, "an upstream's file is one that hff-pretrain saved; copy it, or pre-train, again"):
        with safe_open(path, "pt") as file:
            sizes = json.loads((file.metadata() or {})["encoder"])
            weights = {key: file.get_tensor(key).float() for key in file.keys()}
        check_finite(weights)
        try:
            model = ConformerUpstream(EncoderConfig(**{k: v for k, v in sizes.items() if k in known}), name)
        except OptionError as error:
            raise ValueError(error) from None
    missing, extra = model.load_state_dict(weights, strict=False)
    missing = [key for key in missing if not key.startswith("logmel.")]
    if missing or extra:
        raise UserError(f"upstream {name}: {path} lacks {missing[:3]} and has {extra[:3]} in addition; rebuild it")
    model.hash = file_digest(path)
    return model


class Door(Source):
    """A bundled name, an encoder.safetensors, or the folder that hff-pretrain wrote it to."""

    places = ConformerBlock.PLACES

    def __init__(self, text: str):
        super().__init__(text)
        if text in BUNDLED:
            self.file = Path(str(files("hfftools.upstream.weights").joinpath(f"{text}.safetensors")))
        else:
            self.file = Path(text) / ENCODER if Path(text).is_dir() else Path(text)
        require(self.file.is_file(), f"upstream {text}: {self.file} does not exist")

    @classmethod
    def names(cls) -> list[str]:
        return list(BUNDLED)

    @classmethod
    def claims(cls, text: str) -> bool:
        return text in BUNDLED or text.endswith(".safetensors") or (Path(text) / ENCODER).is_file()

    def digests(self) -> dict[str, str]:
        return model_digests(file_digest(self.file))

    def load(self) -> ConformerUpstream:
        return load(self.file, self.text).eval()

    def card(self) -> str:
        if self.text in BUNDLED:
            return self.file.with_suffix(".md").read_text(encoding="utf-8")
        with safe_open(self.file, "pt") as file:
            return (file.metadata() or {}).get("card", "")

    @property
    def short_name(self) -> str:
        return self.file.parent.name if self.file.name == ENCODER else self.file.stem
