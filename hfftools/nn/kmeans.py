"""k-means with scikit-learn: rows [N, D] in, at once or as a stream, centres [K, D] and each row's cluster out.

Also what clusters and labels share by chance, so that scikit-learn has one door.
"""

import torch
from sklearn.cluster import MiniBatchKMeans
from sklearn.metrics.cluster import expected_mutual_information
from torch import Tensor


def fit(rows_ND: Tensor, clusters: int, seed: int) -> Tensor:
    """Centres [K, D] of rows that are all in memory."""
    kmeans = MiniBatchKMeans(clusters, batch_size=10_000, n_init=5, max_no_improvement=20, random_state=seed)
    return torch.from_numpy(kmeans.fit(rows_ND.numpy()).cluster_centers_).float()


def assign(rows_ND: Tensor, centres_KD: Tensor) -> Tensor:
    """The nearest centre's number for each row, [N]."""
    return torch.cdist(rows_ND, centres_KD).argmin(1)


def chance_information(counts_KL: Tensor) -> float:
    """Expected mutual information, in nats, of unrelated clusters and labels of these sizes."""
    filled_KL = counts_KL[counts_KL.sum(1) > 0][:, counts_KL.sum(0) > 0].cpu().numpy()
    return float(expected_mutual_information(filled_KL, int(filled_KL.sum())))


class Stream:
    """Mini-batch k-means (Sculley, 2010) over rows that arrive a few at a time; holds 4 K rows and the centres.

    Every update sees exactly 4 K rows, so the centres do not depend on how the rows were batched.
    """

    def __init__(self, clusters: int, seed: int):
        self.kmeans = MiniBatchKMeans(clusters, random_state=seed)
        self.chunk_rows, self.waiting, self.waiting_rows = 4 * clusters, [], 0
        self.fitted, self.finite = False, True

    def add(self, rows_ND: Tensor) -> None:
        """Take more rows; a row that is not finite makes the whole stream void."""
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
        """Centres [K, D], on the CPU, once all rows are in; None where rows were not finite or fewer than K."""
        if self.waiting_rows and self.finite and (self.fitted or self.waiting_rows >= self.kmeans.n_clusters):
            self._update()
            self.waiting, self.waiting_rows = [], 0
        return torch.from_numpy(self.kmeans.cluster_centers_).float() if self.finite and self.fitted else None

    def _update(self) -> None:
        self.kmeans.partial_fit(torch.cat(self.waiting).numpy())
        self.fitted = True
