"""Cluster rows [N, D] by k-means with scikit-learn, all at once or as a stream, and correct mutual information for chance.

The chance correction is here because each outside package is imported by one file only.
"""

import torch
from sklearn.cluster import MiniBatchKMeans
from sklearn.metrics.cluster import expected_mutual_information
from torch import Tensor


def fit(rows_ND: Tensor, clusters: int, seed: int) -> Tensor:
    """Return the centres [K, D] of rows that are all in memory.

    Centres start by k-means++ (Arthur and Vassilvitskii 2007): each further one is a row drawn with probability
    D(x)² / Σ D(x)², where D(x) is the distance to the nearest centre so far. The best of `n_init` starts is kept. The
    batch size is that of HuBERT's recipe (fairseq, learn_kmeans.py), which stops after 100 batches without improvement;
    this one stops after 20.
    """
    kmeans = MiniBatchKMeans(clusters, batch_size=10_000, n_init=5, max_no_improvement=20, random_state=seed)
    return torch.from_numpy(kmeans.fit(rows_ND.numpy()).cluster_centers_).float()


def assign(rows_ND: Tensor, centres_KD: Tensor) -> Tensor:
    """Return the number [N] of the centre nearest to each row."""
    return torch.cdist(rows_ND, centres_KD).argmin(1)


def chance_information(counts_KL: Tensor) -> float:
    """Return the mutual information, in nats, to be expected of unrelated clusters and labels of the same sizes.

    `counts_KL` counts the rows of each cluster and label. The expectation is over all contingency tables with these row
    and column sums (Vinh et al. 2010, "Information theoretic measures for clusterings comparison").
    """
    # empty clusters and labels add nothing to the sums, and scikit-learn takes the logarithm of their size
    filled_KL = counts_KL[counts_KL.sum(1) > 0][:, counts_KL.sum(0) > 0].cpu().numpy()
    return float(expected_mutual_information(filled_KL, int(filled_KL.sum())))


class Stream:
    """Run mini-batch k-means (Sculley 2010) over rows that arrive a few at a time; hold at most 4 K rows and the centres.

    Every update gets exactly 4 K rows, so the centres do not depend on how the rows were batched.
    """

    def __init__(self, clusters: int, seed: int):
        self.kmeans = MiniBatchKMeans(clusters, random_state=seed)
        # the first update draws K starting centres by k-means++, which needs more than K rows to choose from
        self.chunk_rows = 4 * clusters
        self.waiting: list[Tensor] = []
        self.waiting_rows = 0
        self.fitted, self.finite = False, True

    def add(self, rows_ND: Tensor) -> None:
        """Take more rows; after a row that is not finite, as of a layer that overflows, there are no centres."""
        self.finite = self.finite and bool(rows_ND.isfinite().all())
        if not self.finite:
            self.waiting = []
            return
        for part_ND in rows_ND.cpu().split(self.chunk_rows):
            room = self.chunk_rows - self.waiting_rows
            self.waiting.append(part_ND[:room])
            self.waiting_rows += len(part_ND[:room])
            if self.waiting_rows == self.chunk_rows:
                self._update()
                self.waiting, self.waiting_rows = [part_ND[room:]], len(part_ND[room:])

    def centres(self) -> Tensor | None:
        """Return the centres [K, D] on the CPU once all rows are in; None if rows were not finite or fewer than K."""
        if self.waiting_rows and self.finite and (self.fitted or self.waiting_rows >= self.kmeans.n_clusters):
            self._update()
            self.waiting, self.waiting_rows = [], 0
        return torch.from_numpy(self.kmeans.cluster_centers_).float() if self.finite and self.fitted else None

    def _update(self) -> None:
        self.kmeans.partial_fit(torch.cat(self.waiting).numpy())
        self.fitted = True
