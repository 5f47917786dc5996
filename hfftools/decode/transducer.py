"""Search for the best unit sequences of a transducer, given its encodings f [B, T, J], by greedy or beam search.

The search is synchronous in time: in each frame at most `most` units, then the blank. torchaudio's own beam search expects
the blank to be the last unit, takes one utterance at a time, and returns no times.
"""

import math
from collections.abc import Callable, Collection, Iterable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from hfftools.decode.hypothesis import Hypothesis
from hfftools.nn.transducer import BLANK, Transducer

# The unknown unit, a visible character: put around a unit, it shows whether the unit begins or ends with a space, which
# the decoded text of a single unit would lose.
_MARK = 1


class Path(NamedTuple):
    """Hold units and the frame of each; `score` sums the merged alignments, `best` is the one with these frames."""

    ids: tuple[int, ...] = ()
    frames: tuple[int, ...] = ()
    score: float = 0.0
    best: float = 0.0


@torch.no_grad()
def greedy(net: Transducer, f_BTJ: Tensor, lens_B: Tensor, most: int) -> list[Path]:
    """Return one path for each utterance, the most likely unit at each step, scored by this single alignment."""
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
    """Return the `size` best unit sequences of each utterance, best first.

    As in Graves (arXiv:1211.3711, section 2.6), the alignments of the same units that meet in a frame are merged and their
    probabilities added.
    """
    live = [[Path()] for _ in lens_B]
    for t in range(int(lens_B.max()) if len(lens_B) else 0):
        active = {row: live[row] for row, length in enumerate(lens_B.tolist()) if t < length}
        done: dict[int, dict[tuple[int, ...], Path]] = {row: {} for row in active}
        for step in range(most + 1):
            paths = []
            for row, some in active.items():
                paths += [(row, path) for path in some]
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
    """Return log probabilities [P, V] of the unit after each of P prefixes, given the frame's encoding."""
    last = [((BLANK,) * net.context + ids)[-net.context :] for ids in prefixes]
    return net.join(f_PJ, net.predict(torch.tensor(last, device=f_PJ.device))[:, 0]).log_softmax(-1).cpu()


def _longer(paths: list[tuple[int, Path]], log_probs_PV: Tensor, t: int, size: int) -> dict[int, list[Path]]:
    """Return {utterance: paths with one more unit in frame `t`}, by the `size` best units after each path."""
    longer: dict[int, list[Path]] = {}
    values, units = log_probs_PV.topk(min(size, log_probs_PV.shape[1] - 1))
    for (row, path), some, names in zip(paths, values.tolist(), units.tolist(), strict=True):
        for value, unit in zip(some, names, strict=True):
            more = Path(path.ids + (unit,), path.frames + (t,), path.score + value, path.best + value)
            longer.setdefault(row, []).append(more)
    return longer


def _add(done: dict[tuple[int, ...], Path], path: Path) -> None:
    """Add a path to `done`; one with the same units is merged with it, and the frames of the better one are kept."""
    other = done.get(path.ids)
    if other is not None:
        # log(e^a + e^b) = max + log(1 + e^(min - max)), which cannot overflow
        high, low = max(path.score, other.score), min(path.score, other.score)
        path = max(path, other, key=lambda p: p.best)._replace(score=high + math.log1p(math.exp(low - high)))
    done[path.ids] = path


def _top(paths: Iterable[Path], size: int) -> list[Path]:
    return sorted(paths, key=lambda path: -path.score)[:size]


def _worthy(paths: list[Path], done: Collection[Path], size: int) -> list[Path]:
    """Return the best `size` paths, without those that score below `size` others which have left the frame already.

    Such a path could only become worse, because every further step adds a log probability.
    """
    bound = _top(done, size)[-1].score if len(done) >= size else -math.inf
    return [path for path in _top(paths, size) if path.score > bound]


def readings(
    net: Transducer, f_BTJ: Tensor, lens_B: Tensor, size: int, nbest: int, most: int, spell: Callable[[list[int]], str]
) -> list[list[Hypothesis]]:
    """Return at most `nbest` readings of each utterance that differ in text, best first; `size` 0 is greedy search.

    Every score is log P(units | f) over all alignments, whichever the search. The greedy path is among the candidates of a
    beam, so that a beam's best score is never below that of greedy search. `spell` turns unit ids into text.
    """
    candidates = [[path] for path in greedy(net, f_BTJ, lens_B, most)]
    if size:
        for paths, better in zip(candidates, beam(net, f_BTJ, lens_B, size, most), strict=True):
            paths[:] = {path.ids: path for path in (*better, *paths)}.values()
    results = []
    for paths, scores in zip(candidates, _rescore(net, f_BTJ, lens_B, candidates), strict=True):
        by_text: dict[str, Hypothesis] = {}
        for score, path in sorted(zip(scores, paths, strict=True), key=lambda pair: -pair[0]):
            text = spell(list(path.ids))
            by_text.setdefault(text, Hypothesis(text, score, word_times(path, spell)))
        results.append(list(by_text.values())[:nbest])
    return results


def _rescore(net: Transducer, f_BTJ: Tensor, lens_B: Tensor, candidates: list[list[Path]]) -> list[list[float]]:
    """Return log P(units | f) of each path of each utterance, summed over all alignments, in one pass."""
    rows: list[int] = []
    ids: list[Tensor] = []
    for row, paths in enumerate(candidates):
        rows += [row] * len(paths)
        ids += [torch.tensor(path.ids, dtype=torch.long) for path in paths]
    if not ids:
        return []
    device = f_BTJ.device
    targets_PL = pad_sequence(ids, batch_first=True).to(device)
    target_lens_P = torch.tensor([len(row) for row in ids], device=device)
    with torch.no_grad():
        scores_P = net.log_likelihood(f_BTJ[rows], lens_B.to(device)[rows], targets_PL, target_lens_P)
    counts = [len(paths) for paths in candidates]
    return [part.tolist() for part in scores_P.split(counts)]


def word_times(path: Path, spell: Callable[[list[int]], str]) -> tuple[tuple[str, int, int], ...]:
    """Return (word, first frame, end frame) of each word: from the frame of its first unit to the one after its last."""
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
