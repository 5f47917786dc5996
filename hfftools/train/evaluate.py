"""Run a model over a data set: predictions and losses, or what its searches give."""

from collections.abc import Sequence
from typing import Any

import torch

from hfftools import dist
from hfftools.data.batch import Speech, plan
from hfftools.decode.search import Search
from hfftools.log import progress
from hfftools.model import Model


@torch.no_grad()
def predict(
    model: Model, data: Speech, batch_seconds: float, device: torch.device, what: str, with_loss: bool = False
) -> tuple[dict[str, Any], float]:
    """Return {utterance: prediction}, and the mean of the finite losses, which is NaN unless `with_loss`.

    Batches hold utterances of similar length. Of several processes each takes its share of the batches, and every one
    returns the whole result.
    """
    model.eval()
    order = list(dist.deal(plan(data.durations_s, batch_seconds)))
    predictions: dict[str, Any] = {}
    losses = []
    bar = progress(None, sum(map(len, order)), what)
    for batch in data.batches(order):
        batch = batch.to(device)
        encoded = model.encode(batch)
        predictions |= dict(zip(batch.ids, model.task.predict(*encoded), strict=True))
        if with_loss:
            losses.append(model.task.loss(lambda _, encoded=encoded: encoded, batch).cpu())
        bar.update(len(batch.ids))
    bar.close()
    for share in dist.collect([predictions]):
        predictions |= share
    loss_U = torch.cat([torch.tensor([]), *dist.collect(losses)])
    return predictions, loss_U[torch.isfinite(loss_U)].mean().item()


@torch.no_grad()
def recognise(
    model: Model, data: Speech, batch_seconds: float, device: torch.device, what: str, searches: Sequence[Search]
) -> list[dict[str, Any]]:
    """Return {utterance: what the task's `hypotheses` gives} for each search; the model runs once for all searches."""
    model.eval()
    by_search: list[dict[str, Any]] = [{} for _ in searches]
    bar = progress(None, len(data), what)
    for batch in data.batches(plan(data.durations_s, batch_seconds)):
        encoded = model.encode(batch.to(device))
        for readings, search in zip(by_search, searches, strict=True):
            readings |= dict(zip(batch.ids, model.task.hypotheses(*encoded, search), strict=True))
        bar.update(len(batch.ids))
    bar.close()
    return by_search
