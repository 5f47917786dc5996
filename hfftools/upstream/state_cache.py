"""Keep the hidden states {layer: h [T, D]} of each utterance in Kaldi archives on disk; only this module uses kaldiio.

A cache holds one folder a set, and in it `layer_NN.ark` and `layer_NN.scp` for each layer, which kaldiio reads anywhere,
and cache.json, written last, which says what they were made from.
"""

import struct
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path

import kaldiio
import numpy as np

from hfftools.disk import check_room, sync, sync_all, writing
from hfftools.expdir import changed_inputs, write_aside, write_json
from hfftools.log import UserError, require
from hfftools.records import read_json

_FORM = {"layers": [int], "made_from?": {...: str}, "hash?": str, "data?": str}


class HiddenCache:
    """The cached hidden states of one set."""

    def __init__(self, root: Path | str, set_name: str):
        self.folder = Path(root).resolve() / set_name
        self.info_file = self.folder / "cache.json"
        self._scps: dict[int, dict[str, tuple[str, int]]] = {}

    def made_from(self) -> dict[str, str]:
        """Return the digests of what the states were made from, and the data directory; empty where there is no cache."""
        if not self.info_file.exists():
            return {}
        info = self._info()
        older = {"upstream": info.get("hash", ""), "data": info.get("data", "")}
        return info.get("made_from", older)

    def _info(self) -> dict:
        return read_json(self.info_file, _FORM, "remove it and extract the hidden states again (stage 2)")

    def lacks(self, layers: Iterable[int], digests: Mapping[str, str]) -> list[str]:
        """Return what keeps the cache from being used: inputs that have changed, layers that it does not hold."""
        record = self.made_from()
        if not record:
            return ["everything"]
        missing = set(layers) - set(self._info()["layers"])
        return changed_inputs(record, digests) + [f"layer {layer}" for layer in sorted(missing)]

    def check(self, layers: Iterable[int], digests: Mapping[str, str]) -> None:
        """Raise UserError, which says what has changed or is missing, where the cache cannot be used."""
        if lacks := self.lacks(layers, digests):
            raise UserError(
                f"{self.folder} holds no states of the present {', '.join(lacks)}; run stage 2 again (hff-extract), or "
                "leave features empty"
            )

    def _scp(self, layer: int) -> dict[str, tuple[str, int]]:
        """Return {utterance: (archive, byte in it)} of a layer."""
        if layer not in self._scps:
            path = self.folder / f"layer_{layer:02d}.scp"
            if not path.exists():
                raise UserError(f"{path} is missing; remove {self.folder} and run stage 2 again")
            places = {}
            # by lines that end in \n alone; the archive is the one next to the list, which may have been moved or copied
            for line in path.read_bytes().decode("utf-8").rstrip("\n").split("\n"):
                utt, _, place = line.partition(" ")
                archive, _, start = place.rpartition(":")
                places[utt] = str(self.folder / Path(archive).name), int(start)
            self._scps[layer] = places
        return self._scps[layer]

    def _state(self, layer: int, utt: str) -> np.ndarray:
        """Return a matrix of an archive.

        kaldiio.load_scp is not used: it runs commands in place of archives and unpickles what claims to be a pickle.
        """
        archive, start = self._scp(layer)[utt]
        with open(archive, "rb") as file:
            file.seek(start)
            try:
                state = np.array(kaldiio.matio.read_matrix_or_vector(file))  # a copy, which may be written to
            except MemoryError:  # one utterance fits into memory
                raise ValueError(f"layer {layer} has a header that promises more than memory holds") from None
        if not np.isfinite(state).all():
            raise ValueError(f"layer {layer} has values that are not finite numbers")
        return state

    def read(self, utt: str, layers: Iterable[int]) -> dict[int, np.ndarray]:
        """Return {layer: h [T, D] float32} of one utterance; raise UserError where an archive is damaged."""
        try:
            return {layer: self._state(layer, utt) for layer in layers}
        except (KeyError, OSError, ValueError, AssertionError, struct.error) as error:  # the last two: a cut file
            raise UserError(
                f"{self.folder}: cannot read {utt} ({error}); remove the folder, run stage 2 again"
            ) from None

    def check_room(self, frames: float, widths: Iterable[int]) -> None:
        """Raise UserError unless there is room for so many frames of layers of these widths, in place of what is there."""
        self.folder.mkdir(parents=True, exist_ok=True)
        old = sum(path.stat().st_size for path in self.folder.glob("layer_*.ark"))
        check_room(self.folder, frames * sum(widths) * np.float32().nbytes - old, "what extraction writes")

    def write(
        self,
        items: Iterable[tuple[str, dict[int, np.ndarray]]],
        layers: list[int],
        name: str,
        made_from: Mapping[str, str],
    ) -> int:
        """Write every utterance of `items`, replacing what was there; return the number of frames.

        `name` is the upstream's, and `made_from` has digests and the data directory.
        """
        require("\n" not in str(self.folder), f"{self.folder}: Kaldi's lists allow no line break in a path; rename it")
        self.folder.mkdir(parents=True, exist_ok=True)
        self.info_file.unlink(missing_ok=True)
        sync(self.folder)  # what follows must not reach the disk before it
        self._scps, frames = {}, 0
        lines: dict[int, list[str]] = {layer: [] for layer in layers}
        with writing(self.folder), ExitStack() as stack:
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
            with write_aside(self.folder / f"layer_{layer:02d}.scp", synced=False) as aside:
                aside.write_text("".join(sorted(lines[layer])), encoding="utf-8")
        sync_all(self.folder)  # before the record that says that all this is there
        write_json(self.info_file, {"upstream": name, "made_from": dict(made_from), "layers": layers, "frames": frames})
        return frames
