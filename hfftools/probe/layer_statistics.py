"""Batches of a frozen model's hidden states in; how alike its layers are, and what shape each layer has, out.

Two passes over the same batches. The first takes the moments of the frames, counts labels and fits k-means on labelled
segments; the second takes the moments of the segments, counts labels by cluster, and sums the partition function. What is
held does not grow with the frames: at 25 layers of 1024 dimensions 2.3 GiB in the first pass, 1.3 GiB in the second.
"""

import itertools
import zlib
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from hfftools.log import progress, require, suggest
from hfftools.nn.kmeans import Stream, assign
from hfftools.probe.covariance import Joint, Moments, Pair, View, count, covariance, mean
from hfftools.probe.isotropy import Partition, effective_rank, isoscore
from hfftools.probe.similarity import linear_cka, normalised_information, pwcca_of_folds

WHAT = ("similarity", "geometry")
FOLDS = 4  # for PWCCA: two train, one dev, one test, rotated
LABELS = 200  # of phones, and of words, the most frequent so many are told apart; other segments are left out
MOST_BYTES = 2**30  # of float64 products; where they would take more, they are float32
KINDS = {"phone": "phones", "word": "words"}

Segment = tuple[int, int, str]  # first frame, end frame (exclusive), label


@dataclass(frozen=True)
class Look:
    """What is looked at of one batch of utterances; all tensors on one device."""

    ids: list[str]
    hidden: dict[int, Tensor]  # {layer: [B, T, D]}; widths may differ between layers
    lens_B: Tensor  # valid frames
    mel_BTM: Tensor  # log-mel at the same frames
    phones: list[list[Segment]] | None  # of each utterance; None: no alignment
    words: list[list[Segment]] | None


@torch.no_grad()
def survey(
    batches: Callable[[], Iterator[Look]], layers: list[int], what: Collection[str], *, clusters: int, seed: int
) -> tuple[list[dict], dict]:
    """(a row of figures for each layer, what concerns them all), both ready for JSON.

    batches: gives the same batches each time it is called; called twice.
    what: "similarity" (cka, pwcca_*, mi_*), "geometry" (isotropy, log_isotropy, isoscore, effective_rank, norm_*), or both.
    clusters: of k-means on the mean-pooled segments, for the mutual information with their labels.

    pwcca_first is to the lowest of the layers; mi_* is a share of the labels' entropy. A figure that is undefined, that too
    few frames would make up (similarity.py and geometry.py say when), or of a layer with a state that is not finite, is
    None. The keys of phones and words are there where a batch has their segments.
    """
    for name in what:
        require(name in WHAT, f"survey: no part '{name}'; {suggest(name, WHAT)}")
    layers = sorted(set(layers))
    rows = {layer: {"layer": layer} for layer in layers}
    frames, kinds = None, {}
    for look in progress(batches(), None, "layers, pass 1 of 2", "batch"):
        for fold, views, segments in _utterances(look, layers):
            if frames is None:
                frames = _Frames(look, layers, what)
            frames.add(fold, views)
            for kind in segments if "similarity" in what else ():
                if kind not in kinds:
                    kinds[kind] = _Segments(kind, layers, frames.shift, clusters, seed)
                kinds[kind].learn(views, segments[kind])
    require(frames is not None, "survey: the batches have no frames")
    more = {"frames": count(frames.folds)}
    if "similarity" in what:
        more["cka"] = frames.cka()
        for layer in progress(layers, None, "canonical correlations", "layer"):
            rows[layer]["cka_mel"] = more["cka"]["matrix"][layers.index(layer)][-1]
            rows[layer]["pwcca_mel"] = pwcca_of_folds(frames.folds, layer, "mel")
            rows[layer]["pwcca_first"] = pwcca_of_folds(frames.folds, layer, layers[0])
    partitions = {}
    if "geometry" in what:
        for layer in layers:
            shape, square_DD = frames.geometry(layer)
            rows[layer] |= {"isotropy": None, "log_isotropy": None, **shape}
            if square_DD is not None:
                partitions[layer] = Partition(square_DD)
    del frames  # before the second pass, whose moments take their place
    for one in kinds.values():
        one.settle()
    for look in progress(batches(), None, "layers, pass 2 of 2", "batch") if partitions or kinds else ():
        for fold, views, segments in _utterances(look, layers):
            for layer, partition in partitions.items():
                partition.add(views[layer])
            for kind, one in kinds.items():
                one.measure(fold, views, segments.get(kind, []))
    for layer, partition in partitions.items():
        rows[layer] |= partition.ratios()
    for kind, one in kinds.items():
        more |= {f"{kind}_segments": count(one.folds), "clusters": clusters}
        for layer in progress(layers, None, f"correlations with {kind}s", "layer"):
            rows[layer][f"pwcca_{kind}"] = pwcca_of_folds(one.folds, layer, "label")
            rows[layer][f"mi_{kind}"] = normalised_information(one.counts[layer]) if layer in one.centres else None
    return list(rows.values()), more


