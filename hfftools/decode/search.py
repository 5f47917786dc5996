"""Configure the search of hff-decode: the options `search.…`, from yaml files and arguments, checked."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hfftools.config import at_least, one_of, resolve
from hfftools.log import require

NAMES = ("greedy", "beam")
CTC_BEAM, TRANSDUCER_BEAM = 32, 4  # beam sizes where none is given


@dataclass(frozen=True)
class Search:
    """Configure the search."""

    name: str = "greedy"  # greedy, or beam
    beam_size: int | None = None  # readings kept after each frame; null: 32 with CTC, 4 with a transducer
    beam_tokens: int = 20  # most likely units tried in each frame
    nbest: int = 1  # readings written for each utterance
    lm: str = ""  # ARPA file (may be gzipped) or KenLM binary, over words or over the experiment's units; empty: none
    lexicon: Any = None  # true: only words of the LM, else of data.train; a file or data directory: only its words
    fold_case: bool = False  # words that the units cannot spell, or the LM lacks, are tried in another case
    lm_weight: float | None = (
        None  # factor of the LM's log probabilities; null: chosen on data.dev where there is an LM
    )
    word_score: float | None = None  # added to the score for every word; null: chosen on data.dev where there is an LM
    tag: str = ""  # ends the name of the decoded set's folder in place of beam, beam_lm …

    def __post_init__(self):
        one_of(self, NAMES, "name")
        at_least(self, 1, "beam_size", "beam_tokens", "nbest")
        narrow = self.beam_size is not None and self.nbest > self.beam_size
        require(not narrow, f"search.nbest: {self.nbest} is more than search.beam_size, {self.beam_size}")
        require("/" not in self.tag, f"search.tag: '{self.tag}' is part of a folder's name and takes no slash")
        require(self.lexicon is None or isinstance(self.lexicon, (bool, str)), "search.lexicon: true, false or a file")
        given = [key for key in ("lm", "lexicon", "lm_weight", "word_score") if getattr(self, key) not in (None, "")]
        given += ["fold_case"] * self.fold_case
        greedy = self.name == "greedy" and (given or self.nbest > 1)
        require(not greedy, f"search.{(given or ['nbest'])[0]} needs search.name=beam")
        require(bool(self.lm) or self.lm_weight is None, "search.lm_weight needs a language model: search.lm=FILE")

    @property
    def label(self) -> str:
        """Return what follows the set in the name of its decoded folder: nothing for the greedy search."""
        parts = ["beam", "lm" if self.lm else "lexicon" if self.lexicon else ""]
        return self.tag or ("" if self.name == "greedy" else "_".join(part for part in parts if part))


@dataclass(frozen=True)
class Root:
    """Hold the part `search` of a configuration."""

    search: Search = field(default_factory=Search)  # how test sets are decoded


def configure(sources: Iterable[Path], overrides: Iterable[str]) -> Search:
    """Merge yaml files (their part `search`), then `search.key=value` arguments, over the defaults."""
    return resolve(Root, sources, overrides).search
