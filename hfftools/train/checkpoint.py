"""Write what was trained, with the upstream that it belongs to, to one safetensors file, and read it back."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from hfftools.expdir import file_hash, write_aside
from hfftools.log import UserError
from hfftools.model import Model


def save(path: Path, tensors: dict[str, Tensor], model: Model, **facts: Any) -> None:
    """Write `tensors` with the upstream's name and hash and `facts`; the file appears whole or not at all."""
    info = {"upstream": model.upstream.name, "upstream_hash": model.upstream.hash, **facts}
    with write_aside(path) as aside:
        save_file(tensors, aside, {"hff": json.dumps(info)})


def read(path: Path) -> tuple[dict[str, Tensor], dict]:
    """Return the tensors and facts of a file; raise UserError where it is missing, cut short, or not one of ours."""
    try:
        with safe_open(path, "pt") as file:
            return {key: file.get_tensor(key) for key in file.keys()}, json.loads((file.metadata() or {})["hff"])
    except FileNotFoundError:
        raise UserError(f"{path} does not exist; run hff-train {path.parent.parent} to the end") from None
    except (SafetensorError, KeyError, OSError) as error:
        raise UserError(f"{path} is not a checkpoint of hff-train, or is cut short ({error}); train again") from None


def load(path: Path, model: Model) -> dict:
    """Load a checkpoint into `model` and return its facts; raise UserError where the upstream is another one."""
    tensors, info = read(path)
    if info["upstream_hash"] != model.upstream.hash:
        raise UserError(
            f"{path} was trained on upstream {info['upstream']} (hash {info['upstream_hash']}), "
            f"not on this {model.upstream.name} (hash {model.upstream.hash})"
        )
    model.load_trained(tensors, str(path))
    return info


def average(paths: list[Path]) -> dict[str, Tensor]:
    """Return the mean of several checkpoints' tensors, computed in double precision; integers are those of the first."""
    states = [read(path)[0] for path in paths]
    return {
        name: (
            torch.stack([s[name].double() for s in states]).mean(0).to(first.dtype).contiguous()
            if first.is_floating_point()
            else first
        )
        for name, first in states[0].items()
    }


def digest(path: Path) -> str:
    """Return a digest of a checkpoint file, by which results name it; raise UserError where it is missing."""
    if not path.exists():
        raise UserError(f"{path} does not exist; run hff-train {path.parent.parent} to the end")
    return file_hash(path)


def read_state(path: Path) -> dict:
    """Return the state that torch.save wrote for resuming; raise UserError where it is damaged."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{path} cannot be read ({reason}); remove it to begin again") from None
