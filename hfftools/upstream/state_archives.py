"""Keep the hidden states of a set in Kaldi archives, for other toolkits; only this module uses kaldiio.

Each layer has `layer_NN.ark`, float32 matrices [T, D], and `layer_NN.scp`, a line for each utterance.
"""

import struct
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path

import kaldiio
import numpy as np

from hfftools.disk import writing
from hfftools.expdir import write_aside
from hfftools.log import UserError, require

# what a damaged archive raises; the last two where it is cut
DAMAGE = (KeyError, OSError, ValueError, AssertionError, struct.error)


class Archives:
    """Read and write the archives in a folder."""

    def __init__(self, folder: Path):
        self.folder = folder
        self._scps: dict[int, dict[str, tuple[str, int]]] = {}

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

    def read(self, utt: str, layer: int) -> np.ndarray:
        """Return h [T, D] float32 of an utterance; raise one of DAMAGE where the archive is not whole.

        kaldiio.load_scp is not used: it runs commands in place of archives and unpickles what claims to be a pickle.
        """
        archive, start = self._scp(layer)[utt]
        with open(archive, "rb") as file:
            file.seek(start)
            try:
                return np.array(kaldiio.matio.read_matrix_or_vector(file))  # a copy, which may be written to
            except MemoryError:  # one utterance fits into memory
                raise ValueError(f"layer {layer} has a header that promises more than memory holds") from None

    def write(self, items: Iterable[tuple[str, dict[int, np.ndarray]]], layers: list[int]) -> int:
        """Write every utterance of `items`; return the number of frames."""
        require("\n" not in str(self.folder), f"{self.folder}: Kaldi's lists allow no line break in a path; rename it")
        frames = 0
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
        return frames
