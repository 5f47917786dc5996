"""CTC prefix beam search (Hannun et al. 2014): log posteriors [B, T, U] and a grammar in, n-best hypotheses out.

The score of a reading is the log of the sum over all its alignments, plus what the grammar adds. The search is written
here since flashlight's, which torchaudio wraps, closes a word at the first frame of its last unit and can hold that unit
no longer: right where a separator ends each word's spelling, wrong for pieces that mark where a word begins.
"""

import heapq
import math
from copy import copy
from pathlib import Path

import torch
import torchaudio
from torch import Tensor

from hfftools.decode import lm as language_model
from hfftools.decode.grammar import Grammar, State, tree
from hfftools.decode.hypothesis import Hypothesis, read, runs
from hfftools.decode.search import CTC_BEAM, Search
from hfftools.text.units import Units

THRESHOLD = 1e-9  # of the best reading's score, below which one is dropped
UNLIKELY = 1e-5  # of a frame's best posterior, below which a unit is not tried


class Prefix:
    """A sequence of units as a place in the tree of all that were tried; probabilities are relative to the frame's best."""

    __slots__ = ("parent", "unit", "state", "bonus", "kids", "blank", "said", "next_blank", "next_said", "frame")

    def __init__(self, parent: "Prefix | None", unit: int, state: State, bonus: float):
        self.parent, self.unit, self.state = parent, unit, state
        self.bonus = bonus  # what the grammar has added
        self.kids: dict[int, Prefix | None] = {}
        self.blank = self.said = self.next_blank = self.next_said = 0.0  # ending in a blank, or in the unit
        self.frame = -1  # at which it was reached last

    def ids(self) -> list[int]:
        found, prefix = [], self
        while prefix.parent is not None:
            found.append(prefix.unit)
            prefix = prefix.parent
        return found[::-1]


def search(log_probs_TU: Tensor, grammar: Grammar, beam_size: int, beam_tokens: int) -> list[tuple[list[int], float]]:
    """Unit sequences and their scores, best first; log posteriors on the CPU."""
    root = Prefix(None, 0, grammar.start, 0.0)
    root.blank = 1.0
    beam, log_scale = [root], 0.0
    top = log_probs_TU.topk(min(beam_tokens, log_probs_TU.shape[-1]), -1)
    probs_TU, best_T = log_probs_TU.double().exp().tolist(), top.values[:, 0].double().exp().tolist()
    for frame, (probs_U, units, best) in enumerate(zip(probs_TU, top.indices.tolist(), best_T, strict=True)):
        tried = [(unit, probs_U[unit]) for unit in units if unit and probs_U[unit] > UNLIKELY * best]
        reached: list[Prefix] = []
        for prefix in beam:
            if prefix.frame != frame:
                prefix.frame = frame
                reached.append(prefix)
            total = prefix.blank + prefix.said
            prefix.next_blank += total * probs_U[0]
            prefix.next_said += prefix.said * probs_U[prefix.unit]
            for unit, prob in tried:
                kid = prefix.kids.get(unit, prefix)
                if kid is prefix:  # never tried before
                    step = grammar.step(prefix.state, unit)
                    kid = prefix.kids[unit] = step and Prefix(prefix, unit, step[0], prefix.bonus + step[1])
                if kid is None:
                    continue
                if kid.frame != frame:
                    kid.frame = frame
                    reached.append(kid)
                kid.next_said += (prefix.blank if unit == prefix.unit else total) * prob
        beam, log_scale = _keep(reached, beam_size, log_scale)
    return _final(beam, grammar, log_scale)


def _keep(reached: list[Prefix], beam_size: int, log_scale: float) -> tuple[list[Prefix], float]:
    """The best of those reached, their probabilities scaled so that the largest is near one; others are set to none."""
    scored = []
    for prefix in reached:
        total = prefix.next_blank + prefix.next_said
        if total > 0:
            scored.append((math.log(total) + prefix.bonus, total, prefix))
        prefix.blank = prefix.said = 0.0
    kept = heapq.nlargest(beam_size, scored, key=lambda item: item[0])
    floor = kept[0][0] + math.log(THRESHOLD)
    kept = [item for item in kept if item[0] >= floor]
    scale = max(total for _, total, _ in kept)
    for _, _, prefix in kept:
        prefix.blank, prefix.said = prefix.next_blank / scale, prefix.next_said / scale
    for prefix in reached:
        prefix.next_blank = prefix.next_said = 0.0
    return [prefix for _, _, prefix in kept], log_scale + math.log(scale)


def _final(beam: list[Prefix], grammar: Grammar, log_scale: float) -> list[tuple[list[int], float]]:
    """Readings with the grammar's last word; where each ends inside a word, they lose that word."""
    found: dict[tuple[int, ...], float] = {}
    whole = [prefix for prefix in beam if grammar.finish(prefix.state) is not None]
    for prefix in whole or beam:
        score = math.log(prefix.blank + prefix.said) + log_scale
        while (last := grammar.finish(prefix.state)) is None:
            prefix = prefix.parent
        ids = tuple(prefix.ids())
        found[ids] = max(score + prefix.bonus + last, found.get(ids, -math.inf))
    return [(list(ids), score) for ids, score in sorted(found.items(), key=lambda item: -item[1])]


class BeamSearch:
    """A search set up once for many utterances."""

    def __init__(self, units: Units, options: Search):
        self.units, self.options = units, options
        lm = language_model.Ngram(options.lm) if options.lm else None
        lexicon = None
        if options.lexicon:
            lexicon = tree(units, language_model.words(Path(options.lexicon)), lm)
        elif lm:
            language_model.check_units(lm, units)
        self.grammar = Grammar(units, lexicon, lm, options.lm_weight or 0.0, options.word_score or 0.0)

    def only_weighs(self, options: Search) -> bool:
        """Whether other options differ in nothing that takes time to set up."""
        return (options.lm, options.lexicon) == (self.options.lm, self.options.lexicon)

    def reweigh(self, options: Search) -> "BeamSearch":
        """The same search with other weights and beams."""
        again = copy(self)
        again.options, old = options, self.grammar
        again.grammar = Grammar(self.units, old.lexicon, old.lm, options.lm_weight or 0.0, options.word_score or 0.0)
        return again

    def __call__(self, log_probs_BTU: Tensor, lens_B: Tensor) -> list[list[Hypothesis]]:
        """Distinct texts of each utterance, best first, at most `nbest`; word times by forced alignment of the units."""
        log_probs_BTU, found = log_probs_BTU.cpu(), []
        size = self.options.beam_size or max(CTC_BEAM, self.options.nbest)
        for log_probs_TU, length in zip(log_probs_BTU, lens_B.tolist(), strict=True):
            readings: dict[str, Hypothesis] = {}
            frames_TU = log_probs_TU[:length]
            for ids, score in search(frames_TU, self.grammar, size, self.options.beam_tokens):
                if len(readings) == self.options.nbest:
                    break
                text = self.units.decode(ids)
                if text not in readings:
                    readings[text] = read(self.units, ids, _spans(frames_TU, ids), score)
            found.append(list(readings.values()))
        return found


def _spans(log_probs_TU: Tensor, ids: list[int]) -> list[tuple[int, int]]:
    """The frames [first, end) of each unit on the best path of a unit sequence."""
    if not ids:
        return []
    path_1T, _ = torchaudio.functional.forced_align(
        log_probs_TU[None].contiguous(), torch.tensor([ids], dtype=torch.int32)
    )
    return runs(path_1T[0].tolist())[1]
