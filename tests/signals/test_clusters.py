"""K-means: quality beside scikit-learn's, exact assignment, empty clusters, state."""

from __future__ import annotations

import sys

import pytest
import torch
from sklearn.cluster import KMeans
from torch import Tensor

from conseq.signals.clusters import Clusters, k_means, nearest


def blobs(n: int, centres: int, width: int = 8, seed: int = 0) -> Tensor:
    rng = torch.Generator().manual_seed(seed)
    middle = 2 * torch.randn(centres, width, generator=rng)
    return middle[torch.randint(centres, (n,), generator=rng)] + torch.randn(n, width, generator=rng)


def inertia(points: Tensor, centroids: Tensor) -> float:
    return float(torch.cdist(points.double(), centroids.double()).square().min(1).values.sum())


def n_different(ids: Tensor) -> int:
    return len(set(ids.tolist()))


def test_the_inertia_is_that_of_scikit_learn_within_two_percent() -> None:
    points = blobs(3000, 40)
    found = inertia(points, k_means(points, 32, iterations=50, restarts=5, seed=1))
    theirs = KMeans(32, n_init=5, init="random", max_iter=50, random_state=0).fit(points.double().numpy())
    assert found == pytest.approx(float(theirs.inertia_), rel=0.02)


def test_well_separated_groups_are_found_exactly() -> None:
    corners = torch.tensor([[0.0, 0.0], [50.0, 0.0], [0.0, 50.0]])
    points = torch.cat([corner + torch.tensor([[-1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]) for corner in corners])
    found = k_means(points, 3, restarts=10, seed=0)
    expected = corners + torch.tensor([0.0, 1 / 3])
    order = nearest(expected, found)
    assert torch.allclose(found[order], expected, atol=1e-5)
    ids = nearest(points, found)
    assert ids.view(3, 3).eq(ids.view(3, 3)[:, :1]).all()
    assert n_different(ids) == 3


def test_an_assignment_is_the_nearest_centroid() -> None:
    points, centroids = blobs(500, 9), blobs(37, 5, seed=1)
    distances = torch.cdist(points.double(), centroids.double(), compute_mode="donot_use_mm_for_euclid_dist")
    assert torch.equal(nearest(points, centroids), distances.argmin(1))


def test_the_first_of_equally_near_centroids_is_taken() -> None:
    centroids = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [1.0, 0.0]])
    assert nearest(torch.tensor([[0.0, 3.0], [2.0, 0.0], [-2.0, 0.0]]), centroids).tolist() == [0, 0, 1]


def test_an_assignment_is_made_in_full_precision_under_autocast() -> None:
    points = torch.tensor([[100.0, 0.001]])
    centroids = torch.tensor([[100.0, 0.0], [100.0, 0.002001], [100.0, 0.0011]])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        low = nearest(points - torch.tensor([100.0, 0.0]), centroids - torch.tensor([100.0, 0.0]))
    assert low.tolist() == [2]


def test_a_cluster_that_nothing_is_near_to_takes_a_part_of_another() -> None:
    points = blobs(400, 12)
    start = points[:8].clone()
    start[5:] = 1e4
    assert n_different(nearest(points, start)) == 5
    assert n_different(nearest(points, k_means(points, 8, start=start))) == 8


def test_clusters_of_points_that_coincide_are_finite() -> None:
    found = k_means(torch.ones(50, 3), 8)
    assert torch.isfinite(found).all()
    assert torch.allclose(found[nearest(torch.ones(2, 3), found)], torch.ones(2, 3), atol=1e-2)


def test_the_seed_decides_the_centroids() -> None:
    points = blobs(800, 50)
    one, again, other = (k_means(points, 20, iterations=3, seed=seed) for seed in (5, 5, 6))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)


def test_every_point_is_a_cluster_where_there_are_no_more_points_than_clusters() -> None:
    points = blobs(5, 5)
    clusters = Clusters(256, 5, 8)
    clusters.fit(points, torch.Generator().manual_seed(0))
    assert len(clusters) == 5
    assert torch.allclose(clusters.centroids[clusters.ids], points)
    assert sorted(clusters.ids.tolist()) == [0, 1, 2, 3, 4]


def test_a_fit_draws_from_its_generator_only() -> None:
    points = blobs(400, 9)
    before = torch.get_rng_state()
    found = []
    for seed in (0, 0, 1):
        clusters = Clusters(7, 400, 8, iterations=2)
        clusters.fit(points, torch.Generator().manual_seed(seed))
        found.append(clusters.centroids)
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])
    assert torch.equal(torch.get_rng_state(), before)


def test_a_warm_start_goes_on_where_the_last_fit_stopped() -> None:
    points = blobs(2000, 60)
    rng = torch.Generator().manual_seed(0)
    warm = Clusters(24, 2000, 8, iterations=2, restarts=2, warm_start=True)
    warm.fit(points, rng)
    first = warm.centroids.clone()
    warm.fit(points, rng)
    assert torch.equal(warm.centroids, k_means(points, 24, iterations=4, start=first))
    assert inertia(points, warm.centroids) < inertia(points, first)


def test_a_cold_start_forgets_the_last_fit() -> None:
    points, elsewhere = blobs(300, 9), blobs(300, 9, seed=4) + 100
    one, other = Clusters(6, 300, 8), Clusters(6, 300, 8)
    other.fit(elsewhere, torch.Generator().manual_seed(8))
    for clusters in (one, other):
        clusters.fit(points, torch.Generator().manual_seed(1))
    assert torch.equal(one.centroids, other.centroids)


def test_the_state_of_a_fit_is_restored() -> None:
    points = blobs(300, 9)
    one, other = Clusters(6, 300, 8), Clusters(6, 300, 8)
    assert not one.fitted
    one.fit(points, torch.Generator().manual_seed(1))
    other.load_state_dict(one.state_dict())
    assert other.fitted
    assert torch.equal(other.centroids, one.centroids)
    assert torch.equal(other.ids, one.ids)
    assert torch.equal(one.ids, one.assign(points))


def test_no_gradient_passes_through_clusters() -> None:
    points = blobs(60, 4).requires_grad_()
    clusters = Clusters(4, 60, 8)
    clusters.fit(points, torch.Generator().manual_seed(1))
    assert not clusters.centroids.requires_grad
    assert not clusters.assign(points).requires_grad


@pytest.mark.parametrize("count", [0, 11])
def test_a_number_of_clusters_that_cannot_be_is_refused(count: int) -> None:
    with pytest.raises(ValueError, match=f"found {count} for 10 points"):
        k_means(blobs(10, 2), count)


def test_points_that_are_not_finite_are_refused() -> None:
    points = blobs(10, 2)
    points[3, 1] = float("nan")
    with pytest.raises(ValueError, match="finite"):
        k_means(points, 2)


def test_another_number_of_points_than_announced_is_refused() -> None:
    with pytest.raises(ValueError, match="expected the 9 points announced at construction, found 10"):
        Clusters(2, 9, 8).fit(blobs(10, 2), torch.Generator())


@pytest.mark.parametrize(("count", "n_points"), [(0, 5), (5, 0)])
def test_no_clusters_and_no_points_are_refused(count: int, n_points: int) -> None:
    with pytest.raises(ValueError, match=f"found {count} and {n_points}"):
        Clusters(count, n_points, 8)


def test_a_missing_faiss_is_named_with_the_command_that_brings_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(ModuleNotFoundError, match="pip install faiss-cpu"):
        k_means(blobs(10, 2), 2)
