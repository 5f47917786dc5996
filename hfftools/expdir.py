"""An experiment's files: where each of them is, and how a file is written so that a kill never leaves half of one."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from hfftools.log import UserError

_UMASK = os.umask(0)
os.umask(_UMASK)


@contextmanager
def write_aside(path: Path | str) -> Iterator[Path]:
    """Yield a path beside `path` to write to; renamed into place when the block ends well, removed when it does not."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield aside
        aside.chmod(0o666 & ~_UMASK)  # some writers make their files private
        os.replace(aside, path)
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
    """Append one line to a .jsonl file, in a single write; a line cut short by a kill is ended first."""
    cut = path.exists() and path.stat().st_size and not path.read_bytes().endswith(b"\n")
    with open(path, "ab") as file:
        file.write((("\n" if cut else "") + json.dumps(value, ensure_ascii=False) + "\n").encode())


def read_json_lines(path: Path) -> list[dict]:
    """The records of a .jsonl file, without lines that a kill cut short."""
    records = []
    for line in path.read_bytes().split(b"\n") if path.exists() else ():
        try:
            records.append(json.loads(line))
        except ValueError:
            continue
    return records


@dataclass(frozen=True)
class ExpDir:
    """The paths inside exp/<name>/."""

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
        """Everything needed to go on: parameters, optimizer, position."""
        return self.checkpoints / "state.pt"

    def epoch(self, epoch: int) -> Path:
        return self.checkpoints / f"epoch_{epoch:03d}.safetensors"

    @property
    def final(self) -> Path:
        """The average of the best epochs: what hff-decode reads, there once training is done."""
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
        """Digests of what the experiment was begun with."""
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
        """What a probe found, for a browser."""
        return self.root / "index.html"

    @property
    def recommendation(self) -> Path:
        """The layers that a probe recommends, for hff-train --config."""
        return self.root / "recommendation.yaml"

    def part(self, name: str) -> Path:
        """A finished part of a probing."""
        return self.root / "parts" / f"{name}.json"

    @property
    def alignments(self) -> Path:
        return self.root / "align"

    @property
    def built_in(self) -> Path:
        """Speech that was made where none was given."""
        return self.root / "data"

    @property
    def kept_states(self) -> Path:
        """Hidden states of that speech, while they are needed."""
        return self.root / "feats"

    @property
    def encoder(self) -> Path:
        """What pre-training makes."""
        return self.root / "encoder.safetensors"

    @property
    def targets(self) -> Path:
        return self.root / "targets.npz"

    @property
    def search(self) -> Path:
        """The weights of a search that were chosen on dev."""
        return self.root / "search.json"

    def decode(self, set_name: str, label: str = "") -> Path:
        """Of a set, and of how it was searched, where not greedily."""
        return self.root / "decode" / (f"{set_name}_{label}" if label else set_name)

    def decoded(self) -> list[Path]:
        """The folders of the sets that were decoded."""
        return sorted(path.parent for path in self.root.glob("decode/*/decode.json"))

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Hold the folder against other processes, and clear away what killed ones left half-written."""
        self.root.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.root / ".lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise UserError(f"{self.root}: another process is at work here; wait for it, or end it") from None
        try:
            for left in [*self.root.glob(".*.tmp"), *self.checkpoints.glob(".*.tmp")]:
                if left.is_file():
                    left.unlink(missing_ok=True)
            yield
        finally:
            lock.release()
            if [path.name for path in self.root.iterdir()] == [".lock"]:  # nothing came of it: leave nothing
                (self.root / ".lock").unlink()
                self.root.rmdir()


def check_inputs(path: Path, inputs: dict[str, str]) -> None:
    """UserError that names what changed, by `inputs` {what: digest}, since `path` was written."""
    old = json.loads(path.read_text()) if path.exists() else {}
    changed = [what for what, digest in inputs.items() if old.get(what, digest) != digest]
    if changed:
        raise UserError(
            f"{path.parent}: begun with another content of {', '.join(changed)}; use another folder or remove it"
        )
