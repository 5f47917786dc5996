"""Check the steps of the training loop against a hand-written update: gradients, accumulation, clipping and AdamW.

The model is linear and its gradient is written out in numpy, so that neither autograd nor torch's optimiser takes part in
what is expected. U utterances, D inputs.
"""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from hfftools.data.batch import Speech
from hfftools.data.datadir import Utterance
from hfftools.expdir import ExpDir
from hfftools.task.base import Recognition
from hfftools.train import loop, optim
from hfftools.train.config import LoopConfig

INPUTS, ACCUMULATE = 3, 2
LRS = {"fuse": 0.03, "head": 0.2}
CLIP, WEIGHT_DECAY, BETAS, EPS = 4.0, 0.1, (0.9, 0.98), 1e-8
# seconds, by utterance: at most 12 a batch, which makes batches of 1 to 6 utterances
DURATIONS_S = [10.0, 6.0, 5.9, 4.0, 3.9, 3.8, 2.0, 1.9, 1.8, 1.7, 1.6, 1.5, 11.0]
WEIGHTS, BIAS = np.array([0.5, -1.0, 2.0]), 0.7


class Line(torch.nn.Module):
    """A model of one output, x · w + b, whose loss of an utterance is the squared distance to x_0."""

    def __init__(self):
        super().__init__()
        self.w_D = torch.nn.Parameter(torch.tensor(WEIGHTS, dtype=torch.float32))
        self.b = torch.nn.Parameter(torch.tensor([BIAS], dtype=torch.float32))
        self.upstream = SimpleNamespace(name="none", hash="0", settings="")
        self.fuse = SimpleNamespace()
        self.task = SimpleNamespace(
            loss=lambda encode, batch: self.loss(batch),
            predict=lambda x_BTD, lens_B: ["word"] * len(lens_B),
            metric=Recognition.metric,
            errors=Recognition.errors,
            lower_is_better=True,
        )

    def parts(self):
        return {"upstream": [], "inserted": [], "fuse": [("w_D", self.w_D)], "head": [("b", self.b)]}

    def hold(self, held):
        assert not held

    def encode(self, batch):
        return batch.hidden[0], batch.lens_B

    def loss(self, batch, seeds=None):
        x_BD = batch.hidden[0][:, 0]
        return (x_BD @ self.w_D + self.b - x_BD[:, 0]) ** 2

    def trained_state(self):
        return {name: parameter.detach().clone() for name, parameter in self.named_parameters()}

    def load_trained(self, state, where):
        self.load_state_dict(state)


class Recorder(Speech):
    """Utterances that are kept states of one frame, and that record the batches asked of them."""

    def __init__(self, x_UD):
        utterances = [Utterance(f"utt-{n}", "ann", "", "word", duration_s=d) for n, d in enumerate(DURATIONS_S)]
        states = {utt.id: {0: x_D[None].astype(np.float32)} for utt, x_D in zip(utterances, x_UD, strict=True)}
        super().__init__(utterances, None, SimpleNamespace(read=lambda utt, layers: states[utt]), [0])
        self.orders = []

    def batches(self, order, workers=0):
        self.orders.append(order)
        return super().batches(order, workers)


def wanted(x_UD, steps):
    """Return weights, bias, and the norms of the gradients before clipping, after steps of batches of utterances."""
    values, first, second = np.append(WEIGHTS, BIAS), np.zeros(INPUTS + 1), np.zeros(INPUTS + 1)
    lr = np.array([LRS["fuse"]] * INPUTS + [LRS["head"]])
    norms, loss_sum = [], 0.0
    for number, step in enumerate(steps):
        utterances = [utt for batch in step for utt in batch]
        gradient = np.zeros(INPUTS + 1)
        for utt in utterances:
            away = x_UD[utt] @ values[:INPUTS] + values[INPUTS] - x_UD[utt, 0]
            gradient += 2 * away * np.append(x_UD[utt], 1.0)
            loss_sum += away**2
        gradient /= len(utterances)  # those of all batches of the step
        norms.append(np.sqrt((gradient**2).sum()))  # of all parameters together
        gradient *= min(1.0, CLIP / norms[-1])
        first = BETAS[0] * first + (1 - BETAS[0]) * gradient
        second = BETAS[1] * second + (1 - BETAS[1]) * gradient**2
        # the fuse keeps its rate, that of the head falls along a line after the first step
        share = np.array([1.0] * INPUTS + [min(1.0, (len(steps) - number) / (len(steps) - 1))])
        mean, square = first / (1 - BETAS[0] ** (number + 1)), second / (1 - BETAS[1] ** (number + 1))
        values = values - share * lr * (WEIGHT_DECAY * values + mean / (np.sqrt(square) + EPS))
    return values, norms, loss_sum / sum(len(batch) for step in steps for batch in step)


def test_every_step_is_one_update_by_the_mean_over_all_its_utterances(tmp_path, monkeypatch):
    x_UD = (
        np.random.default_rng(5).normal(size=(len(DURATIONS_S), INPUTS))
        * np.linspace(0.3, 2.0, len(DURATIONS_S))[:, None]
    )
    config = SimpleNamespace(
        seed=3,
        train=LoopConfig(epochs=1, accumulate=ACCUMULATE, average=1, bf16=False),
        data=SimpleNamespace(batch_seconds=12.0, workers=0),
        optim=optim.Config(
            fuse=optim.Group(lr=LRS["fuse"], schedule="constant", warmup=0.0),
            head=optim.Group(lr=LRS["head"], schedule="linear", warmup=0.0),
            weight_decay=WEIGHT_DECAY,
            clip=CLIP,
        ),
    )
    model, data = Line(), Recorder(x_UD)
    nothing = SimpleNamespace(begin=lambda: None, see=lambda: None, finish=lambda data: {})
    monkeypatch.setattr(loop, "Acting", lambda exp, model: nothing)
    job = loop.Loop(ExpDir(tmp_path / "exp"), config, model, data, Recorder(x_UD), torch.device("cpu"))
    job.run()
    [order] = data.orders
    steps = [order[start : start + ACCUMULATE] for start in range(0, len(order), ACCUMULATE)]
    sizes = [[len(batch) for batch in step] for step in steps]
    assert len(steps) >= 3 and sizes[-1] != sizes[0] and any(len(set(size)) > 1 for size in sizes), sizes
    values, norms, loss = wanted(x_UD, steps)
    assert min(norms) < CLIP < max(norms), "some steps are clipped and some are not"
    found = np.append(model.w_D.detach().numpy(), model.b.item())
    assert found == pytest.approx(values, abs=2e-5)
    [record] = job.history.records
    assert record["grad_norm"] == pytest.approx(np.mean(norms), rel=1e-4)
    assert record["loss"] == pytest.approx(loss, rel=1e-4)
