"""Similarity and moments: as independent implementations on raw rows have it, blind to batches, deaf to noise."""

import numpy as np
import pytest
import torch
from scipy.linalg import subspace_angles
from sklearn.metrics import mutual_info_score
from sklearn.metrics.cluster import expected_mutual_information

from hfftools.nn.kmeans import Stream, assign
from hfftools.probe.covariance import Moments, covariance, joint, mean
from hfftools.probe.similarity import (
    directions,
    linear_cka,
    mutual_information,
    normalised_information,
    pwcca,
    pwcca_of_folds,
)

UNREGULARISED = [(0.0, 0.0)]


def drawn(rows, width, other_width, seed=0):
    """Two views with a common part, the dimensions of the first of very different sizes."""
    rng = np.random.default_rng(seed)
    common = rng.standard_normal((rows, 6))
    x_ND, y_NE = (
        common @ rng.standard_normal((6, w)) + 2 * rng.standard_normal((rows, w)) for w in (width, other_width)
    )
    return x_ND * np.geomspace(0.1, 30, width), y_NE + 5


def moments(x_ND, y_NE, parts=1, dtype=torch.float64):
    """The rows' moments, in as many folds as `parts`."""
    x_ND, y_NE = torch.as_tensor(x_ND), torch.as_tensor(y_NE)
    pairs = [("x", "x"), ("x", "y"), ("y", "y")]
    folds = [Moments({"x": x_ND[:20].mean(0), "y": y_NE[:20].mean(0)}, pairs, dtype) for _ in range(parts)]
    for fold, a, b in zip(folds, x_ND.chunk(parts), y_NE.chunk(parts), strict=True):
        for rows in zip(a.split(97), b.split(97), strict=True):
            fold.add(dict(zip("xy", rows, strict=True)))
    return folds


def views(x_ND, y_NE):
    return joint(moments(x_ND, y_NE), "x", "y")


def morcos(x_ND, y_NE):
    """PWCCA on raw rows, weighted by what the variates say about x (Morcos et al., 2018)."""
    x_ND, y_NE = x_ND - x_ND.mean(0), y_NE - y_NE.mean(0)
    q_x, q_y = np.linalg.qr(x_ND)[0], np.linalg.qr(y_NE)[0]
    u, rho_K, _ = np.linalg.svd(q_x.T @ q_y, full_matrices=False)
    weight_K = np.abs((q_x @ u).T @ x_ND).sum(1)
    return (weight_K * rho_K).sum() / weight_K.sum()


def test_moments_are_those_of_the_rows_however_they_come():
    x_ND, y_NE = drawn(1000, 7, 4)
    whole = np.cov(x_ND.T, y_NE.T, bias=True)
    for parts in (1, 4):
        folds = moments(x_ND, y_NE, parts)
        np.testing.assert_allclose(mean(folds, "x"), x_ND.mean(0), rtol=1e-9)
        np.testing.assert_allclose(covariance(folds, "x", "x"), whole[:7, :7], rtol=1e-9)
        np.testing.assert_allclose(covariance(folds, "y", "x"), whole[7:, :7], rtol=1e-9)
    with pytest.raises(KeyError):
        covariance(folds, "x", "z")


def test_small_variances_survive_large_means_even_in_float32():
    rng = np.random.default_rng(0)
    x_ND = (1e4 + 0.1 * rng.standard_normal((5000, 5))).astype(np.float32)
    expected = np.cov(x_ND.T.astype(np.float64), bias=True)
    for dtype in (torch.float64, torch.float32):
        found = covariance(moments(x_ND, x_ND, dtype=dtype), "x", "x").numpy()
        assert np.abs(found - expected).max() < 1e-5 * expected.max()


def test_cka_is_the_ratio_of_gram_matrices():
    x_ND, y_NE = drawn(400, 9, 5)
    centre = np.eye(400) - 1 / 400
    k_NN, l_NN = (centre @ v @ v.T @ centre for v in (x_ND, y_NE))
    hsic = np.trace(k_NN @ l_NN) / np.sqrt(np.trace(k_NN @ k_NN) * np.trace(l_NN @ l_NN))
    assert linear_cka(views(x_ND, y_NE)) == pytest.approx(hsic, rel=1e-5)
    turn = np.linalg.qr(np.random.default_rng(1).standard_normal((9, 9)))[0]
    assert linear_cka(views(x_ND, 3 * x_ND @ turn - 8)) == pytest.approx(1)
    assert linear_cka(views(x_ND[:17], y_NE[:17])) is None


@pytest.mark.parametrize("widths", [(6, 6), (5, 9)])
def test_pwcca_without_ridge_and_splits_is_that_of_morcos(widths):
    x_ND, y_NE = drawn(500, *widths)
    both = views(x_ND, y_NE)
    assert pwcca(both, both, both, UNREGULARISED) == pytest.approx(morcos(x_ND, y_NE), rel=1e-5)
    swapped = views(y_NE, x_ND)
    other = morcos(x_ND, y_NE) if widths[0] != widths[1] else morcos(y_NE, x_ND)  # the narrower weighs; else the first
    assert pwcca(swapped, swapped, swapped, UNREGULARISED) == pytest.approx(other, rel=1e-5)


