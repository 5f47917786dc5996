"""A model and a data set in, hypotheses and losses out."""

import torch

from hfftools.data.batch import Speech, plan
from hfftools.log import progress
from hfftools.model import Model


@torch.no_grad()
def transcribe(model: Model, data: Speech, batch_seconds: float, device: torch.device, what: str) -> dict[str, str]:
    """{utterance: hypothesis}, in length-sorted batches."""
    model.eval()
    hypotheses = {}
    order = plan(data.durations_s, batch_seconds)
    bar = progress(None, len(data), what)
    for batch in data.batches(order):
        hypotheses |= dict(zip(batch.ids, model.decode(batch.to(device)), strict=True))
        bar.update(len(batch.ids))
    bar.close()
    return hypotheses


@torch.no_grad()
def mean_loss(model: Model, data: Speech, batch_seconds: float, device: torch.device) -> float:
    """The task's loss, averaged over utterances."""
    model.eval()
    losses = [model.loss(b.to(device)).cpu() for b in data.batches(plan(data.durations_s, batch_seconds))]
    return torch.cat(losses).mean().item()