def _utterances(look: Look, layers: list[int]) -> Iterator[tuple[int, dict[View, Tensor], dict[str, list[Segment]]]]:
    """(its fold, {view: its valid frames [T, D]}, {kind: segments}) of each utterance that has frames."""
    for row, (utt, frames) in enumerate(zip(look.ids, look.lens_B.tolist(), strict=True)):
        if frames == 0:
            continue
        views: dict[View, Tensor] = {layer: look.hidden[layer][row, :frames] for layer in layers}
        views["mel"] = look.mel_BTM[row, :frames]
        views["norm"] = torch.stack([views[layer].double().norm(dim=1) for layer in layers], 1)
        found = {kind: getattr(look, name) for kind, name in KINDS.items()}
        segments = {kind: of_all[row] for kind, of_all in found.items() if of_all is not None}
        yield zlib.crc32(utt.encode()) % FOLDS, views, segments


def _dtype(shift: dict[View, Tensor], pairs: list[Pair]) -> torch.dtype:
    size = 8 * sum(len(shift[x]) * len(shift[y]) for x, y in pairs)
    return torch.float64 if size <= MOST_BYTES else torch.float32


class _Frames:
    """Moments of the frames: by fold of each layer, and of its pairs with the first layer and log-mel; the rest at once."""

    def __init__(self, look: Look, layers: list[int], what: Collection[str]):
        self.layers, near, rest = layers, [(layer, layer) for layer in layers], []
        if "similarity" in what:
            near += [(layer, layers[0]) for layer in layers[1:]] + [(view, "mel") for view in (*layers, "mel")]
            rest = list(itertools.combinations(layers[1:], 2))
        if "geometry" in what:
            near.append(("norm", "norm"))
        first = [views for _, views, _ in _utterances(look, layers)]
        self.shift = {
            view: torch.cat([views[view] for views in first]).mean(0, dtype=torch.float64) for view in first[0]
        }
        dtype = _dtype(self.shift, near * FOLDS + rest)
        self.folds = [Moments(self.shift, near, dtype) for _ in range(FOLDS)]
        self.rest = Moments(self.shift, rest, dtype)

    def add(self, fold: int, views: dict[View, Tensor]) -> None:
        self.folds[fold].add(views)
        self.rest.add(views)

    def cka(self) -> dict:
        """Linear CKA of each layer, and of log-mel, with each other."""
        names: list[View] = [*self.layers, "mel"]
        own = {view: covariance(self.folds, view, view) for view in names}
        matrix: list[list[float | None]] = [[None] * len(names) for _ in names]
        for (i, x), (j, y) in itertools.combinations_with_replacement(enumerate(names), 2):
            parts = [self.rest] if (x, y) in self.rest.products else self.folds
            views = Joint(own[x], covariance(parts, x, y), own[y], count(self.folds))
            matrix[i][j] = matrix[j][i] = linear_cka(views)
        return {"names": [str(view) for view in names], "matrix": matrix}

    def geometry(self, layer: int) -> tuple[dict, Tensor | None]:
        """(figures of a layer, the mean of v vT over its frames v); no such mean where there is no sense in it.

        As many frames as twice the dimensions are asked for: fewer span less than the layer does.
        """
        place = self.layers.index(layer)
        norm_mean = mean(self.folds, "norm")[place]
        norm_std = covariance(self.folds, "norm", "norm")[place, place].clamp(min=0).sqrt()
        shape = {"isoscore": None, "effective_rank": None}
        shape |= {k: v.item() if v.isfinite() else None for k, v in (("norm_mean", norm_mean), ("norm_std", norm_std))}
        mean_D, cov_DD = mean(self.folds, layer), covariance(self.folds, layer, layer)
        if count(self.folds) < 2 * len(mean_D) or not cov_DD.isfinite().all():
            return shape, None
        square_DD = cov_DD + torch.outer(mean_D, mean_D)
        shape |= {"isoscore": isoscore(cov_DD), "effective_rank": effective_rank(cov_DD)}
        return shape, square_DD if square_DD.trace() > 0 else None


