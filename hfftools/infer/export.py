"""Write a trained experiment as one ONNX file, from waveforms to log posteriors, with all facts that a reader needs.

torch's TorchScript exporter is used: it writes an LSTM over packed sequences as one node, which the exporter based on
torch.export refuses, and takes a twentieth of the time. A trace may silently fix a size as a constant. Therefore ONNX
Runtime runs the file on batches of other sizes, and the file is kept only where its output equals the model's.
"""

import json
import warnings
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import ModuleType

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hfftools.audio.waveform import RATE_HZ
from hfftools.config import plugin, plugin_names
from hfftools.expdir import ExpDir, write_aside
from hfftools.infer.bank import Bank
from hfftools.log import UserError, log, require
from hfftools.model import Model
from hfftools.text.units import BLANK
from hfftools.train import checkpoint, experiment
from hfftools.train.config import Config
from hfftools.upstream import graft, graph
from hfftools.upstream.names import parse

OPSET = 17
LIMIT_BYTES = 2 * 10**9  # of one file, a little below the 2 GiB of its format
PAD_SAMPLES = 1600  # zeros appended: longer than the receptive field of a frame, so that the shortest input has a frame
TRACED = (24000, 17123)  # samples of each row of the batch that is traced
CHECKED = ((36000,), (5000, 52345, 20321), (300, RATE_HZ))  # and of the batches that check the file
TOLERANCE = 1e-3  # of a log posterior, in nats


class Posteriors(nn.Module):
    """Compute log posteriors [B, T, U] and lens [B] from wav [B, N] and num_samples [B], in a form that can be traced."""

    def __init__(self, model: Model):
        super().__init__()
        self.model = model
        self.layers = sorted({0, *model.layers})  # state 0 gives the number of frames of a pair of upstreams

    def forward(self, wav_BN: Tensor, num_samples_B: Tensor) -> tuple[Tensor, Tensor]:
        hidden, lens_B = self.model.upstream(F.pad(wav_BN, (0, PAD_SAMPLES)), num_samples_B, self.layers)
        x_BTF = self.model.fuse({layer: hidden[layer] for layer in self.model.layers}, lens_B)
        return self.model.task.log_probs(x_BTF, lens_B), lens_B


def export(root: Path, out: Path) -> Path:
    """Write the experiment at `root` as the ONNX file `out`, whole or not at all; LoRA is merged into its weights.

    Inputs: `wav` float32 [B, N] at 16 kHz, `num_samples` int64 [B]. Outputs: `log_probs` float32 [B, T, U], `lens` int64
    [B]. The metadata are listed in `facts`. Raises UserError where onnx or onnxruntime is missing, for a task without unit
    posteriors, for more weights than a file holds, and where the output of ONNX Runtime is not the model's.
    """
    onnx, runtime = _package("onnx"), _package("onnxruntime")
    exp = ExpDir(Path(root))
    config = experiment.read_config(exp, ["device=cpu"])
    able = [name for name in plugin_names("task") if plugin("task", name).Task.exports]
    name = config.task.name
    require(name in able, f"{root}: task '{name}' cannot be exported; those that can: {', '.join(able)}")
    require(out.suffix == ".onnx", f"--out {out}: name a file that ends in .onnx")
    model = Bank().add(exp.root, config)
    batches = [_noise(num_samples) for num_samples in CHECKED]
    with torch.no_grad():
        expected = [_untraced(model, *batch) for batch in batches]
        graft.merge(model.upstream)
    size_bytes = sum(t.nbytes for t in [*model.parameters(), *model.buffers()])
    require(
        size_bytes < LIMIT_BYTES,
        f"{root}: its weights take {size_bytes / 1e9:.1f} GB, and an ONNX file holds at most 2 GB; use hff-decode",
    )
    graph.simplify(model.upstream)
    with write_aside(out) as aside:
        _trace(Posteriors(model).eval().requires_grad_(False), aside)
        proto = onnx.load(aside)
        onnx.helper.set_model_props(proto, facts(exp, config, model))
        onnx.save(proto, aside)
        outputs = [_run(runtime, aside, *batch) for batch in batches]
        worst = max(_distance(*pair) for pair in zip(outputs, expected, strict=True))
        log.info(f"{out}: log posteriors equal the model's to {worst:.1e} on {len(batches)} batches of other sizes")
        require(
            worst < TOLERANCE,
            f"{root}: ONNX Runtime and the model differ by {worst:.1e}, so nothing is written; please report this bug",
        )
    return out


