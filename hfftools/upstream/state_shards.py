"""Keep the hidden states of a set in safetensors files ("shards"), in 4, 2 or about 1 byte a value.

`states_NNNNN.safetensors` holds, for some utterances, a tensor `LAYER/UTTERANCE` of shape [T, D] for each layer, and
`utt2shard` names each utterance's file. Forms: float32; float16, where a tensor with values beyond its range (65504) stays
float32; int8, each group of 64 neighbouring channels of a frame divided by its scale, max |h| / 127, which the tensor
`scale LAYER/UTTERANCE` [T, ceil(D / 64)] holds in float32.
"""

from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from hfftools.expdir import write_aside

GROUP = 64  # channels that share a scale
SHARD_BYTES = 64 << 20
BYTES = {"float16": 2.0, "int8": 1 + 4 / GROUP, "float32": 4.0}  # of a value
DAMAGE = (KeyError, OSError, ValueError, SafetensorError)


def pack(h_TD: np.ndarray, form: str) -> dict[str, np.ndarray]:
    """Return hidden states h [T, D] in one of the forms of BYTES, as {what stands before the tensor's name: tensor}."""
    h_TD = np.ascontiguousarray(h_TD, np.float32)
    with np.errstate(over="ignore"):
        half_TD = h_TD.astype(np.float16)
    if form == "float16" and np.isfinite(half_TD).all():
        return {"": half_TD}
    if form == "int8" and np.isfinite(h_TD).all():
        scale_TG = np.maximum.reduceat(np.abs(h_TD), range(0, h_TD.shape[1], GROUP), axis=1) / np.float32(127)
        steps_TD = h_TD / _spread(np.where(scale_TG > 0, scale_TG, 1), h_TD.shape[1])
        return {"": np.rint(steps_TD).astype(np.int8), "scale ": scale_TG}
    return {"": h_TD}


def _spread(scale_TG: np.ndarray, width: int) -> np.ndarray:
    return np.repeat(scale_TG, GROUP, axis=1)[:, :width]


class Shards:
    """Read and write the shards in a folder."""

    def __init__(self, folder: Path, form: str):
        self.folder, self.form = folder, form
        self.index = folder / "utt2shard"
        self._shard_of: dict[str, str] = {}

    def read(self, utt: str, layer: int) -> np.ndarray:
        """Return h [T, D] float32 of an utterance; raise one of DAMAGE where its file is not whole."""
        if not self._shard_of:
            lines = self.index.read_bytes().decode("utf-8").rstrip("\n").split("\n")
            self._shard_of = {utt: shard for utt, _, shard in (line.rpartition(" ") for line in lines)}
        path = self.folder / Path(self._shard_of[utt]).name
        state = path.stat()
        file = _opened(path, state.st_size, state.st_mtime_ns)
        stored_TD = file.get_tensor(f"{layer}/{utt}")
        h_TD = stored_TD.astype(np.float32)
        if stored_TD.dtype == np.int8:
            h_TD *= _spread(file.get_tensor(f"scale {layer}/{utt}"), h_TD.shape[1])
        return h_TD

    def whole(self) -> dict[str, tuple[str, int]]:
        """Return {utterance: (shard, frames)} of the files that are there."""
        found = {}
        for path in sorted(self.folder.glob("states_*.safetensors")):
            with safe_open(path, "np") as file:
                for key in file.keys():
                    prefix, _, utt = key.partition("/")
                    if utt not in found and prefix.isdecimal():
                        found[utt] = path.name, file.get_slice(key).get_shape()[0]
        return found

    def write(self, items: Iterable[tuple[str, dict[int, np.ndarray]]], layers: list[int]) -> int:
        """Write every utterance of `items` that no file holds, and the index; return the number of frames of all."""
        places = self.whole()
        number = len(set(shard for shard, _ in places.values()))
        for number, shard in enumerate(self._full(items, layers, places), number):
            name = f"states_{number:05d}.safetensors"
            with write_aside(self.folder / name) as aside:
                save_file(shard, aside, {"form": self.form})
            places |= {key.partition("/")[2]: (name, len(h)) for key, h in shard.items()}
        with write_aside(self.index) as aside:
            aside.write_bytes("".join(f"{utt} {places[utt][0]}\n" for utt in sorted(places)).encode())
        return sum(frames for _, frames in places.values())

    def _full(self, items: Iterable, layers: list[int], known: dict) -> Iterator[dict[str, np.ndarray]]:
        """Yield the tensors of utterances that together fill a shard."""
        shard: dict[str, np.ndarray] = {}
        for utt, hidden in items:
            if utt in known:
                continue
            for layer in layers:
                packed = pack(hidden[layer], self.form)
                shard |= {f"{prefix}{layer}/{utt}": tensor for prefix, tensor in packed.items()}
            if sum(tensor.nbytes for tensor in shard.values()) >= SHARD_BYTES:
                yield shard
                shard = {}
        if shard:
            yield shard


@lru_cache(maxsize=64)
def _opened(path: Path, size: int, mtime_ns: int) -> safe_open:
    """Return an open file, mapped into memory; a file that was replaced is opened anew."""
    return safe_open(path, "np")
