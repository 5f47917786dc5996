"""Check that the dev loss is the mean over utterances, without those whose loss is infinite."""

from types import SimpleNamespace

import pytest
import torch

from hfftools.train import evaluate


def test_the_loss_is_the_mean_of_the_finite_losses_of_utterances():
    losses = {"a": 1.0, "b": float("inf"), "c": 6.0, "d": 2.0}
    batches = [["a", "b", "c"], ["d"]]  # the mean of the batches' means would be another

    def loss(encode, batch):
        return torch.tensor([losses[utt] for utt in batch.ids])

    def batch_of(ids):
        batch = SimpleNamespace(ids=ids)
        batch.to = lambda device: batch
        return batch

    task = SimpleNamespace(predict=lambda x, lens: [str(n) for n in range(x)], loss=loss)
    model = SimpleNamespace(eval=lambda: None, encode=lambda batch: (len(batch.ids), None), task=task)
    data = SimpleNamespace(durations_s=[1.0] * 4, batches=lambda order: map(batch_of, batches))
    found, mean = evaluate.predict(model, data, 10.0, torch.device("cpu"), "dev", with_loss=True)
    assert found == {"a": "0", "b": "1", "c": "2", "d": "0"} and mean == pytest.approx(3.0)
