"""Geometry: as the authors' code, or numpy on the raw frames, has it."""

import numpy as np
import pytest
import torch
from scipy.special import logsumexp

from hfftools.probe.isotropy import Partition, effective_rank, isoscore


@pytest.fixture
def frames_ND():
    rng = np.random.default_rng(0)
    return (rng.standard_normal((600, 12)) * np.geomspace(0.05, 4, 12) + 0.3) @ rng.standard_normal((12, 12))


def cov(frames_ND):
    return torch.as_tensor(np.cov(frames_ND.T, bias=True))


def partition(square_DD, frames_ND, batch=600):
    one = Partition(square_DD)
    for part in torch.as_tensor(frames_ND).split(batch):
        one.add(part)
    return one.ratios()


def test_isoscore_is_the_authors(frames_ND):
    authors = pytest.importorskip("IsoScore.IsoScore", reason="IsoScore comes with the extra 'dev'")
    assert isoscore(cov(frames_ND)) == pytest.approx(authors.IsoScore(frames_ND).item(), rel=1e-5)


def test_isoscore_is_the_share_of_dimensions_that_vary():
    for used in (1, 3, 8):
        assert isoscore(torch.diag((torch.arange(8) < used).double())) == pytest.approx((used - 1) / 7, abs=1e-9)


def test_effective_rank_is_that_of_the_centred_frames(frames_ND):
    sigma_D = np.linalg.svd(frames_ND - frames_ND.mean(0), compute_uv=False)
    share_D = sigma_D / sigma_D.sum()
    assert effective_rank(cov(frames_ND)) == pytest.approx(np.exp(-(share_D * np.log(share_D)).sum()), rel=1e-5)
    assert effective_rank(cov(frames_ND[:, [0, 0, 0]])) == pytest.approx(1, rel=1e-5)


def test_the_partition_function_is_summed_over_both_signs(frames_ND):
    square_DD = frames_ND.T @ frames_ND / len(frames_ND)
    axes_DD = np.linalg.eigh(square_DD)[1]
    found = partition(torch.as_tensor(square_DD), frames_ND)
    for key, scale in (("log_isotropy", 1.0), ("isotropy", 1 / np.sqrt((frames_ND**2).sum(1).mean()))):
        log_z = [logsumexp(sign * scale * frames_ND @ c) for c in axes_DD.T for sign in (1, -1)]
        ratio = min(log_z) - max(log_z)
        assert found[key] == pytest.approx(ratio if key == "log_isotropy" else np.exp(ratio), rel=1e-5)
    assert 0 < found["isotropy"] < 1 and found["log_isotropy"] < 0


def test_ratios_depend_neither_on_the_batches_nor_on_the_eigenvectors_signs(frames_ND, monkeypatch):
    square_DD = torch.as_tensor(frames_ND.T @ frames_ND / len(frames_ND))
    whole = partition(square_DD, frames_ND)
    assert partition(square_DD, frames_ND, 7) == pytest.approx(whole, rel=1e-9)
    values, axes_DD = torch.linalg.eigh(square_DD)
    flipped = torch.return_types.linalg_eigh((values, axes_DD * torch.tensor([1.0, -1.0, -1.0] * 4)))
    monkeypatch.setattr(torch.linalg, "eigh", lambda _: flipped)
    assert partition(square_DD, frames_ND) == pytest.approx(whole, rel=1e-12)


def test_isotropy_is_free_of_scale_and_large_states_do_not_overflow(frames_ND):
    square_DD = torch.as_tensor(frames_ND.T @ frames_ND / len(frames_ND))
    small, large = partition(square_DD, frames_ND), partition(square_DD * 1e8, frames_ND * 1e4)
    assert large["isotropy"] == pytest.approx(small["isotropy"], rel=1e-9)
    assert large["log_isotropy"] < -1e4


def test_frames_that_do_not_vary_or_are_not_finite_have_no_shape():
    for broken_DD in (torch.zeros(3, 3), torch.full((3, 3), torch.nan), torch.full((3, 3), torch.inf)):
        assert isoscore(broken_DD) is None and effective_rank(broken_DD) is None
    assert isoscore(torch.ones(1, 1)) is None