def test_canonical_correlations_are_those_of_the_subspaces():
    x_ND, y_NE = drawn(500, 8, 5)
    both = views(x_ND, y_NE)
    [(a_DK, b_EK)] = directions(both, UNREGULARISED)
    found_K = (a_DK * (both.xy_DE @ b_EK)).sum(0).numpy()
    angles = subspace_angles(x_ND - x_ND.mean(0), y_NE - y_NE.mean(0))
    np.testing.assert_allclose(found_K, np.cos(angles)[::-1], rtol=1e-5)
    np.testing.assert_allclose(a_DK.T @ both.xx_DD @ a_DK, np.eye(5), atol=1e-9)


def test_pwcca_to_itself_is_one_and_to_noise_nearly_nothing():
    x_ND, _ = drawn(2000, 20, 1)
    mixed = x_ND @ np.random.default_rng(1).standard_normal((20, 20))
    noise = np.random.default_rng(2).standard_normal((2000, 20))
    assert pwcca_of_folds(moments(x_ND, x_ND, 4), "x", "y") == pytest.approx(1)
    assert pwcca_of_folds(moments(x_ND, mixed, 4), "x", "y") > 0.99
    assert abs(pwcca_of_folds(moments(x_ND, noise, 4), "x", "y")) < 0.03
    assert morcos(x_ND, noise) > 0.08  # what the splits are for


def test_too_few_rows_and_views_that_do_not_vary_are_none_and_never_nan():
    x_ND, y_NE = drawn(400, 20, 5)
    assert pwcca_of_folds(moments(x_ND[:39], y_NE[:39], 4), "x", "y") is None
    assert pwcca_of_folds(moments(x_ND[:40], y_NE[:40], 4), "x", "y") is not None
    flat = np.full_like(y_NE, 3.7, dtype=np.float32)
    assert linear_cka(views(x_ND, flat)) is None and pwcca_of_folds(moments(x_ND, flat, 4), "x", "y") is None
    assert linear_cka(views(x_ND, y_NE * np.nan)) is None
    assert pwcca_of_folds(moments(x_ND, y_NE * np.nan, 4), "x", "y") is None


def test_constant_and_repeated_dimensions_change_nothing():
    x_ND, y_NE = drawn(400, 6, 4)
    more = np.concatenate([x_ND, x_ND[:, :3] @ np.ones((3, 1)), np.full((400, 1), 9.0)], 1)
    plain, full = views(x_ND, y_NE), views(more, y_NE)
    expected = pwcca(plain, plain, plain, UNREGULARISED)
    assert pwcca(full, full, full, UNREGULARISED) == pytest.approx(expected, rel=1e-5)
    labels = np.eye(5)[np.random.default_rng(0).integers(0, 5, 400)]  # they sum to one, so their covariance is singular
    labels[:, 4] *= np.arange(400) < 100  # and one is in one fold only
    assert abs(pwcca_of_folds(moments(x_ND, labels, 4), "x", "y")) < 0.2


def test_mutual_information_is_that_of_sklearn():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 8, 4000)
    clusters = np.where(rng.random(4000) < 0.6, labels, rng.integers(0, 12, 4000))
    counts_KL = torch.zeros(12, 9, dtype=torch.int64)  # one label is in no cluster
    counts_KL.index_put_((torch.as_tensor(clusters), torch.as_tensor(labels)), torch.tensor(1), accumulate=True)
    nats = mutual_info_score(labels, clusters)
    assert mutual_information(counts_KL) == pytest.approx(nats, rel=1e-5)
    kept = counts_KL[:, counts_KL.sum(0) > 0].numpy()
    chance, entropy = expected_mutual_information(kept, 4000), mutual_info_score(labels, labels)
    assert normalised_information(counts_KL) == pytest.approx((nats - chance) / (entropy - chance), rel=1e-5)
    assert normalised_information(counts_KL) == pytest.approx(nats / entropy, rel=0.02)  # PNMI, with so many segments
    assert normalised_information(torch.eye(8, dtype=torch.int64) * 50) == pytest.approx(1)


def test_chance_explains_nothing_and_too_few_segments_are_none():
    assert mutual_information(torch.zeros(3, 3)) is None
    assert normalised_information(torch.eye(8, dtype=torch.int64)) is None  # one segment a cluster
    assert normalised_information(torch.full((4, 1), 50)) is None  # one label
    noise_KL = torch.as_tensor(np.random.default_rng(0).multinomial(2000, np.full(4000, 1 / 4000)).reshape(100, 40))
    assert mutual_information(noise_KL) > 0.5 and abs(normalised_information(noise_KL)) < 0.02


def test_streamed_clusters_do_not_depend_on_the_batches():
    generator = torch.Generator().manual_seed(0)
    rows_ND = torch.randn(500, 3, generator=generator) + 10 * torch.randint(0, 4, (500, 1), generator=generator)
    found = []
    for batch in (500, 7):
        stream = Stream(4, 0)
        for part in rows_ND.split(batch):
            stream.add(part)
        found.append(stream.centres())
    assert torch.equal(*found) and len(assign(rows_ND, found[0]).unique()) == 4
    few, broken = Stream(4, 0), Stream(4, 0)
    few.add(rows_ND[:3])
    broken.add(rows_ND)
    broken.add(rows_ND[:1] * torch.nan)
    assert few.centres() is None and broken.centres() is None
