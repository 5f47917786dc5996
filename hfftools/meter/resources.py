"""Measure what a run costs: parameters by part, peak memory, speed and wall time; and format them as a table."""

import math
import resource
import time
from pathlib import Path
from typing import Any

import torch

from hfftools.model import Model


def _status_bytes(key: str) -> int | None:
    """Return a size from the process's status, which Linux gives in kB; None on other systems."""
    status = Path("/proc/self/status")
    if not status.exists():
        return None
    for line in status.read_text().splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) * 1024
    return None


def parameters(model: Model) -> dict[str, int]:
    """Return the trainable parameters of each part, of the encoder (upstream + inserted + fuse) and of all parts.

    `upstream_total` counts the upstream's own parameters, trainable or not, without those inserted into it.
    """
    counts = {}
    for part, named in model.parts().items():
        counts[part] = sum(parameter.numel() for _, parameter in named)
    encoder = counts["upstream"] + counts["inserted"] + counts["fuse"]
    total = sum(p.numel() for p in model.upstream.parameters() if id(p) in model.base_parameters)
    return {**counts, "trainable_encoder": encoder, "trainable": encoder + counts["head"], "upstream_total": total}


def checkpoint_bytes(model: Model) -> int:
    """Return the bytes of the tensors in a checkpoint; the file needs some hundred bytes more for each tensor."""
    return sum(tensor.nbytes for tensor in model.trained_state().values())


PARTS = {"upstream": "upstream", "inserted": "inserted", "fuse": "fusion", "head": "head"}
# Of what `columns` and the reports read. Sizes and operations may be missing, or unknown.
FORM: dict[str, Any] = {"parameters": dict.fromkeys((*PARTS, "trainable_encoder", "upstream_total"), int)}
FORM |= {"dev_error": float, "metric?": str, "lower_is_better?": bool, "cached": bool}
FORM |= dict.fromkeys(("audio_seconds", "train_seconds", "wall_seconds"), float | int)
FORM |= dict.fromkeys(
    (f"{part}_flops_per_s?" for part in ("forward", "backward", "upstream_forward")), float | int | None
)
FORM |= dict.fromkeys((f"{what}_bytes?" for what in ("peak", "peak_less_model", "checkpoint")), float | int | None)
FORM["acting?"] = {"parts": int, "acting": int, "least_change": float}
LEGEND = [
    "Trainable parameters: the upstream's own, those inserted into it, the fusion's, the head's; % of upstream: the sum of",
    "the first three, in percent of all parameters of the upstream. GFLOP: 10⁹ operations per second of audio, two for each",
    "multiply-add, with padding, of what is run: where hidden states come from a cache, forward does not include the",
    "upstream's forward pass, which has its own column. Memory: the peak of the process; less model: above what it held",
    "once the model was loaded. Checkpoint: the trained parameters only.",
]


def three_digits(value: float | None) -> str:
    """Format a number with three significant digits, or all digits before the point if these are more; – for None."""
    if value is None:
        return "–"
    return f"{value:,.{max(0, 2 - math.floor(math.log10(value)))}f}" if value > 0 else f"{value:g}"


def columns(used: dict) -> dict[str, str]:
    """Return {title: cell} of the content of a `resources.json`; – for what it does not contain."""
    counts = used["parameters"]
    shares = {
        "% of upstream": (
            100 * counts["trainable_encoder"] / counts["upstream_total"] if counts["upstream_total"] else None
        )
    }
    scaled = {
        title: used[key] / unit if used.get(key) is not None else None
        for title, key, unit in (
            ("forward GFLOP", "forward_flops_per_s", 1e9),
            ("backward GFLOP", "backward_flops_per_s", 1e9),
            ("upstream's GFLOP", "upstream_forward_flops_per_s", 1e9),
            ("peak MB", "peak_bytes", 1e6),
            ("less model MB", "peak_less_model_bytes", 1e6),
            ("checkpoint MB", "checkpoint_bytes", 1e6),
        )
    }
    numbers = {title: three_digits(value) for title, value in {**shares, **scaled}.items()}
    return {**{title: f"{counts[part]:,}" for part, title in PARTS.items()}, **numbers}


def table(rows: list[dict[str, str]]) -> list[str]:
    """Return the lines of a Markdown table, aligned in columns, of rows {title: cell} that have the same titles."""
    lines = [list(rows[0]), *(list(row.values()) for row in rows)]
    widths = [max(3, *map(len, column)) for column in zip(*lines, strict=True)]
    padded = [_row(cells, widths) for cells in lines]
    # the first column is aligned to the left, the others, numbers, to the right
    dashes = ["-" * (width + 1) for width in widths]
    rule = f"|{dashes[0]}-|" + "".join(f"{dash}:|" for dash in dashes[1:])
    return [padded[0], rule, *padded[1:]]


def _row(cells: list[str], widths: list[int]) -> str:
    """Return one line of a table, its cells padded to the widths of the columns."""
    first, *others = zip(cells, widths, strict=True)
    padded = [first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in others)]
    return "| " + " | ".join(padded) + " |"


class Ledger:
    """Record the costs of a run: make it once the model is loaded; `read` adds those since then to those of earlier calls.

    Memory is the peak of the process's resident set since the start, with and without the resident set at the start; on a
    GPU, it is what the allocator handed out.
    """

    def __init__(self, device: torch.device, before: dict | None = None):
        self.device, self.before = device, before or {}
        try:
            Path("/proc/self/clear_refs").write_text("5")  # resets VmHWM, which holds the peak of importing and loading
        except OSError:
            pass  # not Linux, or not allowed: the peak then includes that of loading
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        self.base_bytes = self._now()
        self.start = time.monotonic()
        self.steps, self.audio_seconds, self.train_seconds = 0, 0.0, 0.0

    def _now(self) -> int:
        """Return the bytes that are in use now."""
        if self.device.type == "cuda":
            return torch.cuda.memory_allocated(self.device)
        return _status_bytes("VmRSS") or self._peak()

    def _peak(self) -> int:
        """Return the largest number of bytes that were in use at once since the start."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device)
        return _status_bytes("VmHWM") or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

    @property
    def train_minutes(self) -> float:
        """Return the minutes spent in training steps, of all calls together."""
        return (self.before.get("train_seconds", 0.0) + self.train_seconds) / 60

    def add(self, audio_seconds: float, train_seconds: float) -> None:
        """Count one training step."""
        self.steps += 1
        self.audio_seconds += audio_seconds
        self.train_seconds += train_seconds

    def read(self) -> dict:
        """Return memory in bytes; wall seconds, steps, seconds of audio and of training of all calls together; and speed."""
        peak, old = self._peak(), self.before
        used = {
            "peak_bytes": max(peak, old.get("peak_bytes", 0)),
            "peak_less_model_bytes": max(peak - self.base_bytes, old.get("peak_less_model_bytes", 0)),
            "wall_seconds": old.get("wall_seconds", 0.0) + time.monotonic() - self.start,
            "train_seconds": old.get("train_seconds", 0.0) + self.train_seconds,
            "steps": old.get("steps", 0) + self.steps,
            "audio_seconds": old.get("audio_seconds", 0.0) + self.audio_seconds,
        }
        trained_s = max(used["train_seconds"], 1e-9)
        speed = {f"{what}_per_second": used[what] / trained_s for what in ("steps", "audio_seconds")}
        return {**used, **speed}
