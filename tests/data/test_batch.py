"""Batches: bounded in seconds, whole, the same for the same (seed, epoch)."""

import numpy as np
import pytest
import torch

from hfftools.data import datadir
from hfftools.data.batch import Speech, plan
from hfftools.data.spec_augment import Config, spec_augment
from hfftools.text import units

DURATIONS = np.random.default_rng(0).uniform(0.5, 20, 300).tolist()


@pytest.mark.parametrize("seed", [None, 1])
def test_every_utterance_once_and_no_batch_too_long(seed):
    batches = plan(DURATIONS, 60.0, seed)
    assert sorted(i for batch in batches for i in batch) == list(range(300))
    assert max(len(b) * max(DURATIONS[i] for i in b) for b in batches) <= 60.0
    padded = sum(len(b) * max(DURATIONS[i] for i in b) for b in batches)
    assert padded < 1.25 * sum(DURATIONS), "utterances of like length go together"


def test_order_follows_from_seed_and_epoch_alone():
    assert plan(DURATIONS, 60.0, 1, 0) == plan(DURATIONS, 60.0, 1, 0)
    assert plan(DURATIONS, 60.0, 1, 0) != plan(DURATIONS, 60.0, 1, 1)
    assert plan(DURATIONS, 60.0, 1, 0) != plan(DURATIONS, 60.0, 2, 0)


def test_an_utterance_longer_than_the_bound_is_alone():
    assert [0] in plan([90.0, 5.0, 5.0], 60.0)


def test_batches_carry_true_lengths_and_targets(corpus):
    inventory = units.load(corpus / "units")
    data = Speech(datadir.read(corpus / "train"), inventory)
    for batch in data.batches(plan(data.durations_s, 10.0)):
        for row, text in enumerate(batch.texts):
            samples = batch.num_samples_B[row]
            assert not batch.wav_BN[row, samples:].any()
            assert inventory.decode(batch.targets_BL[row, : batch.target_lens_B[row]].tolist()) == text
        longest = batch.num_samples_B.max()
        assert batch.wav_BN.shape == (len(batch.ids), longest)


def test_masks_follow_the_utterance_and_not_its_batch():
    x_BTF = torch.ones(3, 40, 20)
    lens_B, seeds = torch.tensor([40, 30, 20]), [(0, 1, 5), (0, 1, 6), (0, 1, 7)]
    config = Config(time_width=0.3, channel_width=0.3)
    masked = spec_augment(x_BTF, lens_B, seeds, config)
    alone = spec_augment(x_BTF[1:2], lens_B[1:2], seeds[1:2], config)
    assert torch.equal(masked[1], alone[0])
    assert 0.2 < masked.mean() < 1.0
    assert not torch.equal(masked, spec_augment(x_BTF, lens_B, [(0, 2, s[2]) for s in seeds], config))
    assert spec_augment(x_BTF, lens_B, seeds, Config(time_masks=0, channel_masks=0)).eq(1).all()


def test_without_a_seed_the_longest_utterances_come_first():
    assert plan([1.0, 5.0, 3.0, 4.0], 5.0) == [[1], [3], [2], [0]]


def test_an_utterance_has_its_random_numbers_whatever_its_batch(corpus):
    data = Speech(datadir.read(corpus / "train"), None)
    (whole,), (part,) = data.batches([[0, 1, 2]]), data.batches([[2]])
    assert whole.random_seeds(3, 4)[2] == part.random_seeds(3, 4)[0]
    assert len(set(whole.random_seeds(3, 4))) == 3 and whole.random_seeds(3, 5)[0] != whole.random_seeds(3, 4)[0]
