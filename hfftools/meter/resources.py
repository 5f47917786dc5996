"""What a run costs: a model and a clock in; parameters by part, peak memory, speed, wall time, and a table of them out."""

import math
import resource
import time
from pathlib import Path

import torch

from hfftools.model import Model


def _status_bytes(key: str) -> int | None:
    status = Path("/proc/self/status")
    if not status.exists():
        return None
    line = next((line for line in status.read_text().splitlines() if line.startswith(f"{key}:")), None)
    return int(line.split()[1]) * 1024 if line else None


def parameters(model: Model) -> dict[str, int]:
    """Counts: trainable by part, trainable encoder parameters (upstream + inserted + fuse), and the upstream's size."""
    counts = {part: sum(p.numel() for _, p in named) for part, named in model.parts().items()}
    encoder = counts["upstream"] + counts["inserted"] + counts["fuse"]
    total = sum(p.numel() for p in model.upstream.parameters() if id(p) in model.base_parameters)
    return {**counts, "trainable_encoder": encoder, "trainable": encoder + counts["head"], "upstream_total": total}


def checkpoint_bytes(model: Model) -> int:
    """Bytes of the tensors that a checkpoint holds; the file has some hundred bytes a tensor beside."""
    return sum(tensor.nbytes for tensor in model.trained_state().values())


PARTS = {"upstream": "upstream", "inserted": "inserted", "fuse": "fusion", "head": "head"}
LEGEND = [
    "Trainable parameters: the upstream's own, those inserted into it, the fusion's, the head's; % of upstream: the first",
    "three beside all that it has. GFLOP: 10⁹ operations per second of audio, two a multiply-add, with padding, of what is",
    "run: where hidden states come from a cache, forward is without the upstream's forward, which stands apart. Memory: the",
    "peak of the process; less model: above what it held with the model loaded. Checkpoint: what was trained, nothing else.",
]


def three_digits(value: float | None) -> str:
    """A number as one reads it: three digits and those before the point; – for what is not known."""
    if value is None:
        return "–"
    return f"{value:,.{max(0, 2 - math.floor(math.log10(value)))}f}" if value > 0 else f"{value:g}"


def columns(used: dict) -> dict[str, str]:
    """{title: cell} of what a run used, as `resources.json` has it; – for what it does not tell."""
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
    """Rows of {title: cell}, alike in their titles, as lines of a Markdown table that can be read as it is."""
    lines = [list(rows[0]), *(list(row.values()) for row in rows)]
    widths = [max(3, *map(len, column)) for column in zip(*lines, strict=True)]
    padded = [
        "| "
        + " | ".join(cell.rjust(w) if n else cell.ljust(w) for n, (cell, w) in enumerate(zip(cells, widths)))
        + " |"
        for cells in lines
    ]
    rule = "|" + "|".join("-" * (w + 1) + ("-:"[n > 0]) for n, w in enumerate(widths)) + "|"
    return [padded[0], rule, *padded[1:]]


class Ledger:
    """Started once the model is loaded; `read` tells what happened since, added to what earlier calls had cost.

    Memory is the peak of the process's resident set since the start, and that less the resident set at the start; on a GPU,
    the allocator's peak, and that less what was allocated at the start.
    """

    def __init__(self, device: torch.device, before: dict | None = None):
        self.device, self.before = device, before or {}
        try:
            Path("/proc/self/clear_refs").write_text("5")  # forget the peak of importing and loading
        except OSError:
            pass
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        self.base_bytes = self._now()
        self.start = time.monotonic()
        self.steps, self.audio_seconds, self.train_seconds = 0, 0.0, 0.0

    def _now(self) -> int:
        if self.device.type == "cuda":
            return torch.cuda.memory_allocated(self.device)
        return _status_bytes("VmRSS") or self._peak()

    def _peak(self) -> int:
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device)
        return _status_bytes("VmHWM") or resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

    @property
    def train_minutes(self) -> float:
        """Of training steps, all calls together."""
        return (self.before.get("train_seconds", 0.0) + self.train_seconds) / 60

    def add(self, audio_seconds: float, train_seconds: float) -> None:
        """Count one training step."""
        self.steps += 1
        self.audio_seconds += audio_seconds
        self.train_seconds += train_seconds

    def read(self) -> dict:
        """Memory in bytes; wall seconds, steps, seconds of audio and of training, all calls together; and speed."""
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
