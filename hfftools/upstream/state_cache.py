"""Keep the hidden states {layer: h [T, D]} of each utterance in Kaldi archives on disk; only this module uses kaldiio.

A cache holds one folder a set, and in it `layer_NN.ark` and `layer_NN.scp` for each layer, which kaldiio reads anywhere,
and cache.json, written last, which names the upstream, its hash and the layers.
"""

import struct
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path

import kaldiio
import numpy as np

from hfftools.expdir import write_aside, write_json
from hfftools.log import UserError
from hfftools.records import read_json


class HiddenCache:
    """The cached hidden states of one set."""

    def __init__(self, root: Path | str, set_name: str):
        self.folder = Path(root).resolve() / set_name
        self.info_file = self.folder / "cache.json"
        self._scps: dict[int, dict[str, tuple[str, int]]] = {}

    def matches(self, upstream_hash: str, layers: Iterable[int], data: str) -> bool:
        """Return whether the cache is whole, of this upstream, and holds these layers of data with this digest."""
        if not self.info_file.exists():
            return False
        form = {"hash": str, "data": str, "layers": [int]}
        info = read_json(self.info_file, form, "remove it and extract the hidden states again (stage 2)")
        return (info["hash"], info["data"]) == (upstream_hash, data) and set(layers) <= set(info["layers"])

    def check(self, upstream_hash: str, layers: Iterable[int], data: str) -> None:
        """Raise UserError, which says what is missing, where `matches` would be false."""
        if not self.matches(upstream_hash, layers, data):
            raise UserError(
                f"{self.folder}: not the hidden states of this upstream, these layers and these utterances; "
                "run stage 2 again, or leave features empty"
            )

    def _scp(self, layer: int) -> dict[str, tuple[str, int]]:
        """Return {utterance: (archive, byte in it)} of a layer."""
        if layer not in self._scps:
            path = self.folder / f"layer_{layer:02d}.scp"
            if not path.exists():
                raise UserError(f"{path} is missing; remove {self.folder} and run stage 2 again")
            places = {}
            for line in path.read_text(encoding="utf-8").splitlines():
                utt, _, place = line.partition(" ")
                archive, _, start = place.rpartition(":")
                places[utt] = archive, int(start)
            self._scps[layer] = places
        return self._scps[layer]

    def _state(self, layer: int, utt: str) -> np.ndarray:
        """Return a matrix of an archive.

        kaldiio.load_scp is not used: it runs commands in place of archives and unpickles what claims to be a pickle.
        """
        archive, start = self._scp(layer)[utt]
        with open(archive, "rb") as file:
            file.seek(start)
            return np.array(kaldiio.matio.read_matrix_or_vector(file))  # a copy, which may be written to

    def read(self, utt: str, layers: Iterable[int]) -> dict[int, np.ndarray]:
        """Return {layer: h [T, D] float32} of one utterance; raise UserError where an archive is damaged."""
        try:
            return {layer: self._state(layer, utt) for layer in layers}
        except (KeyError, OSError, ValueError, AssertionError, struct.error) as error:  # the last two: a cut file
            raise UserError(
                f"{self.folder}: cannot read {utt} ({error}); remove the folder, run stage 2 again"
            ) from None

    def write(
        self,
        items: Iterable[tuple[str, dict[int, np.ndarray]]],
        layers: list[int],
        name: str,
        upstream_hash: str,
        data: str,
    ) -> int:
        """Write every utterance of `items`, replacing what was there; return the number of frames."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.info_file.unlink(missing_ok=True)
        self._scps, frames = {}, 0
        lines: dict[int, list[str]] = {layer: [] for layer in layers}
        with ExitStack() as stack:
            arks = {}
            for layer in layers:
                path = self.folder / f"layer_{layer:02d}.ark"
                arks[layer] = (path, stack.enter_context(open(path, "wb")))
            for utt, hidden in items:
                for layer, (path, file) in arks.items():
                    lines[layer].append(f"{utt} {path}:{file.tell() + len(utt.encode()) + 1}\n")
                    kaldiio.save_ark(file, {utt: np.asarray(hidden[layer], np.float32)})
                frames += len(hidden[layers[0]])
        for layer in layers:
            with write_aside(self.folder / f"layer_{layer:02d}.scp") as aside:
                aside.write_text("".join(sorted(lines[layer])), encoding="utf-8")
        write_json(
            self.info_file, {"upstream": name, "hash": upstream_hash, "data": data, "layers": layers, "frames": frames}
        )
        return frames
