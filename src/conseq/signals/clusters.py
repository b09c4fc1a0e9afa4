"""K-means of representations: ICLRec's latent intents (Chen et al., WWW 2022, section 4.1.2)."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn


class Clusters(nn.Module):
    """The centroids of K-means over a fixed number of points, and the cluster of each point.

    Everything is a buffer whose size never changes, so that a checkpoint holds it and a run resumed between two
    fits goes on with the same clusters.

    Args:
        count: K. Where there are fewer points, every point is a cluster of its own.
        n_points: Points that are clustered, at least 1.
        width: ``D``.
        iterations: Rounds of assignment and averaging of one run.
        restarts: Runs from different random points; the one with the smallest inertia is kept.
        warm_start: Whether a later fit goes on from the centroids of the one before, for as many rounds as all
            runs together have; the first fit starts from random points.

    Attributes:
        centroids: float32 ``[K, D]``, zero before the first fit.
        ids: int64 ``[n_points]``, the cluster of each point at the last fit.

    Raises:
        ValueError: if ``count`` or ``n_points`` is less than 1.
    """

    centroids: Tensor
    ids: Tensor
    _fitted: Tensor

    def __init__(
        self,
        count: int,
        n_points: int,
        width: int,
        *,
        iterations: int = 20,
        restarts: int = 1,
        warm_start: bool = False,
    ) -> None:
        super().__init__()
        if count < 1 or n_points < 1:
            raise ValueError(f"K-means needs at least one cluster and one point, found {count} and {n_points}")
        self.iterations = iterations
        self.restarts = restarts
        self.warm_start = warm_start
        self.register_buffer("centroids", torch.zeros(min(count, n_points), width))
        self.register_buffer("ids", torch.zeros(n_points, dtype=torch.int64))
        self.register_buffer("_fitted", torch.tensor(False))

    def __len__(self) -> int:
        return len(self.centroids)

    @property
    def fitted(self) -> bool:
        """Whether there are clusters yet. Waits for the device."""
        return bool(self._fitted)

    @torch.no_grad()
    def fit(self, points: Tensor, rng: torch.Generator) -> None:
        """Clusters ``points`` anew.

        Args:
            points: float ``[n_points, D]``.
            rng: Of the random starts, on the CPU.

        Raises:
            ValueError: if the number of points is another one than was announced.
        """
        if len(points) != len(self.ids):
            raise ValueError(f"expected the {len(self.ids)} points announced at construction, found {len(points)}")
        seed = int(torch.randint(2**31 - 1, (), generator=rng))
        if self.warm_start and self.fitted:
            rounds = self.iterations * self.restarts
            found = k_means(points, len(self), iterations=rounds, start=self.centroids)
        else:
            found = k_means(points, len(self), iterations=self.iterations, restarts=self.restarts, seed=seed)
        self.centroids.copy_(found)
        self.ids.copy_(nearest(points, self.centroids))
        self._fitted.fill_(True)

    def assign(self, points: Tensor) -> Tensor:
        """Gives the cluster whose centroid is nearest to each of ``points`` (float ``[n, D]``), int64 ``[n]``."""
        return nearest(points, self.centroids)


def k_means(
    points: Tensor,
    count: int,
    *,
    iterations: int = 20,
    restarts: int = 1,
    seed: int = 0,
    start: Tensor | None = None,
) -> Tensor:
    r"""Gives centroids that minimise :math:`\sum_i \min_k \|x_i - c_k\|^2` as far as Lloyd's algorithm goes.

    Computed by faiss on the CPU, in float32 and on all points. A cluster that loses its last point takes a part
    of a large one; it may stay empty where points coincide, and then nothing is assigned to it. The same
    points, seed and number of threads give the same centroids.

    Args:
        points: float ``[n, D]``, finite.
        count: K, at most n.
        iterations: Rounds of assignment and averaging.
        restarts: Random starts; the best is kept.
        seed: Of the random starts.
        start: float ``[K, D]``, centroids to start from instead of random points; then there is one start.

    Returns:
        float32 ``[K, D]``, on the device of ``points``.

    Raises:
        ModuleNotFoundError: if faiss is not installed.
        ValueError: if there are fewer points than clusters, or a point is not finite.
    """
    if not 1 <= count <= len(points):
        raise ValueError(f"K-means makes from 1 to as many clusters as points; found {count} for {len(points)} points")
    if not torch.isfinite(points).all():
        raise ValueError("K-means needs finite points; the representations hold an infinity or a NaN")
    rows = np.ascontiguousarray(points.detach().to("cpu", torch.float32).numpy())
    clustering = _faiss().Kmeans(
        rows.shape[1],
        count,
        niter=iterations,
        nredo=restarts if start is None else 1,
        seed=seed,
        # faiss samples the points, or warns, beyond these bounds; neither is wanted.
        max_points_per_centroid=len(rows),
        min_points_per_centroid=1,
    )
    first = None if start is None else np.ascontiguousarray(start.detach().to("cpu", torch.float32).numpy())
    clustering.train(rows, init_centroids=first)
    return torch.from_numpy(clustering.centroids).to(points.device)


def nearest(points: Tensor, centroids: Tensor) -> Tensor:
    """Gives the row of the nearest centroid (Euclidean), the first one where several are equally near.

    Args:
        points: float ``[n, D]``.
        centroids: float ``[K, D]``.

    Returns:
        int64 ``[n]``.
    """
    with torch.no_grad(), torch.autocast(points.device.type, enabled=False):
        points, centroids = points.float(), centroids.float()
        # |x|^2 is the same for all centroids of a point.
        return torch.addmm(centroids.square().sum(1), points, centroids.T, alpha=-2).argmin(1)


def _faiss() -> Any:
    try:
        import faiss  # noqa: PLC0415  (an extra, and slow to import)
    except ModuleNotFoundError:
        raise ModuleNotFoundError("K-means needs faiss: pip install faiss-cpu") from None
    return faiss
