"""Find the files of a model of transformers in a folder, and those that hold its weights in a folder or a repository."""

import json
from pathlib import Path
from typing import NamedTuple

from hfftools.log import UserError, require
from hfftools.upstream.hub import Repo

WEIGHTS = (
    "model.safetensors",
    "pytorch_model.bin",
)  # or their index; in the order in which transformers looks for them


class Folder:
    """The files of a folder that save_pretrained wrote. `text` is the name of the upstream, for errors."""

    unreached = ""  # as of Repo; a folder is always reached

    def __init__(self, folder: Path, text: str):
        self.folder, self.text, self.pinned, self.name = folder, text, str(folder), folder.name

    def get(self, name: str) -> Path | None:
        """Return the path of a file; None where there is none."""
        path = self.folder / name
        return path if path.is_file() else None

    kept = get

    def need(self, name: str) -> Path:
        """Return the path of a file; raise UserError where there is none."""
        path = self.get(name)
        if path is None:
            raise UserError(
                f"upstream {self.text}: {self.folder / name} does not exist; copy it from where the model comes from"
            )
        return path

    def names(self) -> list[str]:
        """Return the names of all files."""
        return [path.name for path in self.folder.iterdir()]

    def lacking(self, what: str, also: str = "") -> UserError:
        return UserError(f"upstream {self.text}: {self.folder} holds no {what}")


class Weights(NamedTuple):
    """Hold the files of weights, and the file that one names for all: the only one, or the index of several."""

    name: Path
    shards: list[Path]


def find_weights(files: Folder | Repo, downloads: bool = True) -> Weights:
    """Return the files of weights that transformers would read; those in the cache of the hub only unless `downloads`.

    Raise UserError where there are none, or not all.
    """
    get = files.get if downloads else files.kept
    for name in WEIGHTS:
        if path := get(name):
            return Weights(path, [path])
        if index := get(f"{name}.index.json"):
            shards = {shard: get(shard) for shard in _shards(index, files.text)}
            found = [path for path in shards.values() if path is not None]
            if len(found) < len(shards):
                first = next(shard for shard, path in shards.items() if path is None)
                raise files.lacking(f"{first}, which {index.name} lists")
            return Weights(index, found)
    raise files.lacking(f"weights ({' or '.join(WEIGHTS)}, or an index of several files)")


def _shards(index: Path, text: str) -> list[str]:
    """Return the names of the files that an index lists."""
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8-sig"))["weight_map"].values()))
        plain = all(name == Path(name).name for name in names)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"upstream {text}: {index} is broken ({error}); copy it again") from None
    require(plain, f"upstream {text}: {index} names files outside its folder; copy it again")
    return names
