"""Layer statistics: padding and batches change nothing, a broken layer spoils no other, and memory does not grow."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from hfftools.log import UserError
from hfftools.probe import layer_statistics as module
from hfftools.probe.layer_statistics import measure_layers
from hfftools.probe.state_batch import StateBatch

LAYERS, WIDTHS = [0, 2, 5], {0: 8, 2: 12, 5: 12}
OPTIONS = {"clusters": 6, "seed": 0}


def looks(utterances=40, batch=5, seed=0):
    """Batches of utterances whose layers hold, more and more, the phone of the frame instead of its log-mel."""
    rng = np.random.default_rng(seed)
    codes = rng.standard_normal((5, 12))
    found = []
    for utt in range(utterances):
        phones = [(at, at + 4, f"p{rng.integers(5)}") for at in range(0, 40, 4)]
        frames = len(phones) * 4 + utt % 3
        mel = rng.standard_normal((frames, 10))
        phone = np.zeros((frames, 12))
        for first, end, label in phones:
            phone[first:end] = codes[int(label[1:])]
        mixed = np.concatenate([mel, mel[:, :2]], 1)
        hidden = {
            layer: (share * phone + (1 - share) * mixed + 0.3 * rng.standard_normal((frames, 12)))[:, : WIDTHS[layer]]
            + 2
            for layer, share in zip(LAYERS, (0, 0.5, 1), strict=True)
        }
        words = [(0, 20, f"w{utt % 3}"), (20, 40, f"w{utt % 2}"), (40, 40, "empty"), (90, 95, "beyond")]
        found.append((f"utt{utt}", hidden, mel, phones, words))
    return [pad(found[i : i + batch]) for i in range(0, utterances, batch)]


def pad(utterances, garbage=0.0):
    lens = [len(mel) for _, _, mel, _, _ in utterances]

    def padded(arrays):
        rows = [np.pad(a, ((0, max(lens) - len(a) + 3), (0, 0)), constant_values=garbage) for a in arrays]
        return torch.tensor(np.stack(rows), dtype=torch.float32)

    ids, hidden, mel, phones, words = zip(*utterances, strict=True)
    states = {layer: padded([h[layer] for h in hidden]) for layer in LAYERS}
    return StateBatch(list(ids), states, torch.tensor(lens), padded(mel), list(phones), list(words))


def figures(batches, what=("similarity", "geometry")):
    return measure_layers(lambda: iter(batches), LAYERS, what, **OPTIONS)


def assert_alike(rows, others, rel=1e-5):
    """The same figures; None is as None only."""
    for row, other in zip(rows, others, strict=True):
        assert set(row) == set(other)
        np.testing.assert_allclose(*(np.array([r[key] for key in row], dtype=float) for r in (row, other)), rtol=rel)


def cka(found):
    return np.array(found[1]["cka"]["matrix"], dtype=float)


@pytest.fixture(scope="module")
def plain():
    return figures(looks())


def test_layers_are_distinguished(plain):
    rows, more = plain
    assert [row["layer"] for row in rows] == LAYERS and json.loads(json.dumps(plain)) == [rows, more]
    low, middle, high = rows
    for key in ("cka_mel", "pwcca_mel", "pwcca_first"):
        assert low[key] > middle[key] > high[key]
    for key in ("pwcca_phone", "mi_phone"):
        assert low[key] < middle[key] < high[key] <= 1
    assert low["pwcca_first"] == pytest.approx(1) and low["pwcca_phone"] < 0.1 and high["mi_phone"] > 0.9
    cka_VV = cka(plain)
    assert more["cka"]["names"] == ["0", "2", "5", "mel"] and cka_VV[1, 3] == middle["cka_mel"]
    assert np.allclose(cka_VV, cka_VV.T) and np.allclose(np.diag(cka_VV), 1)
    assert (more["frames"], more["phone_segments"], more["word_segments"]) == (40 * 40 + 39, 400, 80)


def test_figures_are_those_of_the_frames(plain):
    frames_ND = torch.cat([h[:n] for look in looks() for h, n in zip(look.hidden[2], look.lens_B, strict=True)]).numpy()
    norms = np.linalg.norm(frames_ND, axis=1)
    row = plain[0][1]
    assert (row["norm_mean"], row["norm_std"]) == pytest.approx((norms.mean(), norms.std()), rel=1e-5)
    sigma = np.linalg.svd(frames_ND - frames_ND.mean(0), compute_uv=False)
    share = sigma / sigma.sum()
    assert row["effective_rank"] == pytest.approx(np.exp(-(share * np.log(share)).sum()), rel=1e-5)
    along = frames_ND @ np.linalg.eigh(frames_ND.T @ frames_ND)[1]
    z = np.exp(np.concatenate([along, -along], 1) / np.sqrt((norms**2).mean())).sum(0)
    assert row["isotropy"] == pytest.approx(z.min() / z.max(), rel=1e-4)


def test_neither_batches_nor_padding_change_a_figure(plain):
    found = figures(looks(batch=40))
    assert_alike(found[0], plain[0])
    np.testing.assert_allclose(cka(found), cka(plain))
    dirty = []
    for look in looks():
        beyond = torch.arange(look.mel_BTM.shape[1]) >= look.lens_B[:, None]
        for states_BTD in (*look.hidden.values(), look.mel_BTM):
            states_BTD[beyond] = torch.nan
        dirty.append(look)
    assert figures(dirty) == plain


def test_float32_sums_do_as_well(plain, monkeypatch):
    monkeypatch.setattr(module, "MOST_BYTES", 0)
    found = figures(looks())
    assert found[0] != plain[0]
    assert_alike(found[0], plain[0], rel=1e-4)
    np.testing.assert_allclose(cka(found), cka(plain), rtol=1e-4)


def test_large_means_do_not_spoil_a_figure(plain):
    """Only what is not centred, norms and the partition function, moves with the mean."""
    shifted = [replace(look, hidden={k: (h * 64 + 1e4) for k, h in look.hidden.items()}) for look in looks()]
    rows, _ = figures(shifted)
    centred = ("cka_mel", "pwcca_mel", "pwcca_first", "pwcca_phone", "mi_phone", "isoscore", "effective_rank")
    for row, other in zip(rows, plain[0], strict=True):
        assert [row[key] for key in centred] == pytest.approx([other[key] for key in centred], rel=2e-3)


@pytest.mark.parametrize("broken", [torch.nan, torch.inf])
def test_a_layer_that_is_not_finite_spoils_no_other(plain, broken):
    for place in (0, -1):  # in the first batch, whose mean is the shift, and in the last
        batches = looks()
        batches[place].hidden[2][1, 3, 4] = broken
        found = figures(batches)
        assert_alike(found[0][::2], plain[0][::2], rel=1e-9)
        assert found[0][1] == {**dict.fromkeys(plain[0][1]), "layer": 2}
        others = np.ix_([0, 2, 3], [0, 2, 3])
        np.testing.assert_allclose(cka(found)[others], cka(plain)[others])
        assert found[1]["cka"]["matrix"][1] == [None] * 4


def test_only_what_is_asked_for_and_aligned_is_there():
    bare = [replace(look, phones=None, words=None) for look in looks()]
    geometry = {"layer", "isotropy", "log_isotropy", "isoscore", "effective_rank", "norm_mean", "norm_std"}
    rows, more = figures(looks(), ["geometry"])
    assert set(rows[0]) == geometry and set(more) == {"frames"}
    rows, more = figures(bare, ["similarity"])
    assert set(rows[0]) == {"layer", "cka_mel", "pwcca_mel", "pwcca_first"} and set(more) == {"frames", "cka"}
    with pytest.raises(UserError, match="did you mean geometry"):
        figures(bare, ["geometrie"])
    with pytest.raises(UserError, match="no frames"):
        figures([replace(look, lens_B=look.lens_B * 0) for look in bare])


def test_too_few_frames_give_none():
    rows, _ = figures(looks(utterances=1))
    assert rows[2]["effective_rank"] is not None and rows[2]["pwcca_mel"] is None and rows[2]["mi_word"] is None


def test_memory_does_not_grow_with_the_frames(monkeypatch):
    sizes, real = [], module.Moments
    made = []

    def remember(*args):
        made.append(real(*args))
        return made[-1]

    monkeypatch.setattr(module, "Moments", remember)
    for batches in (looks(5), looks(100)):
        figures(batches)
        sizes.append(sum(one.num_bytes for one in made))
        made.clear()
    assert sizes[0] == sizes[1] > 0
