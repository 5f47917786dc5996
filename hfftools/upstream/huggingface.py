"""Load models of transformers: folders of save_pretrained, repositories of the Hugging Face Hub, models of given sizes.

What becomes of a model depends on its family: a module of this folder that has

- `MODELS`: {model_type in config.json: name of the class in transformers},
- `block_class(config)`: the class of the blocks of a model with this config.json, which has `PLACES` (see graft.py),
- `convert(model, extractor, name, digest)`: transformers' model, preprocessor_config.json (or None) -> Upstream,
- and, where needed, `OPTIONS`: settings over those of config.json; `OPTIONAL`: weights, or whole parts, that a checkpoint
  may lack; `PADS`: True where its models were trained on windows of one length, and have an attribute `padded` that makes
  them run so;
- `variant_files(config)`, where a model has variants such as languages: the names that the file with the weights of one may
  have, with {} in place of the variant's name, and none if this model has no variants; and `variant_tensors(model)`, {name:
  tensor of transformers' model} of what such a file holds.
"""

import json
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from types import ModuleType
from typing import Any

from hfftools import memory
from hfftools.data.inputs import file_digest
from hfftools.log import UserError, require, suggest
from hfftools.nn.rate import RATE_HZ
from hfftools.upstream import hub
from hfftools.upstream.base import Upstream, model_digests
from hfftools.upstream.hub import Repo
from hfftools.upstream.model_files import Folder, find_weights
from hfftools.upstream.pretrained import read_model, read_variant
from hfftools.upstream.registry import modules_with
from hfftools.upstream.source import Source

IRRELEVANT = ("_name_or_path", "architectures", "dtype", "torch_dtype", "transformers_version")  # of config.json
LISTED = 40  # variants, in an error message; of more, only those with similar names


def family_of(model_type: str, name: str) -> ModuleType:
    """Return the module of the family that a model type belongs to; raise UserError with the known types if none does."""
    known: list[str] = []
    for family in modules_with("MODELS"):
        if model_type in family.MODELS:
            return family
        known += family.MODELS
    raise UserError(f"upstream {name}: model type {model_type} is not supported; known: {', '.join(known)}")


