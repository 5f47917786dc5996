"""Where an upstream comes from: a name that was parsed, and what can be said of the model before it is loaded.

A door is a class `Door(Source)` in a module of this folder: one form of names, such as `hf:FOLDER`.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from hfftools.upstream.base import Upstream


class Source:
    """A parsed name. `text` is the name as the user wrote it; `kind` and `path` are its parts where it is `kind:path`.

    Its initialisation raises UserError where what the name stands for is not there.
    """

    kinds: ClassVar[tuple[str, ...]] = ()  # what may stand before the colon of this door's names
    places: Mapping[str, str] | None = (
        None  # of its blocks (see graft.py); empty: no blocks; None: only loading can tell
    )

    def __init__(self, text: str):
        self.text = text
        kind, colon, path = text.partition(":")
        self.kind, self.path = (kind, path) if colon else ("", text)

    @classmethod
    def names(cls) -> list[str]:
        """Return the names of this door that stand for a model without any path."""
        return []

    @classmethod
    def claims(cls, text: str) -> bool:
        """Return whether `text` is a name of this door's form."""
        kind, colon, _ = text.partition(":")
        return kind in cls.kinds if colon else text in cls.names()

    def load(self) -> Upstream:
        """Return the model, on the CPU and in eval mode; raise UserError that says what is wrong with its files."""
        raise NotImplementedError

    def digests(self) -> dict[str, str]:
        """Return the `digests` that the loaded model has, without loading it; empty where its files are not there yet."""
        raise NotImplementedError

    def check_sizes(self) -> None:
        """Raise UserError where `random` cannot know the sizes of the model; nothing is read or built."""

    def random(self) -> Upstream:
        """Return a model of the same sizes to measure costs with: random weights, or the real ones if they are here."""
        return self.load()

    def card(self) -> str:
        """Return what the model's files say of its origin and its licence; empty where they say nothing."""
        return ""

    @property
    def pinned(self) -> str:
        """Return a name for exactly these files, also where `text` names what moves, such as the branch of a repository."""
        return self.text

    @property
    def short_name(self) -> str:
        """Return the name in a form that can be part of a folder's name."""
        return Path(self.path).stem

    def halves(self) -> list["Source"]:
        """Return the sources of the models that this one is made of: itself."""
        return [self]
