"""Run a model over a data set, and return its hypotheses and losses."""

from collections.abc import Sequence

import torch

from hfftools import dist
from hfftools.data.batch import Speech, plan
from hfftools.decode.hypothesis import Hypothesis
from hfftools.decode.search import Search
from hfftools.log import progress
from hfftools.model import Model


@torch.no_grad()
def transcribe(
    model: Model, data: Speech, batch_seconds: float, device: torch.device, what: str, with_loss: bool = False
) -> tuple[dict[str, str], float]:
    """Return {utterance: hypothesis}, in length-sorted batches, and the mean of the finite losses, NaN unless asked for.

    Of several processes each takes its share of the batches, and all have the whole result.
    """
    model.eval()
    order = list(dist.deal(plan(data.durations_s, batch_seconds)))
    found, losses = [], []
    bar = progress(None, sum(map(len, order)), what)
    for batch in data.batches(order):
        batch = batch.to(device)
        encoded = model.encode(batch)
        found.append(dict(zip(batch.ids, model.task.decode(*encoded), strict=True)))
        if with_loss:
            losses.append(model.task.loss(lambda _, encoded=encoded: encoded, batch).cpu())
        bar.update(len(batch.ids))
    bar.close()
    hypotheses = {utt: text for batch in dist.collect(found) for utt, text in batch.items()}
    loss_U = torch.cat([torch.tensor([]), *dist.collect(losses)])
    return hypotheses, loss_U[torch.isfinite(loss_U)].mean().item()


@torch.no_grad()
def recognise(
    model: Model, data: Speech, batch_seconds: float, device: torch.device, what: str, searches: Sequence[Search]
) -> list[dict[str, list[Hypothesis]]]:
    """For each search {utterance: its n best readings, best first}; the model runs once for all of them."""
    model.eval()
    found: list[dict[str, list[Hypothesis]]] = [{} for _ in searches]
    bar = progress(None, len(data), what)
    for batch in data.batches(plan(data.durations_s, batch_seconds)):
        encoded = model.encode(batch.to(device))
        for readings, search in zip(found, searches, strict=True):
            readings |= dict(zip(batch.ids, model.task.hypotheses(*encoded, search), strict=True))
        bar.update(len(batch.ids))
    bar.close()
    return found
