"""Search with a transducer: its networks and encodings f [B, T, J] in, unit sequences with their frames, readings out.

Time-synchronous: in each frame some units, at most `most`, then the blank. torchaudio's own beam search takes the last unit
for the blank, one utterance at a time, and tells no times.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from hfftools.decode.hypothesis import Hypothesis
from hfftools.nn.transducer import BLANK, Transducer

_MARK = 1  # the unknown unit: a character beside which it shows whether a unit's own text begins or ends with a space


class Path(NamedTuple):
    """Units and, for each, the frame it comes out in; `score` of all alignments met, `best` of the one with these frames."""

    ids: tuple[int, ...] = ()
    frames: tuple[int, ...] = ()
    score: float = 0.0
    best: float = 0.0


@torch.no_grad()
def greedy(net: Transducer, f_BTJ: Tensor, lens_B: Tensor, most: int) -> list[Path]:
    """The most likely unit at each moment; a path an utterance, scored by its one alignment."""
    batch, lens = len(lens_B), lens_B.to(f_BTJ.device)
    ids_BC = torch.full((batch, net.context), BLANK, device=f_BTJ.device)
    g_BJ = net.predict(ids_BC)[:, 0]
    score_B = torch.zeros(batch, device=f_BTJ.device)
    emitted: list[tuple[int, list[int], list[bool]]] = []
    for t in range(int(lens.max()) if batch else 0):
        open_B = t < lens
        for step in range(most + 1):
            log_probs_BV = net.join(f_BTJ[:, t], g_BJ).log_softmax(-1)
            best_B, unit_B = log_probs_BV.max(-1)
            says_B = open_B & (unit_B != BLANK) & (step < most)
            score_B += torch.where(says_B, best_B, log_probs_BV[:, BLANK]).where(open_B, 0.0)
            open_B = says_B
            if not open_B.any():
                break
            emitted.append((t, unit_B.tolist(), says_B.tolist()))
            ids_BC = torch.where(says_B[:, None], torch.cat([ids_BC[:, 1:], unit_B[:, None]], 1), ids_BC)
            g_BJ = net.predict(ids_BC)[:, 0]
    paths = []
    for row, score in enumerate(score_B.tolist()):
        said = [(units[row], t) for t, units, says in emitted if says[row]]
        paths.append(Path(tuple(unit for unit, _ in said), tuple(t for _, t in said), score, score))
    return paths


@torch.no_grad()
def beam(net: Transducer, f_BTJ: Tensor, lens_B: Tensor, size: int, most: int) -> list[list[Path]]:
    """The `size` likeliest unit sequences of each utterance, best first; alignments of the same units add up (Graves)."""
    live = [[Path()] for _ in lens_B]
    for t in range(int(lens_B.max()) if len(lens_B) else 0):
        active = {row: live[row] for row, length in enumerate(lens_B.tolist()) if t < length}
        done: dict[int, dict[tuple[int, ...], Path]] = {row: {} for row in active}
        for step in range(most + 1):
            paths = [(row, path) for row, some in active.items() for path in some]
            if not paths:
                break
            log_probs_PV = _next(net, f_BTJ[[row for row, _ in paths], t], [path.ids for _, path in paths])
            for (row, path), blank in zip(paths, log_probs_PV[:, BLANK].tolist(), strict=True):
                _add(done[row], path._replace(score=path.score + blank, best=path.best + blank))
            if step < most:
                log_probs_PV[:, BLANK] = -torch.inf
                longer = _longer(paths, log_probs_PV, t, size)
                active = {row: _worthy(some, done[row].values(), size) for row, some in longer.items()}
        for row, ended in done.items():
            live[row] = _top(ended.values(), size)
    return live


def _next(net: Transducer, f_PJ: Tensor, prefixes: list[tuple[int, ...]]) -> Tensor:
    """Log probabilities [P, V] of what follows each prefix in its frame."""
    last = [((BLANK,) * net.context + ids)[-net.context :] for ids in prefixes]
    return net.join(f_PJ, net.predict(torch.tensor(last, device=f_PJ.device))[:, 0]).log_softmax(-1).cpu()


def _longer(paths: list[tuple[int, Path]], log_probs_PV: Tensor, t: int, size: int) -> dict[int, list[Path]]:
    """The paths, by utterance, with one more unit in frame `t`: the `size` best units of each."""
    longer: dict[int, list[Path]] = {}
    values, units = log_probs_PV.topk(min(size, log_probs_PV.shape[1] - 1))
    for (row, path), some, names in zip(paths, values.tolist(), units.tolist(), strict=True):
        for value, unit in zip(some, names, strict=True):
            more = Path(path.ids + (unit,), path.frames + (t,), path.score + value, path.best + value)
            longer.setdefault(row, []).append(more)
    return longer


def _add(done: dict[tuple[int, ...], Path], path: Path) -> None:
    """Keep a path, or add its probability to that of the one with the same units; the better one's frames stay."""
    if (other := done.get(path.ids)) is not None:
        high, low = max(path.score, other.score), min(path.score, other.score)
        path = max(path, other, key=lambda p: p.best)._replace(score=high + math.log1p(math.exp(low - high)))
    done[path.ids] = path


