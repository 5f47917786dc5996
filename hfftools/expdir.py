"""Name the files of an experiment, and write files so that neither a kill nor a loss of power leaves half of one."""

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from hfftools.disk import alone, sync, writing
from hfftools.log import UserError
from hfftools.records import read_json

P = TypeVar("P", str, Path)

_UMASK = os.umask(0)  # the only way to read it is to set it
os.umask(_UMASK)


@contextmanager
def write_aside(path: Path | str, synced: bool = True) -> Iterator[Path]:
    """Yield a temporary path in the folder of `path`; rename it to `path` if the block succeeds, remove it otherwise.

    When it returns, the file is on the disk. Of many small files, write each with `synced` false, and then call
    disk.sync_all before the record that says that they are there.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with writing(path, aside):
            yield aside
            aside.chmod(0o666 & ~_UMASK)  # safetensors and tempfile create files that only their owner can read
            if synced:
                sync(aside)  # before the rename: else a loss of power may leave the new name with no content
            os.replace(aside, path)
            if synced:
                sync(path.parent)
    finally:
        aside.unlink(missing_ok=True)


def write_text(path: Path | str, text: str) -> None:
    """Write a text file, whole or not at all."""
    with write_aside(path) as aside:
        aside.write_text(text, encoding="utf-8")


def write_json(path: Path | str, value: object) -> None:
    """Write a JSON file, whole or not at all."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def append_json_line(path: Path, value: dict) -> None:
    """Append one line to a .jsonl file in a single write, after completing a line that a killed process left unfinished."""
    unfinished = path.exists() and path.stat().st_size and not path.read_bytes().endswith(b"\n")
    with writing(path), open(path, "ab") as file:
        file.write((("\n" if unfinished else "") + json.dumps(value, ensure_ascii=False) + "\n").encode())
        file.flush()
        os.fsync(file.fileno())


def file_hash(*paths: Path) -> str:
    """Return the first 16 hex digits of the SHA-256 of the files' content, one after another."""
    digest = hashlib.sha256()
    for path in paths:
        with open(path, "rb") as file:
            while chunk := file.read(1 << 20):
                digest.update(chunk)
    return digest.hexdigest()[:16]


@dataclass(frozen=True)
class ExpDir:
    """Name the files and folders inside exp/<name>/."""

    root: Path

    @property
    def config(self) -> Path:
        return self.root / "config.yaml"

    @property
    def units(self) -> Path:
        return self.root / "units"

    @property
    def checkpoints(self) -> Path:
        return self.root / "checkpoints"

    @property
    def state(self) -> Path:
        """Return the file with all that a run needs to resume: parameters, optimiser state, position."""
        return self.checkpoints / "state.pt"

    def epoch(self, epoch: int) -> Path:
        return self.checkpoints / f"epoch_{epoch:03d}.safetensors"

    @property
    def initial(self) -> Path:
        """Return the file with the values that training starts from, kept until its end."""
        return self.checkpoints / "initial.safetensors"

    @property
    def final(self) -> Path:
        """Return the file with the average of the best epochs: hff-decode reads it, and it exists once training is done."""
        return self.checkpoints / "final.safetensors"

    @property
    def log(self) -> Path:
        return self.root / "log.txt"

    @property
    def history(self) -> Path:
        return self.root / "history.jsonl"

    @property
    def resources(self) -> Path:
        return self.root / "resources.json"

    @property
    def images(self) -> Path:
        return self.root / "images"

    @property
    def tensorboard(self) -> Path:
        return self.root / "tensorboard"

    @property
    def inputs(self) -> Path:
        """Return the file with the digests of the inputs that the experiment started from."""
        return self.root / "inputs.json"

    @property
    def probe(self) -> Path:
        return self.root / "probe.json"

    @property
    def table(self) -> Path:
        return self.root / "table.txt"

    @property
    def layers_image(self) -> Path:
        return self.root / "layers.png"

    @property
    def curves_image(self) -> Path:
        return self.root / "curves.png"

    @property
    def cka_image(self) -> Path:
        return self.root / "cka.png"

    @property
    def page(self) -> Path:
        """Return the page with the results of a probing."""
        return self.root / "index.html"

    @property
    def recommendation(self) -> Path:
        """Return the yaml with the layers that a probing recommends, for hff-train --config."""
        return self.root / "recommendation.yaml"

    def part(self, name: str) -> Path:
        """Return the file of a finished part of a probing."""
        return self.root / "parts" / f"{name}.json"

    @property
    def alignments(self) -> Path:
        return self.root / "align"

    @property
    def built_in(self) -> Path:
        """Return the folder of synthetic speech, made if no data is given."""
        return self.root / "data"

    @property
    def kept_states(self) -> Path:
        """Return the folder of the hidden states of the synthetic speech, kept while they are needed."""
        return self.root / "feats"

    @property
    def encoder(self) -> Path:
        """Return the encoder file that pre-training writes."""
        return self.root / "encoder.safetensors"

    @property
    def targets(self) -> Path:
        return self.root / "targets.npz"

    @property
    def search(self) -> Path:
        """Return the file with the search weights that were chosen on dev."""
        return self.root / "search.json"

    def decode(self, set_name: str, label: str = "") -> Path:
        """Return the folder of a decoded set; `label` names the search, and is empty for the greedy one."""
        return self.root / "decode" / (f"{set_name}_{label}" if label else set_name)

    def decoded(self) -> list[Path]:
        """Return the folders of the sets that were decoded."""
        return sorted(path.parent for path in self.root.glob("decode/*/decode.json"))

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Lock the folder against other processes, and remove temporary files that killed ones left."""
        with alone(self.root):
            yield


def each_once(paths: Iterable[P]) -> list[P]:
    """Return the paths without those of a folder that an earlier one names, however they are spelled."""
    first: dict[str, P] = {}
    for path in paths:
        first.setdefault(os.path.realpath(path), path)
    return list(first.values())


def changed_inputs(record: Mapping[str, str], inputs: Mapping[str, str]) -> list[str]:
    """Return the names of the inputs, {name: digest}, whose digests differ from those recorded.

    An input that the record lacks was not looked at by the version of hff that wrote it. The digest of a whole set, `name`,
    was replaced by those of its parts, `name: part`; it decides only where a record has none of these.
    """
    changed = [name for name, digest in inputs.items() if record.get(name, digest) != digest]
    return [name for name in changed if not any(other.startswith(f"{name}: ") for other in record)]


def check_inputs(path: Path, inputs: dict[str, str]) -> None:
    """Raise UserError that names the inputs, {name: digest}, whose digests differ from those recorded in `path`."""
    fix = "if its inputs are those that it was started with, remove it and run the same command again"
    old = read_json(path, dict, fix) if path.exists() else {}
    changed = changed_inputs(old, inputs)
    if changed:
        raise UserError(
            f"{path.parent}: the content of {', '.join(changed)} has changed since this folder was started; "
            "use another folder, or remove this one"
        )
