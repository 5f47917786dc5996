"""Write what was trained, with the upstream that it belongs to, to one safetensors file, and read it back."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from hfftools.data.inputs import file_digest
from hfftools.expdir import changed_inputs, write_aside
from hfftools.log import UserError
from hfftools.model import Model
from hfftools.records import AGAIN, Form, check, check_finite, readable
from hfftools.upstream.base import model_digests
from hfftools.upstream.source import Source


def save(path: Path, tensors: dict[str, Tensor], model: Model, **facts: Any) -> None:
    """Write `tensors` with the upstream's name and hash and `facts`; the file appears whole or not at all."""
    settings = model.upstream.settings
    info = {"upstream": model.upstream.name, "upstream_hash": model.upstream.hash, "settings": settings, **facts}
    with write_aside(path) as aside:
        save_file(tensors, aside, {"hff": json.dumps(info)})


def read(path: Path, facts_only: bool = False) -> tuple[dict[str, Tensor], dict]:
    """Return the tensors and facts of a file; raise UserError where it is missing, cut short, or not one of ours."""
    exp = path.parent.parent
    if not path.exists():
        raise UserError(f"{path} does not exist; run hff-train {exp} to the end")
    with readable(path, f"if hff-train wrote it, remove it and run hff-train {exp} again"):
        with safe_open(path, "pt") as file:
            info = check(json.loads((file.metadata() or {})["hff"]), {"upstream_hash": str})
            tensors = {key: file.get_tensor(key) for key in ([] if facts_only else file.keys())}
        check_finite(tensors)
        return tensors, info


def load(path: Path, model: Model) -> dict:
    """Load a checkpoint into `model` and return its facts; raise UserError where the upstream is another one."""
    tensors, info = read(path)
    _refuse_other_upstream(path, info, model.upstream.name, model.upstream.digests)
    model.load_trained(tensors, str(path))
    return info


def check_upstream(path: Path, source: Source) -> None:
    """Raise UserError where the files of an upstream are not those that a checkpoint was trained on; nothing is loaded."""
    _refuse_other_upstream(path, read(path, facts_only=True)[1], source.text, source.digests())


def _refuse_other_upstream(path: Path, info: dict, name: str, digests: dict[str, str]) -> None:
    record = model_digests(info["upstream_hash"], info.get("settings", ""))
    if changed := changed_inputs(record, digests):
        what = " and ".join("weights" if key == "upstream" else "settings" for key in changed)
        raise UserError(
            f"{path} was trained on upstream {info['upstream']} (hash {info['upstream_hash']}), not on this {name} (hash "
            f"{digests['upstream']}), which has other {what}; put the files back, or train again in another folder"
        )


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
    return file_digest(path)


def write_state(path: Path, state: dict) -> None:
    """Write what a run needs to resume."""
    with write_aside(path) as aside:
        torch.save(state, aside)


def read_state(path: Path, form: Form) -> Any:
    """Return the state that `write_state` wrote; raise UserError where it is damaged or has another form."""
    with readable(path, f"{AGAIN}, which begins from the start"):
        return check(torch.load(path, map_location="cpu", weights_only=True), form)
