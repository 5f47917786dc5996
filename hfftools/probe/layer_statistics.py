"""Measure how similar the layers of a frozen model are, and the geometry of each, from batches of hidden states.

Two passes over the same batches. The first takes the moments of the frames, counts labels and fits k-means on labelled
segments; the second takes the moments of the segments, counts labels by cluster, and sums the partition function.
Memory does not grow with the frames: at 25 layers of 1024 dimensions 2.3 GiB in the first pass, 1.3 GiB in the second.
"""

import itertools
from collections import Counter
from collections.abc import Callable, Collection, Iterator

import torch
from torch import Tensor

from hfftools.log import UserError, progress, require, suggest
from hfftools.nn.kmeans import Stream, assign
from hfftools.probe.covariance import Joint, Moments, Pair, View, count, covariance, mean
from hfftools.probe.isotropy import Partition, effective_rank, isoscore
from hfftools.probe.similarity import linear_cka, normalised_information, pwcca_of_folds
from hfftools.probe.state_batch import FOLDS, Segment, StateBatch

GROUPS = ("similarity", "geometry")
LABELS = 200  # the most frequent phones, and as many words, are counted; segments of other labels are left out
MOST_BYTES = 2**30  # of float64 products; if they would take more, they are float32

Figures = dict[str, float | None]


@torch.no_grad()
def measure_layers(
    batches: Callable[[], Iterator[StateBatch]], layers: list[int], groups: Collection[str], *, clusters: int, seed: int
) -> tuple[list[dict], dict]:
    """Return a row of figures for each layer, and the figures of all layers together, both ready for JSON.

    batches: returns the same batches at each call; it is called twice.
    groups: "similarity" (cka, pwcca_*, mi_*), "geometry" (isotropy, log_isotropy, isoscore, effective_rank, norm_*).
    clusters: of k-means on the mean-pooled segments, for the mutual information with their labels.

    pwcca_first compares with the lowest of the layers; mi_* is a share of the labels' entropy. A figure is None if it
    is undefined, if the frames are too few for an estimate (similarity.py and isotropy.py say when), or if a state of the
    layer is not finite. Rows have keys of phones and words if a batch has their segments. Raise UserError if a group is
    unknown, or if the batches have no frames.
    """
    for name in groups:
        require(name in GROUPS, f"layer statistics: no group '{name}'; {suggest(name, GROUPS)}")
    layers = sorted(set(layers))
    figures: dict[int, Figures] = {layer: {} for layer in layers}
    frames, kinds = _first_pass(batches(), layers, groups, clusters, seed)
    facts: dict = {"frames": count(frames.folds)}
    if "similarity" in groups:
        facts["cka"] = _add_similarity(figures, frames)
    partitions = _add_geometry(figures, frames) if "geometry" in groups else {}
    del frames  # before the second pass, whose moments need the memory
    for segments in kinds.values():
        segments.start_second_pass()
    if partitions or kinds:
        _second_pass(batches(), layers, partitions, kinds)
    for layer, partition in partitions.items():
        figures[layer] |= partition.ratios()
    for kind, segments in kinds.items():
        facts |= {f"{kind}_segments": count(segments.folds), "clusters": clusters}
        for layer in progress(layers, None, f"correlations with {kind}s", "layer"):
            information = normalised_information(segments.counts[layer]) if layer in segments.centres else None
            figures[layer] |= {
                f"pwcca_{kind}": pwcca_of_folds(segments.folds, layer, "label"),
                f"mi_{kind}": information,
            }
    return [{"layer": layer, **row} for layer, row in figures.items()], facts


def _first_pass(
    batches: Iterator[StateBatch], layers: list[int], groups: Collection[str], clusters: int, seed: int
) -> tuple["_Frames", dict[str, "_Segments"]]:
    """Return the moments of all frames and, by kind of label, the segments' clusters and counts of labels."""
    frames, kinds = None, {}
    for batch in progress(batches, None, "layers, pass 1 of 2", "batch"):
        for fold, views, segments in batch.utterances(layers):
            if frames is None:  # the first batch has the widths of all views, and means near those of all frames
                frames = _Frames(batch, layers, groups)
            frames.add(fold, views)
            for kind in segments if "similarity" in groups else ():
                if kind not in kinds:
                    kinds[kind] = _Segments(kind, layers, frames.shift, clusters, seed)
                kinds[kind].learn(views, segments[kind])
    if frames is None:
        raise UserError("layer statistics: the batches have no frames; choose longer utterances")
    return frames, kinds


