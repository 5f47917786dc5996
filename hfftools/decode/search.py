"""How to search: the options `search.…` of hff-decode, from yaml files and arguments, checked."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hfftools.config import resolve
from hfftools.log import require

NAMES = ("greedy", "beam")
CTC_BEAM, TRANSDUCER_BEAM = 32, 4  # sizes of a beam that are not given


@dataclass
class Search:
    name: str = "greedy"  # greedy, or beam
    beam_size: int | None = None  # readings kept at every frame; where not given, 32 with CTC, 4 with a transducer
    beam_tokens: int = 20  # units tried at every frame, the likeliest
    nbest: int = 1  # readings given out
    lm: str = ""  # ARPA file (may be gzipped) or KenLM binary, over words or over the experiment's units
    lexicon: Any = None  # true: only words of the LM, else of data.train; a file or data directory: only its words
    lm_weight: float | None = None  # tuned on the experiment's dev set where there is an LM and this is not given
    word_score: float | None = None  # added for every word; likewise
    tag: str = ""  # ends the name of the decoded set's folder, in place of beam, beam_lm …

    def __post_init__(self):
        require(self.name in NAMES, f"search.name: '{self.name}' is not one of {', '.join(NAMES)}")
        for key in ("beam_size", "beam_tokens", "nbest"):
            require(
                getattr(self, key) is None or getattr(self, key) >= 1, f"search.{key}: {getattr(self, key)} is below 1"
            )
        narrow = self.beam_size is not None and self.nbest > self.beam_size
        require(not narrow, f"search.nbest: {self.nbest} is more than search.beam_size, {self.beam_size}")
        require("/" not in self.tag, f"search.tag: '{self.tag}' is part of a folder's name and takes no slash")
        require(self.lexicon is None or isinstance(self.lexicon, (bool, str)), "search.lexicon: true, false or a file")
        given = [key for key in ("lm", "lexicon", "lm_weight", "word_score") if getattr(self, key) not in (None, "")]
        greedy = self.name == "greedy" and (given or self.nbest > 1)
        require(not greedy, f"search.{(given or ['nbest'])[0]} needs search.name=beam")
        require(bool(self.lm) or self.lm_weight is None, "search.lm_weight needs a language model: search.lm=FILE")

    @property
    def label(self) -> str:
        """What the folder of a decoded set is called by, after the set: nothing for greedy."""
        parts = ["beam", "lm" if self.lm else "lexicon" if self.lexicon else ""]
        return self.tag or ("" if self.name == "greedy" else "_".join(part for part in parts if part))


@dataclass
class _Root:
    search: Search = field(default_factory=Search)


def configure(sources: Iterable[Path], overrides: Iterable[str]) -> Search:
    """Yaml files (their part `search`), then `search.key=value` arguments, over the defaults."""
    from omegaconf import OmegaConf

    return OmegaConf.to_object(resolve(_Root, sources, overrides).search)
