"""Read a model of transformers from its files, and raise an error unless every tensor of it comes from them."""

from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from hfftools import memory
from hfftools.log import UserError
from hfftools.records import readable
from hfftools.upstream.hub import Repo
from hfftools.upstream.model_files import Folder, Weights


def read_model(model_class: Any, family: ModuleType, files: Folder | Repo, weights: Weights) -> nn.Module:
    """Return transformers' model with all of its weights; optional ones that the files lack are removed from it."""
    text = files.text
    options = getattr(family, "OPTIONS", {})
    try:
        with torch.random.fork_rng(devices=[]):  # weights are drawn before they are loaded
            model, report = model_class.from_pretrained(
                files.folder, local_files_only=True, output_loading_info=True, weights_only=True, **options
            )
    except Exception as error:  # whatever type the reader of this or that file format raises
        if memory.ran_out(error):
            raise
        line = str(error).split("\n")[0]
        raise UserError(f"upstream {text}: transformers cannot read {weights.name} ({line}); save it again") from None
    missing = sorted(report["missing_keys"])
    for optional in getattr(family, "OPTIONAL", ()):
        if optional in missing:
            missing.remove(optional)
            delattr(model, optional)
    if missing:  # transformers would only warn, and leave them random
        raise UserError(f"upstream {text}: {weights.name} lacks {len(missing)} tensors, first {missing[0]}")
    return model


def read_tensors(path: Path, text: str) -> dict[str, Tensor]:
    """Return the tensors of a .safetensors file; raise UserError where it is damaged. `text` is the upstream's name."""
    with readable(path, f"upstream {text} needs it; copy or download it again"):
        return load_file(path)
