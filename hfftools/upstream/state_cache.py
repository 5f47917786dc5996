"""Keep the hidden states {layer: h [T, D]} of each utterance on disk, so that no epoch computes them again.

A cache holds one folder a set, and in it the states, in one of FORMS, and cache.json, written last, which says what they
were made from. begun.json says the same of a cache that is not complete: what is there already is kept.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from hfftools.disk import check_room, sync, sync_all
from hfftools.expdir import changed_inputs, write_json
from hfftools.log import UserError, log, require
from hfftools.records import read_json
from hfftools.upstream import state_archives, state_shards
from hfftools.upstream.state_archives import Archives
from hfftools.upstream.state_shards import Shards

BYTES = {**state_shards.BYTES, "kaldi": 4.0}  # of a value
FORMS = tuple(BYTES)
_FORM = {"layers": [int], "made_from?": {...: str}, "hash?": str, "data?": str, "form?": str}
_FILES = ("states_*.safetensors", "utt2shard", "layer_*.ark", "layer_*.scp")


class HiddenCache:
    """The cached hidden states of one set."""

    def __init__(self, root: Path | str, set_name: str):
        self.folder = Path(root).resolve() / set_name
        self.info_file = self.folder / "cache.json"
        self.begun_file = self.folder / "begun.json"
        self._store: Archives | Shards | None = None

    def made_from(self) -> dict[str, str]:
        """Return the digests of what the states were made from, and the data directory; empty where there is no cache."""
        if not self.info_file.exists():
            return {}
        info = self._info()
        older = {"upstream": info.get("hash", ""), "data": info.get("data", "")}
        return info.get("made_from", older)

    def _info(self) -> dict:
        return read_json(self.info_file, _FORM, "remove it and extract the hidden states again (stage 2)")

    def form(self) -> str:
        """Return the form of the states; a cache of an older version consists of Kaldi archives."""
        form = self._info().get("form", "kaldi")
        require(
            form in FORMS,
            f"{self.info_file} names the unknown form {form!r}; remove {self.folder} and run stage 2 again",
        )
        return form

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

    def _states(self, form: str) -> Archives | Shards:
        return Archives(self.folder) if form == "kaldi" else Shards(self.folder, form)

    def read(self, utt: str, layers: Iterable[int]) -> dict[int, np.ndarray]:
        """Return {layer: h [T, D] float32} of one utterance; raise UserError where a file is damaged."""
        if self._store is None:
            self._store = self._states(self.form())
        hidden = {}
        try:
            for layer in layers:
                hidden[layer] = self._store.read(utt, layer)
                if not np.isfinite(hidden[layer]).all():
                    raise ValueError(f"layer {layer} has values that are not finite numbers")
        except (*state_archives.DAMAGE, *state_shards.DAMAGE) as error:
            reason = " ".join(str(error).split())
            raise UserError(
                f"{self.folder}: cannot read {utt} ({reason}); remove the folder, run stage 2 again"
            ) from None
        return hidden

    def check_room(self, frames: float, widths: Iterable[int], form: str) -> None:
        """Say how large so many frames of layers of these widths will be; raise UserError unless there is room for them.

        What is there already is replaced or kept, and counts as room.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        size = frames * sum(widths) * BYTES[form]
        old = sum(path.stat().st_size for path in self._files())
        check_room(self.folder, size - old, "what extraction writes")
        log.info(f"{self.folder}: hidden states in the form {form} take about {size / 1e9:.3g} GB")

    def _files(self) -> list[Path]:
        return [path for pattern in _FILES for path in self.folder.glob(pattern)]

    def kept(self, layers: list[int], made_from: Mapping[str, str], form: str) -> set[str]:
        """Return the utterances whose states an interrupted `write` of the same has left; drop those of another."""
        begun = {"layers": layers, "made_from": dict(made_from), "form": form}
        try:
            same = form != "kaldi" and read_json(self.begun_file, _FORM) == begun
            whole = set(Shards(self.folder, form).whole()) if same else set()
        except (FileNotFoundError, UserError, *state_shards.DAMAGE):
            same = False
        if same:
            return whole
        self.folder.mkdir(parents=True, exist_ok=True)
        for file in (self.info_file, self.begun_file):
            file.unlink(missing_ok=True)
        sync(self.folder)  # what follows must not reach the disk before it
        for file in self._files():
            file.unlink()
        write_json(self.begun_file, begun)
        return set()

    def write(
        self,
        items: Iterable[tuple[str, dict[int, np.ndarray]]],
        layers: list[int],
        name: str,
        made_from: Mapping[str, str],
        form: str = "float16",
    ) -> int:
        """Write every utterance of `items` that is not kept, replacing what was there; return the number of frames.

        `name` is the upstream's, and `made_from` has digests and the data directory.
        """
        self.kept(layers, made_from, form)
        self._store = None
        frames = self._states(form).write(items, layers)
        self.begun_file.unlink()
        sync_all(self.folder)  # before the record that says that all this is there
        record = {"upstream": name, "made_from": dict(made_from), "layers": layers, "frames": frames, "form": form}
        write_json(self.info_file, record)
        return frames
