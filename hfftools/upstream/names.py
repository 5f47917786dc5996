"""Upstream names in, models out: the bundled hff_tiny, fbank, files of hff-pretrain, s3prl's names, checkpoint files.

An upstream is one string: a name (`hff_tiny`, `fbank`, `wav2vec2_large`, `hubert_base`, …), the path of an
encoder.safetensors or of its folder, or a kind and a path: `hf:FOLDER` written by save_pretrained,
`wav2vec2_local:FILE` (`hubert_local`, `wavlm_local`, `data2vec_local`) converted for s3prl.
"""

from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

from hfftools.log import UserError, suggest
from hfftools.upstream import conformer
from hfftools.upstream.base import Upstream
from hfftools.upstream.conformer import ConformerUpstream
from hfftools.upstream.fbank import FbankUpstream

BUNDLED = {"hff_tiny": "hff_tiny.safetensors"}


def known_names() -> list[str]:
    """Every name that stands for a model by itself; reads s3prl's, which takes a second."""
    from hfftools.upstream import s3prl

    return sorted({*BUNDLED, FbankUpstream.name, *s3prl.ALIASES, *s3prl.names()})


def load_upstream(name: str) -> Upstream:
    """The model that a name stands for, on the CPU and in eval mode; UserError that says what to write instead."""
    kind, colon, path = name.partition(":")
    if name == FbankUpstream.name:
        return FbankUpstream()
    if name in BUNDLED or name.endswith(".safetensors") or (Path(name) / "encoder.safetensors").is_file():
        return load_conformer(name).eval()
    if colon and kind == "hf":
        from hfftools.upstream import huggingface

        return huggingface.load(Path(path), name)
    if not colon and (name.endswith(".pt") or "/" in name or Path(name).is_dir()):
        raise UserError(f"upstream {name}: {_mend_path(Path(name))}")

    from hfftools.upstream import s3prl

    if colon:
        return s3prl.load(kind, path)
    if name not in (known := known_names()):
        raise UserError(f"upstream {name} is not known; {suggest(name, known)}")
    return s3prl.load(name)


def short_name(name: str) -> str:
    """An upstream's name fit for a folder's: `exp/mine/encoder.safetensors` is mine."""
    path = Path(name.rpartition(":")[2])
    return path.parent.name if path.name == "encoder.safetensors" else path.stem


def _mend_path(path: Path) -> str:
    if not path.exists():
        return "no such file or folder"
    if path.is_file():
        return f"give the kind of a checkpoint with its path, such as wav2vec2_local:{path} or hubert_local:{path}"
    if (path / "config.json").is_file():
        return f"a folder of save_pretrained is spelled hf:{path}"
    return "the folder holds no encoder.safetensors"


def load_conformer(name: str) -> ConformerUpstream:
    """One of our own encoders: a bundled name, an encoder.safetensors, or the folder hff-pretrain wrote it to."""
    if name in BUNDLED:
        return conformer.load(Path(str(files("hfftools.upstream.weights").joinpath(BUNDLED[name]))), name)
    path = Path(name)
    return conformer.load(path / "encoder.safetensors" if path.is_dir() else path, name)


def check_layers(upstream: Upstream, layers: Sequence[int]) -> None:
    """UserError where `layers` is empty or names a state that the upstream does not have."""
    wrong = [layer for layer in layers if layer not in upstream.all_layers]
    if wrong or not layers:
        what = f"{', '.join(map(str, wrong))}: no such layer" if wrong else "none given"
        raise UserError(f"layers: {what}; {upstream.name} has 0 to {upstream.num_layers}, 0 enters its first block")
