"""An experiment's files: where each of them is, and how a file is written so that a kill never leaves half of one."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path


@contextmanager
def write_aside(path: Path | str) -> Iterator[Path]:
    """Yield a path beside `path` to write to; renamed into place when the block ends well, removed when it does not."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield aside
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
    """Append one line to a .jsonl file, in a single write."""
    with open(path, "a", encoding="utf-8") as file:
        file.write(json.dumps(value, ensure_ascii=False) + "\n")


def read_json_lines(path: Path) -> list[dict]:
    """The records of a .jsonl file; a last line cut short by a kill is left out."""
    records = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError:
            break
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

    def decode(self, set_name: str) -> Path:
        return self.root / "decode" / set_name
