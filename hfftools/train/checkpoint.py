"""Write what was trained, with the upstream that it belongs to, to one safetensors file, and read it back."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from hfftools.expdir import file_hash, write_aside
from hfftools.log import UserError
from hfftools.model import Model
from hfftools.records import AGAIN, Form, check, readable


def save(path: Path, tensors: dict[str, Tensor], model: Model, **facts: Any) -> None:
    """Write `tensors` with the upstream's name and hash and `facts`; the file appears whole or not at all."""
    info = {"upstream": model.upstream.name, "upstream_hash": model.upstream.hash, **facts}
    with write_aside(path) as aside:
        save_file(tensors, aside, {"hff": json.dumps(info)})


def read(path: Path) -> tuple[dict[str, Tensor], dict]:
    """Return the tensors and facts of a file; raise UserError where it is missing, cut short, or not one of ours."""
    exp = path.parent.parent
    if not path.exists():
        raise UserError(f"{path} does not exist; run hff-train {exp} to the end")
    with readable(path, f"if hff-train wrote it, remove it and run hff-train {exp} again"):
        with safe_open(path, "pt") as file:
            info = json.loads((file.metadata() or {})["hff"])
            return {key: file.get_tensor(key) for key in file.keys()}, check(info, {"upstream_hash": str})


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


def write_state(path: Path, state: dict) -> None:
    """Write what a run needs to resume."""
    with write_aside(path) as aside:
        torch.save(state, aside)


def read_state(path: Path, form: Form) -> Any:
    """Return the state that `write_state` wrote; raise UserError where it is damaged or has another form."""
    with readable(path, f"{AGAIN}, which begins from the start"):
        return check(torch.load(path, map_location="cpu", weights_only=True), form)
