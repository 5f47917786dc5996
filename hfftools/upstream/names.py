"""Parse the name of an upstream, once, into the Source that knows everything about it.

A name is one string: a name by itself (`hff_tiny`, `fbank`, `wav2vec2_large`, …), the path of an encoder.safetensors or of
its folder, or a kind and a path: `hf:FOLDER` written by save_pretrained, `hf:OWNER/NAME` of the Hugging Face Hub (either
may have an `@`, see huggingface.py, and `hf_padded:` is for Whisper as published), `wav2vec2_local:FILE` (`hubert_local`,
`wavlm_local`, `data2vec_local`) converted for s3prl. `A+B` is two of them as one. Each form has a door in this folder.
"""

import re
from pathlib import Path
from typing import Any, TypeVar

from hfftools.config import with_option
from hfftools.log import UserError, require, suggest
from hfftools.recorded import read_recorded
from hfftools.upstream import hub
from hfftools.upstream.base import Upstream
from hfftools.upstream.pair import PairSource
from hfftools.upstream.registry import modules_with
from hfftools.upstream.source import Source

C = TypeVar("C", bound=Any)
COMMIT = re.compile(r"@[0-9a-f]{40}(?=[@+]|$)")  # as `pinned` writes it


def parse(text: str) -> Source:
    """Return the source that a name stands for; raise UserError that says what to write instead if there is none."""
    require(bool(text), "upstream: no name is given; name one, such as hff_tiny")
    if _is_one(text):
        return _parse_one(text)
    for cut in [position for position, letter in enumerate(text) if letter == "+"]:
        first, second = text[:cut], text[cut + 1 :]
        if first and second and _is_one(first) and _is_one(second):
            return PairSource(text, _parse_one(first), _parse_one(second))
    raise UserError(f"upstream {text}: two upstreams are fused as A+B, neither more nor fewer")


def pin(config: C, recorded: Path) -> C:
    """Return the options with an `upstream` that names its commit, where it is a repository of the Hugging Face Hub.

    `recorded` is the config.yaml of the experiment: one that was started goes on with its commit, though the hub may have a
    newer one. The name of another upstream stays as it is.
    """
    asked = config.upstream
    if recorded.exists():
        started = read_recorded(recorded).get("upstream")
        if COMMIT.sub("", str(started)) == asked:
            return with_option(config, "upstream", started)
    return with_option(config, "upstream", parse(asked).pinned)


def load_upstream(text: str) -> Upstream:
    """Return the model that a name stands for, on the CPU and in eval mode; raise UserError as `parse` or its door does."""
    return parse(text).load()


def doors() -> list[type[Source]]:
    """Return the door of every module that has one."""
    return [module.Door for module in modules_with("Door")]


def known_names() -> list[str]:
    """Return every name that stands for a model by itself; this imports s3prl, which takes a second."""
    known: set[str] = set()
    for door in doors():
        known.update(door.names())
    return sorted(known)


def _is_one(text: str) -> bool:
    """Return whether a name is of one upstream: a plus sign in a path that exists is part of the path."""
    kind, colon, path = text.partition(":")
    return "+" not in text or Path(path if colon and "+" not in kind else text).exists()


def _parse_one(text: str) -> Source:
    for door in doors():
        if door.claims(text):
            return door(text)
    kind, colon, _ = text.partition(":")
    if colon:
        kinds: list[str] = sum((list(door.kinds) for door in doors()), [])
        raise UserError(f"upstream {text}: {kind} is not known; {suggest(kind, kinds)}")
    if text.endswith(".pt") or "/" in text or Path(text).is_dir():
        raise UserError(f"upstream {text}: {_advise_path(Path(text))}")
    raise UserError(f"upstream {text} is not known; {suggest(text, known_names())}")


def _advise_path(path: Path) -> str:
    if not path.exists():
        known = hub.ID.fullmatch(str(path).partition("@")[0])
        hint = f"; a repository of the Hugging Face Hub is spelled hf:{path}" if known else ""
        return f"no such file or folder{hint}"
    if path.is_file():
        return f"give the kind of a checkpoint with its path, such as wav2vec2_local:{path} or hubert_local:{path}"
    if (path / "config.json").is_file():
        return f"a folder of save_pretrained is spelled hf:{path}"
    return "the folder holds no encoder.safetensors"