def _second_pass(
    batches: Iterator[StateBatch], layers: list[int], partitions: dict[int, Partition], kinds: dict[str, "_Segments"]
) -> None:
    """Add every frame to the partition functions, and every segment to the counts and moments of its kind."""
    for batch in progress(batches, None, "layers, pass 2 of 2", "batch"):
        for fold, views, segments in batch.utterances(layers):
            for layer, partition in partitions.items():
                partition.add(views[layer])
            for kind, counted in kinds.items():
                counted.measure(fold, views, segments.get(kind, []))


def _add_similarity(figures: dict[int, Figures], frames: "_Frames") -> dict:
    """Add each layer's similarity to log-mel and to the first layer; return the CKA of all pairs."""
    cka, layers = frames.cka(), frames.layers
    for place, layer in enumerate(progress(layers, None, "canonical correlations", "layer")):
        figures[layer]["cka_mel"] = cka["matrix"][place][-1]
        figures[layer]["pwcca_mel"] = pwcca_of_folds(frames.folds, layer, "mel")
        figures[layer]["pwcca_first"] = pwcca_of_folds(frames.folds, layer, layers[0])
    return cka


def _add_geometry(figures: dict[int, Figures], frames: "_Frames") -> dict[int, Partition]:
    """Add each layer's geometry except isotropy; return the partition functions that the second pass sums for it."""
    partitions = {}
    for layer in frames.layers:
        geometry, square_DD = frames.geometry(layer)
        figures[layer] |= {"isotropy": None, "log_isotropy": None, **geometry}
        if square_DD is not None:
            partitions[layer] = Partition(square_DD)
    return partitions


def _dtype(shift: dict[View, Tensor], pairs: list[Pair]) -> torch.dtype:
    """Return the precision in which the products of all `pairs` fit into MOST_BYTES, float32 at worst."""
    size = 8 * sum(len(shift[x]) * len(shift[y]) for x, y in pairs)
    return torch.float64 if size <= MOST_BYTES else torch.float32


class _Frames:
    """Hold the moments of the frames.

    Those of each layer, and of its pairs with the first layer and log-mel, are kept by fold, for PWCCA. Those of all
    other pairs of layers, which only CKA needs, are over all frames together.
    """

    def __init__(self, batch: StateBatch, layers: list[int], groups: Collection[str]):
        """Choose the pairs that `groups` need, and take the widths and the shift of each view from the first batch."""
        self.layers = layers
        near: list[Pair] = [(layer, layer) for layer in layers]
        rest: list[Pair] = []
        if "similarity" in groups:
            near += [(layer, layers[0]) for layer in layers[1:]]
            near += [(layer, "mel") for layer in layers]
            near.append(("mel", "mel"))
            rest = list(itertools.combinations(layers[1:], 2))
        if "geometry" in groups:
            near.append(("norm", "norm"))
        first = [views for _, views, _ in batch.utterances(layers)]
        self.shift = {
            view: torch.cat([views[view] for views in first]).mean(0, dtype=torch.float64) for view in first[0]
        }
        dtype = _dtype(self.shift, near * FOLDS + rest)
        self.folds = [Moments(self.shift, near, dtype) for _ in range(FOLDS)]
        self.rest = Moments(self.shift, rest, dtype)

    def add(self, fold: int, views: dict[View, Tensor]) -> None:
        """Add the frames of one utterance, [T, D] of each view."""
        self.folds[fold].add(views)
        self.rest.add(views)

    def cka(self) -> dict:
        """Return the linear CKA of every pair of layers, log-mel included: {"names", "matrix"}."""
        names: list[View] = [*self.layers, "mel"]
        own = {view: covariance(self.folds, view, view) for view in names}
        matrix: list[list[float | None]] = [[None] * len(names) for _ in names]
        for (i, x), (j, y) in itertools.combinations_with_replacement(enumerate(names), 2):
            parts = [self.rest] if (x, y) in self.rest.products else self.folds
            views = Joint(own[x], covariance(parts, x, y), own[y], count(self.folds))
            matrix[i][j] = matrix[j][i] = linear_cka(views)
        return {"names": [str(view) for view in names], "matrix": matrix}

    def geometry(self, layer: int) -> tuple[Figures, Tensor | None]:
        """Return the figures of a layer, and the mean of v vT over its frames v, [D, D]; None if there are too few.

        At least twice as many frames as dimensions are needed: the covariance of fewer would have too low a rank.
        """
        place = self.layers.index(layer)
        norm_mean = mean(self.folds, "norm")[place]
        norm_std = covariance(self.folds, "norm", "norm")[place, place].clamp(min=0).sqrt()
        figures: Figures = {"isoscore": None, "effective_rank": None}
        for key, value in (("norm_mean", norm_mean), ("norm_std", norm_std)):
            figures[key] = value.item() if value.isfinite() else None
        mean_D, cov_DD = mean(self.folds, layer), covariance(self.folds, layer, layer)
        if count(self.folds) < 2 * len(mean_D) or not cov_DD.isfinite().all():
            return figures, None
        square_DD = cov_DD + torch.outer(mean_D, mean_D)
        figures |= {"isoscore": isoscore(cov_DD), "effective_rank": effective_rank(cov_DD)}
        return figures, square_DD if square_DD.trace() > 0 else None


