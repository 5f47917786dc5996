"""Parse the name of an upstream, once, into the Source that knows everything about it.

A name is one string: a name by itself (`hff_tiny`, `fbank`, `wav2vec2_large`, …), the path of an encoder.safetensors or of
its folder, or a kind and a path: `hf:FOLDER` written by save_pretrained (`hf_padded:` for Whisper as published),
`wav2vec2_local:FILE` (`hubert_local`, `wavlm_local`, `data2vec_local`) converted for s3prl. `A+B` is two of them as one.
Each form has a door in this folder.
"""

from pathlib import Path

from hfftools.log import UserError, suggest
from hfftools.upstream.base import Upstream
from hfftools.upstream.pair import PairSource
from hfftools.upstream.registry import modules_with
from hfftools.upstream.source import Source


def parse(text: str) -> Source:
    """Return the source that a name stands for; raise UserError that says what to write instead if there is none."""
    if _is_one(text):
        return _parse_one(text)
    for cut in [position for position, letter in enumerate(text) if letter == "+"]:
        first, second = text[:cut], text[cut + 1 :]
        if first and second and _is_one(first) and _is_one(second):
            return PairSource(text, _parse_one(first), _parse_one(second))
    raise UserError(f"upstream {text}: two upstreams are fused as A+B, neither more nor fewer")


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
        return "no such file or folder"
    if path.is_file():
        return f"give the kind of a checkpoint with its path, such as wav2vec2_local:{path} or hubert_local:{path}"
    if (path / "config.json").is_file():
        return f"a folder of save_pretrained is spelled hf:{path}"
    return "the folder holds no encoder.safetensors"