def facts(exp: ExpDir, config: Config, model: Model) -> dict[str, str]:
    """Return the metadata of the file, as text.

    `units` and `pieces`: JSON lists by id, readable names and the text that each stands for; `units_kind`, `blank` (an id),
    `sample_rate_hz`, `stride_samples` (of a frame); `task`, `tune`, `fuse`; `upstream` and its `upstream_hash`, `checkpoint`
    (digests); `hff_version`; `licence`, and `upstream_card`, what the upstream's files say of its origin and licence.
    """
    try:
        released = version("hff")
    except PackageNotFoundError:  # run from a checkout
        released = "unreleased"
    units = model.task.units
    return {
        "units": json.dumps(units.symbols, ensure_ascii=False),
        "pieces": json.dumps(units.pieces, ensure_ascii=False),
        "units_kind": units.kind,
        "blank": str(BLANK),
        "sample_rate_hz": str(RATE_HZ),
        "stride_samples": str(model.upstream.stride_samples),
        "task": config.task.name,
        "tune": config.tune.name,
        "fuse": config.fuse.name,
        "upstream": model.upstream.name,
        "upstream_hash": model.upstream.hash,
        "checkpoint": checkpoint.digest(exp.final),
        "hff_version": released,
        "licence": f"This file holds the weights of {model.upstream.name}, under the terms of that model and its data "
        "(see upstream_card), and weights trained on them by hff (Apache-2.0), under the terms of their own data.",
        "upstream_card": parse(config.upstream).card(),
    }


def _package(name: str) -> ModuleType:
    try:
        if name == "onnx":
            import onnx

            return onnx
        import onnxruntime
    except ImportError as error:
        raise UserError(f"hff-export needs the package {name} ({error}): pip install 'hff[export]'") from None
    return onnxruntime


def _noise(num_samples: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Return noise [B, N] and num_samples [B]; padding is noise too, since padding must not change any valid frame."""
    generator = torch.Generator().manual_seed(0)
    return 0.1 * torch.randn(len(num_samples), max(num_samples), generator=generator), torch.tensor(num_samples)


def _untraced(model: Model, wav_BN: Tensor, num_samples_B: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Return the model's output before anything in it is replaced for the trace."""
    hidden, lens_B = model.upstream(wav_BN, num_samples_B, model.layers)
    return model.task.log_probs(model.fuse(hidden, lens_B), lens_B).numpy(), lens_B.numpy()


def _trace(module: nn.Module, path: Path) -> None:
    free = {"wav": {0: "B", 1: "N"}, "num_samples": {0: "B"}, "log_probs": {0: "B", 1: "T"}, "lens": {0: "B"}}
    with warnings.catch_warnings():
        # about sizes that a trace may fix, which the check of the file detects, and about the newer exporter
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module,
            _noise(TRACED),
            str(path),
            dynamo=False,
            opset_version=OPSET,
            dynamic_axes=free,
            input_names=["wav", "num_samples"],
            output_names=["log_probs", "lens"],
        )


def _run(runtime: ModuleType, path: Path, wav_BN: Tensor, num_samples_B: Tensor) -> tuple[np.ndarray, np.ndarray]:
    try:
        session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        log_probs_BTU, lens_B = session.run(None, {"wav": wav_BN.numpy(), "num_samples": num_samples_B.numpy()})
    except Exception as error:  # onnxruntime has an exception class of its own for each way to fail
        line = " ".join(str(error).split())
        raise UserError(
            f"ONNX Runtime cannot run what was exported, so nothing is written; please report this bug ({line})"
        ) from None
    return log_probs_BTU, lens_B


def _distance(output: tuple[np.ndarray, np.ndarray], expected: tuple[np.ndarray, np.ndarray]) -> float:
    """Return the largest difference of the log posteriors of a valid frame; infinity where lengths differ."""
    (output_BTU, output_lens_B), (expected_BTU, lens_B) = output, expected
    if output_lens_B.tolist() != lens_B.tolist():
        return float("inf")
    rows = [abs(o_TU[:n] - e_TU[:n]) for o_TU, e_TU, n in zip(output_BTU, expected_BTU, lens_B, strict=True)]
    return max((float(row.max()) for row in rows if row.size), default=0.0)
