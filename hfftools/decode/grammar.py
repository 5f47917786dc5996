"""Score unit sequences by a lexicon and an n-gram model, and say which unit may follow which."""

from collections.abc import Sequence
from typing import Any

from hfftools.decode.lm import Ngram
from hfftools.log import require
from hfftools.text.spelling import forms, report_lost, spell
from hfftools.text.units import Units

NEVER = float("-inf")

# The state of a reading: what the n-gram remembers, and the node of the lexicon (None without a lexicon).
State = tuple[Any, "Node | None"]


class Node:
    """Hold one node of the prefix tree of the lexicon's spellings."""

    __slots__ = ("kids", "word", "best")

    def __init__(self) -> None:
        self.kids: dict[int, Node] = {}
        self.word = ""  # the word that ends here, if one does
        self.best = NEVER  # the highest log probability, without history, of the words at or below this node


def tree(units: Units, words: Sequence[str], lm: Ngram | None, fold_case: bool = False) -> Node:
    """Return the prefix tree of words as `units` spell them; a word that they cannot spell is left out, and reported.

    With `fold_case`, a word that the units cannot spell, or the language model does not know, is tried in another
    case. Raise UserError if more than half of the words cannot be spelled, or if no word is left.
    """
    root, count = Node(), 0
    lost: list[str] = []  # words that the units cannot spell
    unlisted: list[str] = []  # words that the language model does not know
    for word in words:
        spelling = spell(units, word, fold_case)
        if not spelling:
            lost.append(word)
            continue
        count += 1
        _add(root, spelling, word, lm, fold_case, unlisted)
    fold = "set search.fold_case=true"
    remedies = fold, "use a lexicon or a language model that is written in the transcripts' characters"
    what = "search.lexicon: cannot be spelled with the experiment's units"
    report_lost(what, lost, len(words), lambda word: bool(spell(units, word)), remedies)
    require(count > 0, "search.lexicon: it has no words; name another file or data directory")
    if lm:
        remedies = fold, "they have the probability of <unk>"
        report_lost(f"search.lexicon: are not in {lm.path}", unlisted, count, lm.__contains__, remedies, refuse=False)
    root.best = 0.0  # at a word's beginning nothing has been added yet
    return root


def _add(root: Node, spelling: list[int], word: str, lm: Ngram | None, fold_case: bool, unlisted: list[str]) -> None:
    """Add a word to the tree; append it to `unlisted` if the language model does not know it."""
    log_prob = 0.0
    if lm:
        known = next((form for form in forms(word, fold_case) if form in lm), None)
        if known is None:
            unlisted.append(word)
        word = known or word
        log_prob = lm.score(lm.nowhere, word)[1]
    node = root
    for unit in spelling:
        node = node.kids.setdefault(unit, Node())
        node.best = max(node.best, log_prob)
    # of words that differ in case alone, the more probable one stands for all
    if lm is None or not node.word or log_prob > lm.score(lm.nowhere, node.word)[1]:
        node.word = word


class Grammar:
    """Score unit sequences. With a lexicon the n-gram is over words, without one it is over units.

    The score of a reading is Σ lm_weight · log p(word | history) + word_score per word. Inside a word, the highest
    probability among the words that its beginning still allows is used in its place, and is replaced by the word's own
    when the word ends (language-model look-ahead; Ortmanns et al. 1996). Without it, the beginnings of improbable words
    would stay in the beam until their last unit.
    """

    def __init__(self, units: Units, lexicon: Node | None, lm: Ngram | None, lm_weight: float, word_score: float):
        self.units, self.lexicon, self.lm = units, lexicon, lm
        self.lm_weight, self.word_score = lm_weight, word_score
        self.start: State = (lm.start if lm else None, lexicon)
        # looked up once: `step` runs for each prefix, frame and unit
        self._opens = [units.starts_word(unit) for unit in range(len(units))]
        self._space = [units.is_space(unit) for unit in range(len(units))]

    def step(self, state: State, unit: int) -> tuple[State, float] | None:
        """Return the state after one more unit and what that adds to the score; None where the unit may not follow."""
        memory, node = state
        if node is None or self.lexicon is None:
            return self._step_freely(memory, unit)
        score = 0.0
        if self._opens[unit] and node is not self.lexicon:
            if not node.word:
                return None
            memory, score = self._close(memory, node)
            node = self.lexicon
        after = node.kids.get(unit)
        if after is None:
            # a separate space unit between words is in no word's spelling
            between = self._space[unit] and node is self.lexicon
            return ((memory, node), score) if between else None
        return (memory, after), score + self.lm_weight * (after.best - node.best if self.lm else 0.0)

    def _step_freely(self, memory: Any, unit: int) -> tuple[State, float]:
        """Return what `step` does where there is no lexicon: every unit may follow."""
        score = self.word_score if self._opens[unit] else 0.0
        if self.lm:
            memory, log_prob = self.lm.score(memory, self.units.symbols[unit])
            score += self.lm_weight * log_prob
        return (memory, None), score

    def finish(self, state: State) -> float | None:
        """Return what the end of the utterance adds to the score; None inside a word."""
        memory, node = state
        score = 0.0
        if node is not None and node is not self.lexicon:
            if not node.word:
                return None
            memory, score = self._close(memory, node)
        return score + (self.lm_weight * self.lm.end(memory) if self.lm else 0.0)

    def _close(self, memory: Any, node: Node) -> tuple[Any, float]:
        """Return the memory after the word at `node`, and its score less the look-ahead that was added on the way."""
        if self.lm is None:
            return memory, self.word_score
        memory, log_prob = self.lm.score(memory, node.word)
        return memory, self.word_score + self.lm_weight * (log_prob - node.best)
