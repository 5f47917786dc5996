"""Define what hff asks of a task (`Task`), and what all tasks that recognise speech share (`Recognition`).

Axes: B utterances of a batch, U of a set, T frames, F width of the fused stream.
"""

import shutil
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

from hfftools import score
from hfftools.data.batch import Batch, Targets
from hfftools.data.table import write_table
from hfftools.decode.hypothesis import Hypothesis
from hfftools.decode.search import Search
from hfftools.expdir import write_text
from hfftools.log import require
from hfftools.text import units as unit_files
from hfftools.text.units import Units


class Task(nn.Module):
    """Define a task, which is constructed as `Task(in_dim, targets, config)`; each plug-in overrides what differs.

    A reference is one line of text for each utterance: its transcript, its label, its speaker. What has to be known before
    a model is loaded is an attribute or a method of the class.
    """

    reference = "text"  # file of a data directory with the references; a decoded set's predictions have the same name
    lower_is_better = True  # whether the metric is errors / counted, as error rates are; False: 1 - errors / counted
    searches: tuple[str, ...] = ("greedy",)  # values of search.name that it offers
    takes: tuple[str, ...] = ()  # options of a search that it uses, of lm and lexicon
    beam_size = 1  # where search.beam_size is not given
    # whether `units`, and log_probs(x_BTF, lens_B) -> [B, T, units] with the blank of CTC, are all that the reader of an
    # exported file needs
    exports = False

    @staticmethod
    def make_targets(units: Path, references: Sequence[str]) -> Targets:
        """Return the targets of a new experiment, from the folder data.units or from the references of data.train."""
        raise NotImplementedError

    @staticmethod
    def load_targets(folder: Path) -> Targets:
        """Return the targets that an experiment keeps in `folder`, as their `save` wrote them."""
        raise NotImplementedError

    def loss(self, encode: Callable[[Batch], tuple[Tensor, Tensor]], batch: Batch) -> Tensor:
        """Return the loss [B] of each utterance; `encode` gives the fused stream x [B, T, F] and its lengths [B]."""
        raise NotImplementedError

    def frames_needed(self, ids: list[int]) -> int:
        """Return the fewest frames with which the loss of an utterance with these target ids is finite."""
        return 1

    def predict(self, x_BTF: Tensor, lens_B: Tensor) -> list[str]:
        """Return one prediction for each utterance, in the form of a reference."""
        raise NotImplementedError

    def hypotheses(self, x_BTF: Tensor, lens_B: Tensor, search: Search | None = None) -> list:
        """Return for each utterance what `write` takes: the prediction itself where there is nothing to search."""
        return self.predict(x_BTF, lens_B)

    @staticmethod
    def metric(references: Iterable[str]) -> str:
        """Return the name of the metric by which a set with these references is judged."""
        raise NotImplementedError

    @staticmethod
    def errors(metric: str, references: Sequence[str], predictions: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Return the errors of each utterance and how many there could be (words, labels), whole numbers, [U] each.

        Training minimises sum(errors) / sum(counted); intervals and comparisons of systems draw utterances of both.
        """
        raise NotImplementedError

    @classmethod
    def write(cls, folder: Path, found: dict[str, Any], nbest: int, rate_hz: float) -> None:
        """Write what `hypotheses` gave, by utterance, into the folder of a decoded set; `rate_hz` is that of frames."""
        write_table(folder / cls.reference, {utt: found[utt] for utt in sorted(found)})

    @classmethod
    def score(cls, folder: Path, targets: Any) -> dict[str, Any]:
        """Return {metric: score} of a decoded set, from its predictions and its file `ref`.

        `targets` are None where the experiments that made the predictions may have different ones.
        """
        decoded = score.read_decoded(folder, cls.reference)
        metric = cls.metric(decoded.refs)
        counts = cls.errors(metric, decoded.refs, decoded.hyps)
        return {metric: score.Figure.of(metric, *counts, lower_is_better=cls.lower_is_better)}

    @classmethod
    def check_search(cls, search: Search) -> None:
        """Raise UserError for a search, or an option of it, that the task does not offer."""
        name = cls.__module__.rpartition(".")[2]
        offered = ", ".join(cls.searches)
        require(search.name in cls.searches, f"search.name: task {name} offers {offered}, not {search.name}")
        for option in ("lm", "lexicon"):
            require(
                not getattr(search, option) or option in cls.takes,
                f"search.{option}: the search of task {name} takes no {option}; leave it empty, or train another task",
            )


class Recognition(Task):
    """Define what tasks share whose targets are units, whose predictions are text and whose metric is WER or CER."""

    searches = ("greedy", "beam")

    @staticmethod
    def make_targets(units: Path, references: Sequence[str]) -> Units:
        """Return the units in the folder data.units."""
        return unit_files.load(units)

    @staticmethod
    def load_targets(folder: Path) -> Units:
        """Return the units in `folder`."""
        return unit_files.load(folder)

    @staticmethod
    def metric(references: Iterable[str]) -> str:
        """Return `cer` for references without spaces between words, else `wer`."""
        return score.headline(references)

    @staticmethod
    def errors(metric: str, references: Sequence[str], predictions: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Return the word or character errors of each utterance, and the words or characters of its reference."""
        return score.errors(metric, references, predictions)

    @classmethod
    def write(cls, folder: Path, found: dict[str, list[Hypothesis]], nbest: int, rate_hz: float) -> None:
        """Write text, ctm where times are known, and nbest/text.N and nbest/score.N where `nbest` is above 1.

        Lines of the ctm are `utterance 1 start duration word`, in seconds.
        """
        lines = []
        for utt in sorted(found):
            for word, first, end in found[utt][0].words:
                lines.append(f"{utt} 1 {first / rate_hz:.3f} {(end - first) / rate_hz:.3f} {word}\n")
        (folder / "ctm").unlink(missing_ok=True)  # of an earlier search
        if lines:
            write_text(folder / "ctm", "".join(lines))
        shutil.rmtree(folder / "nbest", ignore_errors=True)
        for n in range(nbest if nbest > 1 else 0):
            ranked = {utt: readings[n] for utt, readings in found.items() if n < len(readings)}
            texts = {utt: reading.text for utt, reading in ranked.items()}
            write_table(folder / "nbest" / f"text.{n + 1}", texts)
            scores = {utt: f"{reading.score:.4f}" for utt, reading in ranked.items()}
            write_table(folder / "nbest" / f"score.{n + 1}", scores)
        super().write(folder, {utt: readings[0].text for utt, readings in found.items()}, nbest, rate_hz)

    @classmethod
    def score(cls, folder: Path, targets: Units | None) -> dict[str, score.Score]:
        """Return WER, CER and, with units, TER; write their alignments into score_wer/, score_cer/ and score_ter/."""
        return score.score_dir(folder, targets)
