"""A lexicon, an n-gram model and their weights in; what each unit costs after those before it, and which may follow, out."""

from collections.abc import Iterable
from typing import Any

from hfftools.decode.lm import Ngram
from hfftools.log import require
from hfftools.text.units import UNKNOWN, Units

NEVER = float("-inf")

# Where a reading stands: what the n-gram remembers, and the node of the lexicon.
State = tuple[Any, "Node | None"]


class Node:
    """A place in the tree of the lexicon's spellings."""

    __slots__ = ("kids", "word", "hope")

    def __init__(self):
        self.kids: dict[int, Node] = {}
        self.word = ""  # that ends here
        self.hope = NEVER  # the best log probability, after nothing, of the words below


def tree(units: Units, words: Iterable[str], lm: Ngram | None) -> Node:
    """The lexicon of words as `units` spell them; a word that they cannot spell is left out."""
    root = Node()
    count = 0
    for word in words:
        spelling = units.encode(word)
        if not spelling or UNKNOWN in spelling:
            continue
        hope = lm.score(lm.nowhere, word)[1] if lm else 0.0
        node, count = root, count + 1
        for unit in spelling:
            node = node.kids.setdefault(unit, Node())
            node.hope = max(node.hope, hope)
        node.word = word
    require(count > 0, "search.lexicon: the experiment's units can spell none of its words")
    root.hope = 0.0
    return root


class Grammar:
    """Scores of unit sequences. With a lexicon the n-gram is over words, without over units.

    Within a word, the best that its beginning still allows stands in for the word's probability, so that no beginning is
    kept for longer than its words deserve.
    """

    def __init__(self, units: Units, lexicon: Node | None, lm: Ngram | None, lm_weight: float, word_score: float):
        self.units, self.lexicon, self.lm = units, lexicon, lm
        self.lm_weight, self.word_score = lm_weight, word_score
        self.start: State = (lm.start if lm else None, lexicon)
        self._opens = [units.starts_word(unit) for unit in range(len(units))]
        self._space = [units.is_space(unit) for unit in range(len(units))]

    def step(self, state: State, unit: int) -> tuple[State, float] | None:
        """What the reading stands at after one more unit, and what that adds to its score; None where it may not follow."""
        memory, node = state
        if node is None:
            score = self.word_score if self._opens[unit] else 0.0
            if self.lm:
                memory, log_prob = self.lm.score(memory, self.units.symbols[unit])
                score += self.lm_weight * log_prob
            return (memory, None), score
        score = 0.0
        if self._opens[unit] and node is not self.lexicon:
            if not node.word:
                return None
            memory, score = self._close(memory, node)
            node = self.lexicon
        after = node.kids.get(unit)
        if after is None:
            between = self._space[unit] and node is self.lexicon
            return ((memory, node), score) if between else None
        return (memory, after), score + self.lm_weight * (after.hope - node.hope if self.lm else 0.0)

    def finish(self, state: State) -> float | None:
        """What the end of the utterance adds to the score; None inside a word."""
        memory, node = state
        score = 0.0
        if node is not self.lexicon:
            if not node.word:
                return None
            memory, score = self._close(memory, node)
        return score + (self.lm_weight * self.lm.end(memory) if self.lm else 0.0)

    def _close(self, memory: Any, node: Node) -> tuple[Any, float]:
        if self.lm is None:
            return memory, self.word_score
        memory, log_prob = self.lm.score(memory, node.word)
        return memory, self.word_score + self.lm_weight * (log_prob - node.hope)