class _Segments:
    """Segments of one kind, mean-pooled: k-means and counts of labels in the first pass, all else in the second."""

    def __init__(self, kind: str, layers: list[int], shift: dict[View, Tensor], clusters: int, seed: int):
        self.kind, self.clusters = kind, clusters
        self.shift = {layer: shift[layer].float() for layer in layers}
        self.streams = {layer: Stream(clusters, seed) for layer in layers}
        self.labels: Counter[str] = Counter()

    def learn(self, views: dict[View, Tensor], segments: list[Segment]) -> None:
        """First pass."""
        pooled, labels = self._pool(views, segments)
        self.labels.update(labels)
        for layer, rows_SD in pooled.items():
            self.streams[layer].add(rows_SD)

    def settle(self) -> None:
        """Between the passes: clusters and labels are known."""
        self.known = {label: i for i, (label, _) in enumerate(self.labels.most_common(LABELS))}
        found = {layer: stream.centres() for layer, stream in self.streams.items()}
        self.centres = {k: c.to(self.shift[k].device) for k, c in found.items() if c is not None}
        self.streams.clear()
        device = next(iter(self.shift.values())).device
        table_KL = torch.zeros(self.clusters, len(self.known), dtype=torch.int64, device=device)
        self.counts = {layer: table_KL.clone() for layer in self.centres}
        # pooled rows are shifted already
        zero = {layer: torch.zeros_like(shift_D) for layer, shift_D in self.shift.items()}
        zero["label"] = torch.zeros(len(self.known), device=device)
        pairs = [(a, b) for layer in self.shift for a, b in ((layer, layer), (layer, "label"))] + [("label", "label")]
        dtype = _dtype(zero, pairs * FOLDS)
        self.folds = [Moments(zero, pairs, dtype) for _ in range(FOLDS)]

    def measure(self, fold: int, views: dict[View, Tensor], segments: list[Segment]) -> None:
        """Second pass."""
        pooled, labels = self._pool(views, [segment for segment in segments if segment[2] in self.known])
        if not labels:
            return
        ids_S = torch.tensor([self.known[label] for label in labels], device=views["mel"].device)
        for layer, centres_KD in self.centres.items():
            cell_S = assign(pooled[layer], centres_KD) * len(self.known) + ids_S
            self.counts[layer] += torch.bincount(cell_S, minlength=self.counts[layer].numel()).view_as(
                self.counts[layer]
            )
        self.folds[fold].add({**pooled, "label": torch.nn.functional.one_hot(ids_S, len(self.known))})

    def _pool(self, views: dict[View, Tensor], segments: list[Segment]) -> tuple[dict[View, Tensor], list[str]]:
        """({layer: mean over the frames of each segment, shifted, [S, D]}, labels); segments without frames are skipped."""
        frames, device = len(views["mel"]), views["mel"].device
        valid = [(first, min(end, frames), label) for first, end, label in segments if first < min(end, frames)]
        weight_ST = torch.zeros(len(valid), frames)
        for row_T, (first, end, _) in zip(weight_ST, valid, strict=True):
            row_T[first:end] = 1 / (end - first)
        weight_ST = weight_ST.to(device)
        pooled = {layer: weight_ST @ (views[layer].float() - shift_D) for layer, shift_D in self.shift.items()}
        return pooled, [label for _, _, label in valid]
