"""What a run costs: a model and a clock in, parameters by part, peak memory, speed and wall time out."""

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
    total = sum(p.numel() for n, p in model.upstream.named_parameters() if n in model.base_names)
    return {**counts, "trainable_encoder": encoder, "trainable": encoder + counts["head"], "upstream_total": total}


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

    def add(self, audio_seconds: float, train_seconds: float) -> None:
        """Count one training step."""
        self.steps += 1
        self.audio_seconds += audio_seconds
        self.train_seconds += train_seconds

    def read(self) -> dict:
        """Memory in bytes; wall seconds, steps, seconds of audio and of training, all calls together."""
        peak, old = self._peak(), self.before
        return {
            "peak_bytes": max(peak, old.get("peak_bytes", 0)),
            "peak_less_model_bytes": max(peak - self.base_bytes, old.get("peak_less_model_bytes", 0)),
            "wall_seconds": old.get("wall_seconds", 0.0) + time.monotonic() - self.start,
            "train_seconds": old.get("train_seconds", 0.0) + self.train_seconds,
            "steps": old.get("steps", 0) + self.steps,
            "audio_seconds": old.get("audio_seconds", 0.0) + self.audio_seconds,
        }
