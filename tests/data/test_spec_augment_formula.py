"""Check how often each frame and channel is masked against the probability written out, and how wide masks are.

Short utterances stand in a long padded batch: all shares and widths are those of the valid length. For SpecAugment the
notation is that of Park et al.: tau frames, T the widest time mask, F the widest channel mask, of p · tau at most.
"""

import numpy as np
import pytest
import torch

from hfftools.data.spec_augment import Config, Masking, mask_spans, spec_augment

ROWS, TAU, PADDED, WIDTH, RATE_HZ = 6000, 40, 130, 30, 50.0
SEEDS = [(7, 2, row) for row in range(ROWS)]


def spans_cover(size, widths):
    """Return the probability [size] that one span covers a place; its width and then its start are drawn evenly."""
    cover = np.zeros(size)
    for width in widths:
        for start in range(size - width + 1):
            cover[start : start + width] += 1 / len(widths) / (size - width + 1)
    return cover


def agrees(share, expected):
    """Return whether shares of ROWS draws lie within five standard errors of their probabilities."""
    error = np.sqrt(expected * (1 - expected) / ROWS)
    return bool((abs(share - expected) <= 5 * error + 1e-9).all())


def augmented(lens_B, config, rows=ROWS):
    """Return where a batch of ones [rows, PADDED, WIDTH] is masked."""
    x_BTF = torch.ones(rows, PADDED, WIDTH)
    y_BTF = spec_augment(x_BTF, lens_B, SEEDS[:rows], config)
    assert ((y_BTF == 0) | (y_BTF == x_BTF)).all()
    return (y_BTF == 0).numpy()


@pytest.mark.parametrize(("masks", "share"), [(1, 0.25), (2, 0.25), (3, 0.1)])
def test_time_masks_of_a_short_utterance_follow_its_own_length(masks, share):
    lens_B = torch.full((ROWS,), TAU)
    lens_B[0] = PADDED  # one utterance fills the batch
    config = Config(time_masks=masks, time_width=share, channel_masks=0)
    masked_BT = augmented(lens_B, config).all(2)[1:]
    assert not masked_BT[:, TAU:].any(), "padding is no place for a mask"
    one_T = spans_cover(TAU, range(int(share * TAU) + 1))
    expected_T = 1 - (1 - one_T) ** masks
    assert agrees(masked_BT[:, :TAU].mean(0), expected_T)
    assert masked_BT[:, :TAU].mean() == pytest.approx(expected_T.mean(), rel=0.05)


def test_channel_masks_are_bands_of_the_whole_utterance():
    config = Config(time_masks=0, channel_masks=2, channel_width=0.2)
    masked_BTF = augmented(torch.full((ROWS,), TAU), config)
    masked_BF = masked_BTF[:, :TAU].all(1)
    assert (masked_BTF[:, :TAU].any(1) == masked_BF).all(), "a band is masked at every frame"
    expected_F = 1 - (1 - spans_cover(WIDTH, range(int(0.2 * WIDTH) + 1))) ** 2
    assert agrees(masked_BF.mean(0), expected_F)


@pytest.mark.parametrize("length", [TAU, PADDED])
def test_widths_are_zero_to_the_limit_and_equally_frequent(length):
    """Check t from 0 to p · tau and f from 0 to F: one mask of each sort, whose width is seen as it is."""
    lens_B, limits = torch.full((ROWS,), length), (int(0.2 * length), int(0.3 * WIDTH))
    masked_BTF = augmented(lens_B, Config(1, 0.2, 1, 0.3))
    # no mask of either sort covers everything, so that a whole row or column is masked by its own sort alone
    widths = {
        "time": (masked_BTF[:, :length].all(2)).sum(1),
        "channel": (masked_BTF[:, :length].all(1)).sum(1),
    }
    for (sort, width_B), limit in zip(widths.items(), limits, strict=True):
        counts = np.bincount(width_B, minlength=limit + 1)
        assert len(counts) == limit + 1, f"{sort}: no mask is wider than {limit}"
        even = 1 / (limit + 1)
        assert agrees(counts / ROWS, np.full(limit + 1, even)), sort


def test_masks_of_one_utterance_do_not_depend_on_the_padding():
    x_TF = torch.randn(TAU, WIDTH)
    padded = torch.zeros(2, PADDED, WIDTH)
    padded[0, :TAU] = x_TF
    config = Config(3, 0.3, 2, 0.2)
    alone = spec_augment(x_TF[None], torch.tensor([TAU]), SEEDS[:1], config)
    batch = spec_augment(padded, torch.tensor([TAU, PADDED]), SEEDS[:2], config)
    assert torch.equal(batch[0, :TAU], alone[0]) and not torch.equal(alone[0], x_TF)


@pytest.mark.parametrize(("share", "span_s"), [(0.35, 0.1), (0.65, 0.16)])
def test_spans_inside_the_upstream_follow_the_valid_length(share, span_s):
    """Check wav2vec 2.0's masks: share · tau / span of them, the remainder by chance, at starts drawn evenly."""
    lens_B = torch.full((ROWS,), TAU)
    lens_B[0] = PADDED
    x_BTD, embedding_D = torch.ones(ROWS, PADDED, 4), torch.full((4,), 9.0)
    y_BTD = mask_spans(x_BTD, lens_B, SEEDS, Masking(time=share, span_s=span_s), RATE_HZ, embedding_D)
    masked_BT = (y_BTD == 9.0).all(2).numpy()[1:]
    assert not masked_BT[:, TAU:].any()
    span = round(span_s * RATE_HZ)
    free_T, number = 1 - spans_cover(TAU, [span]), share * TAU / span
    more = number - int(number)
    assert 0 < more < 1, "the number of spans is no whole number, so that its remainder counts"
    expected_T = 1 - (1 - more) * free_T ** int(number) - more * free_T ** (int(number) + 1)
    assert agrees(masked_BT[:, :TAU].mean(0), expected_T)


def test_bands_inside_the_upstream_follow_the_width():
    x_BTD, width = torch.ones(ROWS, 5, WIDTH), 6
    config = Masking(channel=0.5, band=width / WIDTH)
    y_BTD = mask_spans(x_BTD, torch.full((ROWS,), 3), SEEDS, config, RATE_HZ, None)
    masked_BD = (y_BTD == 0).all(1).numpy()
    free_D = 1 - spans_cover(WIDTH, [width])  # 2.5 bands: two or three
    assert agrees(masked_BD.mean(0), 1 - 0.5 * free_D**2 - 0.5 * free_D**3)
