"""Load models of transformers: folders of save_pretrained, or models of given sizes; nothing is downloaded.

What becomes of a model depends on its family: a module of this folder that has

- `MODELS`: {model_type in config.json: name of the class in transformers},
- `block_class(config)`: the class of the blocks of a model with this config.json, which has `PLACES` (see graft.py),
- `convert(model, extractor, name, digest)`: transformers' model, preprocessor_config.json (or None) -> Upstream,
- and, where needed, `OPTIONS`: settings over those of config.json; `OPTIONAL`: weights that a checkpoint may lack; `PADS`:
  True where its models were trained on windows of one length, and have an attribute `padded` that makes them run so.
"""

import json
from hashlib import sha256
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn

from hfftools import memory
from hfftools.data.inputs import file_digest
from hfftools.log import UserError, require
from hfftools.nn.rate import RATE_HZ
from hfftools.upstream.base import Upstream, model_digests
from hfftools.upstream.registry import modules_with
from hfftools.upstream.source import Source

IRRELEVANT = ("_name_or_path", "architectures", "dtype", "torch_dtype", "transformers_version")  # of config.json
WEIGHTS = ("model*.safetensors", "pytorch_model*.bin")  # one file or its shards


def family_of(model_type: str, name: str) -> ModuleType:
    """Return the module of the family that a model type belongs to; raise UserError with the known types if none does."""
    known: list[str] = []
    for family in modules_with("MODELS"):
        if model_type in family.MODELS:
            return family
        known += family.MODELS
    raise UserError(f"upstream {name}: model type {model_type} is not supported; known: {', '.join(known)}")


class Door(Source):
    """`hf:FOLDER`, a folder written by save_pretrained; `hf_padded:FOLDER` if the family has that form."""

    kinds = ("hf", "hf_padded")

    def __init__(self, text: str):
        super().__init__(text)
        self.folder = Path(self.path)
        require(
            self.folder.is_dir(), f"upstream {text}: {self.folder} is not a folder; give one written by save_pretrained"
        )
        self.config = _read_json(self.folder / "config.json", text)
        self.family = family_of(str(self.config.get("model_type")), text)
        self.places = self.family.block_class(self.config).PLACES
        self.padded = self.kind == "hf_padded"
        require(
            not self.padded or getattr(self.family, "PADS", False),
            f"upstream {text}: {self.config['model_type']} has no padded form; write hf:{self.path}",
        )

    def load(self) -> Upstream:
        """Return the model; raise UserError that names what the folder lacks, or why the model cannot be run."""
        extractor = _read_json(self.folder / "preprocessor_config.json", self.text)
        rate_hz = extractor.get("sampling_rate", RATE_HZ)
        require(
            rate_hz == RATE_HZ, f"upstream {self.text}: {self.folder} was trained at {rate_hz} Hz, not at {RATE_HZ}"
        )
        weights = self._weights()
        model = self.family.convert(self._read_model(), extractor, self.text, file_digest(*weights))
        model.settings = self._settings()
        return self._in_form(model)

    def digests(self) -> dict[str, str]:
        return model_digests(file_digest(*self._weights()), self._settings())

    def _settings(self) -> str:
        """Return a digest of the two files of settings, without what says nothing of how the model computes."""
        files = [_read_json(self.folder / name, self.text) for name in ("config.json", "preprocessor_config.json")]
        kept = [{key: value for key, value in file.items() if key not in IRRELEVANT} for file in files]
        kept += [{"padded": True}] if self.padded else []
        return sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()[:16]

    def _weights(self) -> list[Path]:
        for pattern in WEIGHTS:
            if files := sorted(self.folder.glob(pattern)):
                return files
        raise UserError(f"upstream {self.text}: {self.folder} holds no weights ({' or '.join(WEIGHTS)})")

    def _read_model(self) -> nn.Module:
        """Return transformers' model with all of its weights; optional ones that the files lack are removed from it."""
        model_class = _class(self.family, self.config["model_type"], self.text)
        options = getattr(self.family, "OPTIONS", {})
        try:
            with torch.random.fork_rng(devices=[]):  # weights are drawn before they are loaded
                model, report = model_class.from_pretrained(
                    self.folder, local_files_only=True, output_loading_info=True, weights_only=True, **options
                )
        except Exception as error:  # whatever type the reader of this or that file format raises
            if memory.ran_out(error):
                raise
            line = str(error).split("\n")[0]
            raise UserError(
                f"upstream {self.text}: transformers cannot read {self.folder} ({line}); save it again"
            ) from None
        missing = sorted(report["missing_keys"])
        for optional in getattr(self.family, "OPTIONAL", ()):
            if optional in missing:
                missing.remove(optional)
                delattr(model, optional)
        if missing:  # transformers would only warn, and leave them random
            raise UserError(
                f"upstream {self.text}: the weights in {self.folder} lack {len(missing)} tensors, first {missing[0]}"
            )
        return model

    def random(self) -> Upstream:
        """Return a model of the same sizes with random weights; config.json is all that is read."""
        return self._in_form(random(self.config["model_type"], self.config, self.text))

    def _in_form(self, model: Upstream) -> Upstream:
        if self.padded:
            setattr(model, "padded", True)
        return model

    def card(self) -> str:
        readme = self.folder / "README.md"
        return readme.read_text(encoding="utf-8", errors="replace") if readme.is_file() else ""


def random(model_type: str, sizes: dict, name: str) -> Upstream:
    """Return a model of a `model_type` with weights drawn from torch's global generator, and "random" as its hash.

    `sizes` are what its class of configuration takes. Raises UserError for an unknown type or sizes that do not fit.
    """
    family = family_of(model_type, name)
    model_class = _class(family, model_type, name)
    try:
        model = model_class(model_class.config_class(**{**sizes, **getattr(family, "OPTIONS", {})}))
    except Exception as error:  # whatever type the checks of this or that size raise
        if memory.ran_out(error):
            raise
        line = " ".join(str(error).split())
        raise UserError(f"upstream {name}: transformers cannot build a {model_type} of these sizes ({line})") from None
    return family.convert(model, None, name, "random")


def _class(family: ModuleType, model_type: str, name: str) -> Any:
    try:
        import transformers
    except ImportError as error:
        raise UserError(f"upstream {name} needs the package transformers ({error}): pip install transformers") from None
    return getattr(transformers, family.MODELS[model_type])


def _read_json(path: Path, name: str) -> dict:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8-sig")))
    except FileNotFoundError:
        raise UserError(f"upstream {name}: {path} does not exist; copy it from where the model comes from") from None
    except (TypeError, ValueError) as error:  # not JSON, not UTF-8, or not a table
        raise UserError(f"upstream {name}: {path} is broken ({error}); copy it again") from None
