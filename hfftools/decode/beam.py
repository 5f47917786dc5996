"""Search for the best unit sequences under CTC posteriors and a grammar (prefix beam search, Hannun et al. 2014).

The score of a reading is the log of the sum over all its alignments, plus what the grammar adds. The search is written
here because flashlight's, which torchaudio wraps, ends a word at the first frame of its last unit, and cannot stay in that
unit: this is right where a separator follows each word's spelling, and wrong for pieces that mark where a word begins.
"""

import heapq
import math
from copy import copy
from pathlib import Path
from typing import NamedTuple

import torch
import torchaudio
from torch import Tensor

from hfftools.decode import lm as language_model
from hfftools.decode.grammar import Grammar, State, tree
from hfftools.decode.hypothesis import Hypothesis, read, runs
from hfftools.decode.search import CTC_BEAM, Search
from hfftools.text.units import Units

THRESHOLD = 1e-9  # a reading below this share of the best reading's score is dropped
UNLIKELY = 1e-5  # a unit below this share of a frame's highest posterior is not tried


class Prefix:
    """Hold a sequence of units as a node in the tree of all that were tried.

    As in Hannun et al., the probability of a prefix is kept in two parts, of the alignments that end in a blank and of
    those that end in its last unit: only after a blank may the same unit be appended again.
    """

    __slots__ = ("parent", "unit", "state", "bonus", "kids", "blank", "label", "next_blank", "next_label", "frame")

    def __init__(self, parent: "Prefix | None", unit: int, state: State, bonus: float):
        self.parent, self.unit, self.state = parent, unit, state
        self.bonus = bonus  # what the grammar has added to the score
        self.kids: dict[int, Prefix | None] = {}  # None: the grammar does not allow this unit
        self.blank = self.label = 0.0  # probabilities, in units of the search's scale
        self.next_blank = self.next_label = 0.0  # the same after the frame that is being read
        self.frame = -1  # the last frame in which this prefix was reached

    def ids(self) -> list[int]:
        """Return the units from the first one on."""
        units = []
        prefix = self
        while prefix.parent is not None:
            units.append(prefix.unit)
            prefix = prefix.parent
        return units[::-1]


class Frame(NamedTuple):
    """Hold what the search reads of one frame: its number, all posteriors [U], and (unit, posterior) of those to try."""

    number: int
    probs_U: list[float]
    tried: list[tuple[int, float]]


def search(log_probs_TU: Tensor, grammar: Grammar, beam_size: int, beam_tokens: int) -> list[tuple[list[int], float]]:
    """Return unit sequences and their scores, best first, for log posteriors [T, U] on the CPU.

    At most `beam_size` prefixes are kept after each frame, and the `beam_tokens` likeliest units are tried in it.
    """
    root = Prefix(None, 0, grammar.start, 0.0)
    root.blank = 1.0
    beam, log_scale = [root], 0.0
    for frame in _frames(log_probs_TU, beam_tokens):
        reached: list[Prefix] = []
        for prefix in beam:
            _advance(prefix, frame, grammar, reached)
        beam, log_scale = _keep(reached, beam_size, log_scale)
    return _final(beam, grammar, log_scale)


def _frames(log_probs_TU: Tensor, beam_tokens: int) -> list[Frame]:
    """Return the frames as Python numbers, which the loops of the search read faster than elements of tensors."""
    probs_TU = log_probs_TU.double().exp().tolist()
    top = log_probs_TU.topk(min(beam_tokens, log_probs_TU.shape[-1]), -1).indices.tolist()
    frames = []
    for number, (probs_U, units) in enumerate(zip(probs_TU, top, strict=True)):
        floor = UNLIKELY * probs_U[units[0]]
        tried = [(unit, probs_U[unit]) for unit in units if unit and probs_U[unit] > floor]
        frames.append(Frame(number, probs_U, tried))
    return frames


def _advance(prefix: Prefix, frame: Frame, grammar: Grammar, reached: list[Prefix]) -> None:
    """Add the probability of a prefix to those that one more frame leads to, and these to `reached`."""
    total = prefix.blank + prefix.label
    _reach(prefix, frame, reached)
    prefix.next_blank += total * frame.probs_U[0]
    prefix.next_label += prefix.label * frame.probs_U[prefix.unit]  # the last unit goes on; CTC merges the repeat
    for unit, prob in frame.tried:
        if unit not in prefix.kids:
            step = grammar.step(prefix.state, unit)
            prefix.kids[unit] = Prefix(prefix, unit, step[0], prefix.bonus + step[1]) if step else None
        kid = prefix.kids[unit]
        if kid is not None:
            _reach(kid, frame, reached)
            kid.next_label += (prefix.blank if unit == prefix.unit else total) * prob


