"""Read a model of transformers from its files, and raise an error unless every tensor of it comes from them."""

import logging
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from safetensors.torch import load_file
from torch import nn

from hfftools import memory
from hfftools.log import UserError, log
from hfftools.records import readable
from hfftools.upstream.hub import Repo
from hfftools.upstream.model_files import Folder, Weights


def read_model(model_class: Any, family: ModuleType, files: Folder | Repo, weights: Weights) -> nn.Module:
    """Return transformers' model with all of its weights; optional ones that the files lack are removed from it.

    What the files hold beyond it, such as the head of a recogniser, is left out, and one line of the log says so. Raise
    UserError where a tensor is missing.
    """
    text = files.text
    options = getattr(family, "OPTIONS", {})
    try:
        with torch.random.fork_rng(devices=[]), _quiet():  # weights are drawn before they are loaded
            model, report = model_class.from_pretrained(
                files.folder, local_files_only=True, output_loading_info=True, weights_only=True, **options
            )
    except Exception as error:  # whatever type the reader of this or that file format raises
        if memory.ran_out(error):
            raise
        line = str(error).split("\n")[0]
        raise UserError(f"upstream {text}: transformers cannot read {weights.name} ({line}); save it again") from None
    missing = sorted(report["missing_keys"])
    for optional in getattr(family, "OPTIONAL", ()):  # a tensor, or a part with all of its tensors
        found = [name for name in missing if name != optional and not name.startswith(f"{optional}.")]
        if found != missing:
            missing = found
            delattr(model, optional)
    if missing:  # transformers would only warn, and leave them random
        raise UserError(f"upstream {text}: {weights.name} lacks {len(missing)} tensors, first {missing[0]}")
    if report["unexpected_keys"]:
        log.info(_left_out(text, sorted(report["unexpected_keys"])))
    return model


@contextmanager
def _quiet() -> Iterator[None]:
    """Leave out transformers' own table of what is missing and what is not used, which takes a line for each tensor."""
    theirs = logging.getLogger("transformers")
    level = theirs.level
    theirs.setLevel(logging.ERROR)
    try:
        yield
    finally:
        theirs.setLevel(level)


def _left_out(text: str, names: list[str]) -> str:
    """Return the line that says how many tensors of a checkpoint are not used, by the parts that they belong to."""
    parts = Counter(name.removeprefix("model.").partition(".")[0] for name in names)
    listed = ", ".join(f"{part} ({count})" for part, count in parts.items())
    return f"upstream {text}: {len(names)} tensors of the checkpoint are not of the encoder and are left out: {listed}"


def read_variant(model: Any, family: ModuleType, path: Path, text: str) -> None:
    """Put the weights of a variant, such as a language, into transformers' model; those of a head are left out.

    Raise UserError where the file is damaged or lacks a tensor. `text` is the upstream's name.
    """
    with readable(path, f"upstream {text} needs it; copy or download it again"):
        safe = path.suffix == ".safetensors"
        tensors = load_file(path) if safe else torch.load(path, map_location="cpu", weights_only=True)
    for name, tensor in family.variant_tensors(model).items():
        found = tensors.get(name, tensors.get(f"{model.base_model_prefix}.{name}"))
        if found is None or found.shape != tensor.shape:
            raise UserError(f"upstream {text}: {path} has no tensor {name} of the shape {tuple(tensor.shape)}")
        tensor.data.copy_(found)