def _top(paths: Sequence[Path], size: int) -> list[Path]:
    return sorted(paths, key=lambda path: -path.score)[:size]


def _worthy(paths: list[Path], done: Sequence[Path], size: int) -> list[Path]:
    """The best `size` of the paths, without those that are worse than `size` others which have left the frame already."""
    bound = _top(done, size)[-1].score if len(done) >= size else -math.inf
    return [path for path in _top(paths, size) if path.score > bound]


def readings(
    net: Transducer, f_BTJ: Tensor, lens_B: Tensor, size: int, nbest: int, most: int, spell: Callable[[list[int]], str]
) -> list[list[Hypothesis]]:
    """At most `nbest` readings of each utterance that differ in their text, best first, by greedy search for `size` 0.

    A score is log P(units | f) over all alignments, whichever the search. What greedy search finds is among a beam's
    candidates, so that a beam's best score is never below greedy's. `spell` turns unit ids into text.
    """
    found = [[path] for path in greedy(net, f_BTJ, lens_B, most)]
    if size:
        both = zip(beam(net, f_BTJ, lens_B, size, most), found, strict=True)
        found = [list({path.ids: path for path in (*one, *other)}.values()) for one, other in both]
    if not found:
        return []
    rows = torch.tensor([row for row, paths in enumerate(found) for _ in paths], device=f_BTJ.device)
    ids = [torch.tensor(path.ids, dtype=torch.long) for paths in found for path in paths]
    lens = torch.tensor([len(row) for row in ids], device=f_BTJ.device)
    targets = pad_sequence(ids, batch_first=True).to(f_BTJ.device)
    with torch.no_grad():
        scores = iter(net.log_likelihood(f_BTJ[rows], lens_B.to(rows.device)[rows], targets, lens).tolist())
    result = []
    for paths in found:
        by_text: dict[str, Hypothesis] = {}
        for score, path in sorted(((next(scores), path) for path in paths), key=lambda pair: -pair[0]):
            text = spell(list(path.ids))
            by_text.setdefault(text, Hypothesis(text, score, word_times(path, spell)))
        result.append(list(by_text.values())[:nbest])
    return result


def word_times(path: Path, spell: Callable[[list[int]], str]) -> tuple[tuple[str, int, int], ...]:
    """(word, first frame, end frame): from the frame in which its first unit comes out to the one after its last's."""
    mark = spell([_MARK])
    words: list[tuple[str, int, int]] = []
    begin = True
    for unit, t in zip(path.ids, path.frames, strict=True):
        shown = spell([_MARK, unit, _MARK])[len(mark) : -len(mark)]
        text = shown.strip(" ")
        begin |= shown.startswith(" ")
        if text and begin:
            words.append((text, t, t + 1))
        elif text:
            words[-1] = (words[-1][0] + text, words[-1][1], t + 1)
        begin = shown.endswith(" ") or (begin and not text)
    return tuple(words)