def _reach(prefix: Prefix, frame: Frame, reached: list[Prefix]) -> None:
    """Add a prefix to `reached` once a frame: it is reached both from itself and from its parent."""
    if prefix.frame != frame.number:
        prefix.frame = frame.number
        reached.append(prefix)


def _keep(reached: list[Prefix], beam_size: int, log_scale: float) -> tuple[list[Prefix], float]:
    """Return the best prefixes of those reached, and the new log scale; the probabilities of the others become 0.

    Probabilities are divided by the largest one, whose logarithm goes to the scale: products over hundreds of frames would
    underflow.
    """
    scored = []
    for prefix in reached:
        total = prefix.next_blank + prefix.next_label
        if total > 0:
            scored.append((math.log(total) + prefix.bonus, total, prefix))
        prefix.blank = prefix.label = 0.0
    best = heapq.nlargest(beam_size, scored, key=lambda item: item[0])
    floor = best[0][0] + math.log(THRESHOLD)
    kept = [item for item in best if item[0] >= floor]
    scale = max(total for _, total, _ in kept)
    for _, _, prefix in kept:
        prefix.blank, prefix.label = prefix.next_blank / scale, prefix.next_label / scale
    for prefix in reached:
        prefix.next_blank = prefix.next_label = 0.0
    return [prefix for _, _, prefix in kept], log_scale + math.log(scale)


def _final(beam: list[Prefix], grammar: Grammar, log_scale: float) -> list[tuple[list[int], float]]:
    """Return the readings with the grammar's score of their end; if all end inside a word, each loses that word."""
    scores: dict[tuple[int, ...], float] = {}
    whole = [prefix for prefix in beam if grammar.finish(prefix.state) is not None]
    for prefix in whole or beam:
        log_prob = math.log(prefix.blank + prefix.label) + log_scale
        last = grammar.finish(prefix.state)
        while last is None:
            assert prefix.parent is not None, "the root is not inside a word"
            prefix = prefix.parent
            last = grammar.finish(prefix.state)
        ids = tuple(prefix.ids())
        scores[ids] = max(log_prob + prefix.bonus + last, scores.get(ids, -math.inf))
    return [(list(ids), score) for ids, score in sorted(scores.items(), key=lambda item: -item[1])]


class BeamSearch:
    """Hold a search that is set up once and used for many utterances."""

    def __init__(self, units: Units, options: Search):
        """Load the language model and the lexicon that `options` name; raise UserError if they do not fit the units."""
        self.units, self.options = units, options
        lm = language_model.Ngram(options.lm) if options.lm else None
        lexicon = None
        if options.lexicon:
            lexicon = tree(units, language_model.words(Path(options.lexicon)), lm, options.fold_case)
        elif lm:
            language_model.check_units(lm, units)
        self.grammar = Grammar(units, lexicon, lm, options.lm_weight or 0.0, options.word_score or 0.0)

    def only_weighs(self, options: Search) -> bool:
        """Return whether `options` name the same files, so that `reweigh` saves loading them again."""
        return all(getattr(options, name) == getattr(self.options, name) for name in ("lm", "lexicon", "fold_case"))

    def reweigh(self, options: Search) -> "BeamSearch":
        """Return the same search with the weights and beams of `options`."""
        again = copy(self)
        again.options, old = options, self.grammar
        again.grammar = Grammar(self.units, old.lexicon, old.lm, options.lm_weight or 0.0, options.word_score or 0.0)
        return again

    def __call__(self, log_probs_BTU: Tensor, lens_B: Tensor) -> list[list[Hypothesis]]:
        """Return at most `nbest` hypotheses of each utterance that differ in text, best first.

        Word times come from a forced alignment of the units. Several unit sequences may spell one text; the first of them,
        which is the best, stands for it.
        """
        size = self.options.beam_size or max(CTC_BEAM, self.options.nbest)
        results = []
        for log_probs_TU, length in zip(log_probs_BTU.cpu(), lens_B.tolist(), strict=True):
            readings: dict[str, Hypothesis] = {}
            frames_TU = log_probs_TU[:length]
            for ids, score in search(frames_TU, self.grammar, size, self.options.beam_tokens):
                if len(readings) == self.options.nbest:
                    break
                text = self.units.decode(ids)
                if text not in readings:
                    readings[text] = read(self.units, ids, _spans(frames_TU, ids), score)
            results.append(list(readings.values()))
        return results


def _spans(log_probs_TU: Tensor, ids: list[int]) -> list[tuple[int, int]]:
    """Return the frames [first, end) of each unit on the best path of a unit sequence."""
    if not ids:
        return []
    path_1T, _ = torchaudio.functional.forced_align(
        log_probs_TU[None].contiguous(), torch.tensor([ids], dtype=torch.int32)
    )
    return runs(path_1T[0].tolist())[1]
