"""Greedy decoding: repeats merged, blanks dropped, nothing read beyond the valid length."""

import torch

from hfftools.decode.greedy import greedy


def test_repeats_blanks_and_lengths():
    paths = [[0, 1, 1, 0, 1, 2, 2, 0], [3, 3, 0, 0, 3, 1, 1, 1]]
    log_probs = torch.nn.functional.one_hot(torch.tensor(paths), 4).float().log()
    assert greedy(log_probs, torch.tensor([8, 4])) == [[1, 1, 2], [3]]
    assert greedy(log_probs, torch.tensor([1, 0])) == [[], []]