class _Segments:
    """Hold what is counted of mean-pooled segments of one kind, phones or words.

    The first pass fits k-means and counts the labels; the second counts labels by cluster and takes the moments.
    """

    def __init__(self, kind: str, layers: list[int], shift: dict[View, Tensor], clusters: int, seed: int):
        """Prepare k-means with `clusters` centres for each layer; `shift` {view: [D]} is taken from each pooled row."""
        self.kind, self.clusters = kind, clusters
        self.shift = {layer: shift[layer].float() for layer in layers}
        self.streams = {layer: Stream(clusters, seed) for layer in layers}
        self.labels: Counter[str] = Counter()

    def learn(self, views: dict[View, Tensor], segments: list[Segment]) -> None:
        """Count the labels, and add the pooled segments to k-means (first pass)."""
        pooled, labels = self._pool(views, segments)
        self.labels.update(labels)
        for layer, stream in self.streams.items():
            stream.add(pooled[layer])

    def start_second_pass(self) -> None:
        """Fix the clusters and the labels after the first pass, and allocate the counts and moments of the second."""
        self.known = {label: i for i, (label, _) in enumerate(self.labels.most_common(LABELS))}
        fitted = {layer: stream.centres() for layer, stream in self.streams.items()}
        self.centres = {k: c.to(self.shift[k].device) for k, c in fitted.items() if c is not None}
        self.streams.clear()
        device = next(iter(self.shift.values())).device
        table_KL = torch.zeros(self.clusters, len(self.known), dtype=torch.int64, device=device)
        self.counts = {layer: table_KL.clone() for layer in self.centres}
        # pooled rows are shifted already
        zero: dict[View, Tensor] = {layer: torch.zeros_like(shift_D) for layer, shift_D in self.shift.items()}
        zero["label"] = torch.zeros(len(self.known), device=device)
        pairs: list[Pair] = [("label", "label")]
        for layer in self.shift:
            pairs += [(layer, layer), (layer, "label")]
        dtype = _dtype(zero, pairs * FOLDS)
        self.folds = [Moments(zero, pairs, dtype) for _ in range(FOLDS)]

    def measure(self, fold: int, views: dict[View, Tensor], segments: list[Segment]) -> None:
        """Count segments by cluster and label, and take their moments with one-hot labels (second pass)."""
        pooled, labels = self._pool(views, [segment for segment in segments if segment[2] in self.known])
        if not labels:
            return
        ids_S = torch.tensor([self.known[label] for label in labels], device=views["mel"].device)
        for layer, centres_KD in self.centres.items():
            # one number for (cluster, label), so that a single bincount fills the table
            cell_S = assign(pooled[layer], centres_KD) * len(self.known) + ids_S
            self.counts[layer] += torch.bincount(cell_S, minlength=self.counts[layer].numel()).view_as(
                self.counts[layer]
            )
        self.folds[fold].add({**pooled, "label": torch.nn.functional.one_hot(ids_S, len(self.known))})

    def _pool(self, views: dict[View, Tensor], segments: list[Segment]) -> tuple[dict[View, Tensor], list[str]]:
        """Return {layer: mean of each segment minus the shift, [S, D]}, and S labels; empty segments are skipped."""
        frames, device = len(views["mel"]), views["mel"].device
        valid = [(first, min(end, frames), label) for first, end, label in segments if first < min(end, frames)]
        weight_ST = torch.zeros(len(valid), frames)
        for row_T, (first, end, _) in zip(weight_ST, valid, strict=True):
            row_T[first:end] = 1 / (end - first)
        weight_ST = weight_ST.to(device)
        pooled: dict[View, Tensor] = {
            layer: weight_ST @ (views[layer].float() - shift_D) for layer, shift_D in self.shift.items()
        }
        return pooled, [label for _, _, label in valid]