class Door(Source):
    """`hf:FOLDER`, written by save_pretrained, or `hf:OWNER/NAME`, a repository of the Hugging Face Hub.

    It is `hf_padded:` in place of `hf:` for the padded form of a family that has one.
    `@REVISION` may follow a repository's name: a branch, a tag or a commit. `@VARIANT` may follow either, or the revision,
    where the family has variants. Where one `@` follows a repository's name, what comes after it is a revision if the
    repository has it, else a variant.
    """

    kinds = ("hf", "hf_padded")

    def __init__(self, text: str):
        super().__init__(text)
        self.files, self.variant = self._open()
        self.config = _read_json(self.files.need("config.json"), text)
        self.family = family_of(str(self.config.get("model_type")), text)
        self.places = self.family.block_class(self.config).PLACES
        self.padded = self.kind == "hf_padded"
        require(
            not self.padded or getattr(self.family, "PADS", False),
            f"upstream {text}: {self.config['model_type']} has no padded form; write hf:{self.path}",
        )
        if self.variant:
            known = _variant_files(self.config, text)
            require(bool(known), f"upstream {text}: this model has no variants; leave out @{self.variant}")

    def _open(self) -> tuple[Folder | Repo, str]:
        """Return where the model's files are, and its variant; raise UserError where there is no such place."""
        if Path(self.path).is_dir():
            return Folder(Path(self.path), self.text), ""
        folder, _, variant = self.path.rpartition("@")
        if folder and Path(folder).is_dir():
            return Folder(Path(folder), self.text), variant
        repository, *marks = self.path.split("@")
        require(
            bool(hub.ID.fullmatch(repository)) and all(marks) and len(marks) <= 2,
            f"upstream {self.text}: {self.path} is not a folder; give one written by save_pretrained, or a repository of "
            "the Hugging Face Hub as hf:OWNER/NAME or hf:OWNER/NAME@REVISION",
        )
        try:
            revision, variant = [*marks, "", ""][:2]
            return Repo(repository, revision, self.text), variant
        except hub.NotFound:
            if len(marks) == 1:
                with suppress(hub.NotFound):
                    newest = Repo(repository, "", self.text)
                    if _variant_files(_read_json(newest.need("config.json"), self.text), self.text):
                        return newest, marks[0]
            raise

    @property
    def pinned(self) -> str:
        return "@".join([f"{self.kind}:{self.files.pinned}", *([self.variant] if self.variant else [])])

    def load(self) -> Upstream:
        """Return the model; raise UserError that names what its files lack, or why the model cannot be run."""
        extractor = self._extractor()
        rate_hz = extractor.get("sampling_rate", RATE_HZ)
        require(
            rate_hz == RATE_HZ,
            f"upstream {self.text}: {self.files.folder} was trained at {rate_hz} Hz, not at {RATE_HZ}",
        )
        weights = find_weights(self.files)
        model_class = _class(self.family, self.config["model_type"], self.text)
        theirs = read_model(model_class, self.family, self.files, weights)
        variant = self._variant_files()
        for path in variant:
            read_variant(theirs, self.family, path, self.text)
        digest = file_digest(*weights.shards, *variant)
        model = self.family.convert(theirs, extractor, self.pinned, digest)
        model.settings = self._settings(extractor)
        return self._in_form(model)

    def digests(self) -> dict[str, str]:
        try:
            weights, extractor = find_weights(self.files, downloads=False), self._extractor(downloads=False)
            variant = self._variant_files(downloads=False)
        except hub.NotFound:
            return {}
        return model_digests(file_digest(*weights.shards, *variant), self._settings(extractor))

    def _extractor(self, downloads: bool = True) -> dict:
        """Return the settings of the front end, which transformers 5 may write into a file with those of a tokenizer."""
        get = self.files.get if downloads else self.files.kept
        shared = None if get("preprocessor_config.json") else get("processor_config.json")
        if shared is not None:
            extractor = _read_json(shared, self.text).get("feature_extractor")
            if isinstance(extractor, dict):
                return extractor
        return _read_json(self.files.need("preprocessor_config.json"), self.text)

    def _variant_files(self, downloads: bool = True) -> list[Path]:
        """Return the file of the variant, if one is named."""
        if not self.variant:
            return []
        forms = _variant_files(self.config, self.text)
        get = self.files.get if downloads else self.files.kept
        for form in forms:
            if path := get(form.format(self.variant)):
                return [path]
        wanted = forms[0].format(self.variant)
        if self.files.unreached:
            raise self.files.lacking(wanted, also=wanted)
        ends = [form.split("{}") for form in forms]
        names = self.files.names()
        known = {n[len(a) : -len(z)] for a, z in ends for n in names if n.startswith(a) and n.endswith(z)}
        has = f"it has {', '.join(sorted(known))}" if len(known) <= LISTED else suggest(self.variant, known)
        raise UserError(
            f"upstream {self.text}: {self.files.folder} has no {wanted}; {has if known else 'nor any other'}"
        )

    def _settings(self, extractor: dict) -> str:
        """Return a digest of the two files of settings, without what says nothing of how the model computes."""
        kept = [
            {key: value for key, value in file.items() if key not in IRRELEVANT} for file in (self.config, extractor)
        ]
        kept += [{"padded": True}] if self.padded else []
        return sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()[:16]

    def random(self) -> Upstream:
        """Return a model of the same sizes with random weights; config.json is all that is read."""
        return self._in_form(random(self.config["model_type"], self.config, self.text))

    def _in_form(self, model: Upstream) -> Upstream:
        if self.padded:
            setattr(model, "padded", True)
        return model

    def card(self) -> str:
        readme = self.files.get("README.md")
        return readme.read_text(encoding="utf-8", errors="replace") if readme else ""

    @property
    def short_name(self) -> str:
        return "-".join([self.files.name, *([self.variant] if self.variant else [])])


def random(model_type: str, sizes: dict, name: str) -> Upstream:
    """Return a model of a `model_type` with weights drawn from torch's global generator, and "random" as its hash.

    `sizes` are what its class of configuration takes. Raises UserError for an unknown type or sizes that do not fit.
    """
    family = family_of(model_type, name)
    model_class = _class(family, model_type, name)
    config_class = model_class.config_class
    inner = [
        part for part in sizes.values() if isinstance(part, dict) and part.get("model_type") == config_class.model_type
    ]
    try:  # where the model is a part of a recogniser, config.json has its sizes further inside
        model = model_class(config_class(**{**(inner or [sizes])[0], **getattr(family, "OPTIONS", {})}))
    except Exception as error:  # whatever type the checks of this or that size raise
        if memory.ran_out(error):
            raise
        line = " ".join(str(error).split())
        raise UserError(f"upstream {name}: transformers cannot build a {model_type} of these sizes ({line})") from None
    return family.convert(model, None, name, "random")


def _variant_files(config: dict, name: str) -> tuple[str, ...]:
    """Return the names of files that may hold a variant, with {} in place of the variant's name; empty if there are none."""
    family = family_of(str(config.get("model_type")), name)
    return family.variant_files(config) if hasattr(family, "variant_files") else ()


def _class(family: ModuleType, model_type: str, name: str) -> Any:
    try:
        import transformers
    except ImportError as error:
        raise UserError(f"upstream {name} needs the package transformers ({error}): pip install transformers") from None
    wanted = family.MODELS[model_type]
    found = getattr(transformers, wanted, None)
    require(
        found is not None,
        f"upstream {name}: transformers {transformers.__version__} has no {wanted}; pip install --upgrade transformers",
    )
    return found


def _read_json(path: Path, name: str) -> dict:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8-sig")))
    except FileNotFoundError:
        raise UserError(f"upstream {name}: {path} does not exist; copy it from where the model comes from") from None
    except (TypeError, ValueError) as error:  # not JSON, not UTF-8, or not a table
        raise UserError(f"upstream {name}: {path} is broken ({error}); copy it again") from None
