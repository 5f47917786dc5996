"""Upstream names in, models out: the bundled hff_tiny, fbank, files of hff-pretrain, s3prl's names, checkpoint files.

An upstream is one string: a name (`hff_tiny`, `fbank`, `wav2vec2_large`, `hubert_base`, …), the path of an
encoder.safetensors or of its folder, or a kind and a path: `hf:FOLDER` written by save_pretrained,
`wav2vec2_local:FILE` (`hubert_local`, `wavlm_local`, `data2vec_local`) converted for s3prl. `A+B` is two of them as one.
"""

from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

from hfftools.log import UserError, require, suggest
from hfftools.upstream import conformer
from hfftools.upstream.base import Upstream
from hfftools.upstream.conformer import ConformerUpstream
from hfftools.upstream.fbank import FbankUpstream
from hfftools.upstream.pair import PairUpstream

BUNDLED = {"hff_tiny": "hff_tiny.safetensors"}


def known_names() -> list[str]:
    """Every name that stands for a model by itself; reads s3prl's, which takes a second."""
    from hfftools.upstream import s3prl

    return sorted({*BUNDLED, FbankUpstream.name, *s3prl.ALIASES, *s3prl.names()})


def split_pair(name: str) -> list[str]:
    """[A, B] of `A+B`, or [name]: a plus sign in a path that exists is part of it. UserError for three."""
    if _is_one(name):
        return [name]
    ways = [[name[:i], name[i + 1 :]] for i, letter in enumerate(name) if letter == "+"]
    pairs = [halves for halves in ways if all(half and _is_one(half) for half in halves)]
    require(len(pairs) > 0, f"upstream {name}: two upstreams are fused as A+B, neither more nor fewer")
    return pairs[0]


def _is_one(name: str) -> bool:
    kind, colon, path = name.partition(":")
    return "+" not in name or Path(path if colon and "+" not in kind else name).exists()


def load_upstream(name: str) -> Upstream:
    """The model that a name stands for, on the CPU and in eval mode; UserError that says what to write instead."""
    if len(halves := split_pair(name)) == 2:
        return PairUpstream(*map(load_upstream, halves)).eval()
    door, (kind, colon, path) = _door(name), name.partition(":")
    if door == "fbank":
        return FbankUpstream()
    if door == "conformer":
        return load_conformer(name).eval()
    if door == "huggingface":
        from hfftools.upstream import huggingface

        return huggingface.load(Path(path), name)
    from hfftools.upstream import s3prl

    return s3prl.load(kind, path if colon else None)


def family(name: str) -> str:
    """The kind of blocks a name stands for, without loading any weights: fbank (none), conformer (our own), transformer,
    macaron (wav2vec 2.0 Conformers); empty where only loading can tell. UserError for the names load_upstream refuses.
    """
    if len(halves := split_pair(name)) == 2:
        kinds = {family(half) for half in halves}
        return kinds.pop() if len(kinds) == 1 else ""
    door, (kind, colon, path) = _door(name), name.partition(":")
    if door == "conformer":
        _conformer_file(name)
    if door == "huggingface":
        from hfftools.upstream import huggingface

        return huggingface.blocks_of(Path(path), name)
    if door == "s3prl":
        from hfftools.upstream import s3prl

        return s3prl.blocks_of(kind, path if colon else None)
    return door


def _door(name: str) -> str:
    """The part of this room that loads a name; UserError where none does."""
    kind, colon, _ = name.partition(":")
    if name == FbankUpstream.name:
        return "fbank"
    if name in BUNDLED or name.endswith(".safetensors") or (Path(name) / "encoder.safetensors").is_file():
        return "conformer"
    if colon:
        return "huggingface" if kind == "hf" else "s3prl"
    if name.endswith(".pt") or "/" in name or Path(name).is_dir():
        raise UserError(f"upstream {name}: {_advise_path(Path(name))}")
    if name not in (known := known_names()):
        raise UserError(f"upstream {name} is not known; {suggest(name, known)}")
    return "s3prl"


def short_name(name: str) -> str:
    """An upstream's name fit for a folder's: `exp/mine/encoder.safetensors` is mine."""
    if len(halves := split_pair(name)) == 2:
        return "-".join(map(short_name, halves))
    path = Path(name.rpartition(":")[2])
    return path.parent.name if path.name == "encoder.safetensors" else path.stem


def _advise_path(path: Path) -> str:
    if not path.exists():
        return "no such file or folder"
    if path.is_file():
        return f"give the kind of a checkpoint with its path, such as wav2vec2_local:{path} or hubert_local:{path}"
    if (path / "config.json").is_file():
        return f"a folder of save_pretrained is spelled hf:{path}"
    return "the folder holds no encoder.safetensors"


def load_conformer(name: str) -> ConformerUpstream:
    """One of our own encoders: a bundled name, an encoder.safetensors, or the folder hff-pretrain wrote it to."""
    return conformer.load(_conformer_file(name), name)


def _conformer_file(name: str) -> Path:
    if name in BUNDLED:
        return Path(str(files("hfftools.upstream.weights").joinpath(BUNDLED[name])))
    path = Path(name) / "encoder.safetensors" if Path(name).is_dir() else Path(name)
    require(path.is_file(), f"upstream {name}: {path} does not exist")
    return path


def card(name: str) -> str:
    """What its files say of where a model comes from and of its licence; empty where they say nothing."""
    if len(halves := split_pair(name)) == 2:
        return "\n\n".join(filter(None, map(card, halves)))
    door = _door(name)
    if name in BUNDLED:
        return files("hfftools.upstream.weights").joinpath(f"{name}.md").read_text(encoding="utf-8")
    if door == "conformer":
        return conformer.read_card(_conformer_file(name))
    readme = Path(name.partition(":")[2]) / "README.md"
    return readme.read_text(encoding="utf-8", errors="replace") if door == "huggingface" and readme.is_file() else ""


def check_layers(upstream: Upstream, layers: Sequence[int]) -> None:
    """UserError where `layers` is empty or names a state that the upstream does not have."""
    wrong = [layer for layer in layers if layer not in upstream.all_layers]
    if wrong or not layers:
        what = f"{', '.join(map(str, wrong))}: no such layer" if wrong else "none given"
        raise UserError(f"layers: {what}; {upstream.name} has 0 to {upstream.num_layers}, 0 enters its first block")
