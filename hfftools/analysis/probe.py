"""Layer-wise probing: an upstream and transcribed speech in, the error rate of a linear CTC probe on every layer out.

All probes share one frozen forward pass a batch and nothing else: each layer has its own weights, optimizer, clipping and
schedule, so its result is that of a probe trained alone.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hfftools import score
from hfftools.analysis.plot import layer_curve
from hfftools.config import compare_config, resolve, save_config
from hfftools.data import datadir
from hfftools.data.batch import Batch, Speech, plan
from hfftools.data.units import load as load_units
from hfftools.decode.greedy import greedy
from hfftools.expdir import ExpDir, check_inputs, write_aside, write_json, write_text
from hfftools.log import UserError, log, progress, require, setup_logging
from hfftools.model import choose_layers
from hfftools.nn.ctc import ctc_loss
from hfftools.nn.heads import LinearHead
from hfftools.train.checkpoint import read_state
from hfftools.train.experiment import device_of, learnable
from hfftools.train.optim import Group, shape
from hfftools.upstream.names import load_upstream, short_name


@dataclass
class Config:
    """One probing."""

    upstream: str = "hff_tiny"
    train: str = "data/train"
    dev: str = "data/dev"
    units: str = "data/units"
    features: str = ""  # folder of cached hidden states; empty: run the upstream in every epoch
    layers: Any = "all"
    epochs: int = 20
    lr: float = 3e-3
    batch_seconds: float = 60.0
    clip: float = 5.0
    seed: int = 0
    device: str = "auto"

    def __post_init__(self):
        require(self.epochs >= 1, f"epochs: {self.epochs} is below 1")
        require(min(self.lr, self.batch_seconds, self.clip) > 0, "lr, batch_seconds and clip are above 0")
        require(self.seed >= 0, f"seed: {self.seed} is below 0")


class Probes:
    """A linear head and its optimizer for each layer; a layer whose loss is not finite is dropped, the others go on."""

    def __init__(self, dims: dict[int, int], units: int, config: Any, steps: int, device: torch.device):
        self.heads, self.optimizers, self.schedules, self.clip = {}, {}, {}, config.clip
        for layer, dim in dims.items():
            torch.manual_seed(config.seed + 1000 * layer)
            self.heads[layer] = LinearHead(dim, units).to(device)
            self.optimizers[layer] = torch.optim.AdamW(self.heads[layer].parameters(), config.lr)
            shares = shape(Group(lr=config.lr), steps)
            self.schedules[layer] = torch.optim.lr_scheduler.LambdaLR(self.optimizers[layer], shares)
        self.diverged: list[int] = []

    def step(self, hidden: dict[int, Tensor], lens_B: Tensor, batch: Batch) -> dict[int, float]:
        """One update of every layer; {layer: loss per utterance}."""
        losses = {}
        for layer, head in self.heads.items():
            if layer in self.diverged:
                continue
            log_probs_BTU = head(hidden[layer], lens_B).log_softmax(-1)
            loss = ctc_loss(log_probs_BTU, lens_B, batch.targets_BL, batch.target_lens_B).mean()
            losses[layer] = loss.item()
            if not torch.isfinite(loss):
                self.diverged.append(layer)
                log.warning(f"layer {layer}: the loss is {loss.item()}; this probe is given up, the others go on")
                continue
            loss.backward()
            nn.utils.clip_grad_norm_(head.parameters(), self.clip)
            self.optimizers[layer].step()
            self.optimizers[layer].zero_grad(set_to_none=True)
            self.schedules[layer].step()
        return losses

    def state(self) -> dict:
        """Everything needed to go on."""
        kinds = {"heads": self.heads, "optimizers": self.optimizers, "schedules": self.schedules}
        return {k: {layer: v.state_dict() for layer, v in d.items()} for k, d in kinds.items()} | {
            "diverged": self.diverged
        }

    def load(self, state: dict) -> None:
        """Put back what `state` gave."""
        for kind in ("heads", "optimizers", "schedules"):
            for layer, value in getattr(self, kind).items():
                value.load_state_dict(state[kind][layer])
        self.diverged = state["diverged"]


def probe(folder: Path | None, sources: list[Path], overrides: list[str]) -> ExpDir:
    """Probe every layer; writes probe.json, table.txt and layers.png into `folder` (exp/probe_<upstream>).

    Interrupted, it goes on at the last whole epoch. Layers are compared on the dev set, never on a test set.
    """
    config = resolve(Config, sources, overrides)
    exp = ExpDir(folder or Path("exp") / f"probe_{short_name(config.upstream)}")
    compare_config(config, exp.config, may_differ=("device",))
    with exp.alone():
        _probe(exp, config)
    return exp


def _probe(exp: ExpDir, config: Any) -> None:
    device, units = device_of(config.device), load_units(Path(config.units))
    upstream = load_upstream(config.upstream).eval().to(device)
    upstream.requires_grad_(False)
    layers = choose_layers(config.layers, upstream, "layers")
    train, dev = (
        learnable(d, units, upstream, layers, config.features, d == config.train) for d in (config.train, config.dev)
    )
    inputs = {"upstream": upstream.hash, "units": units.digest}
    inputs |= {key: datadir.digest(datadir.read(config[key])) for key in ("train", "dev")}
    check_inputs(exp.inputs, inputs)
    if exp.probe.exists():
        log.info(f"{exp.probe} is there already")
        return
    save_config(config, exp.config)
    write_json(exp.inputs, inputs)
    setup_logging(exp.log)

    def hidden(batch: Batch) -> tuple[dict[int, Tensor], Tensor]:
        if batch.hidden is not None:
            return batch.hidden, batch.lens_B
        with torch.no_grad():
            return upstream(batch.wav_BN, batch.num_samples_B, layers)

    orders = [plan(train.durations_s, config.batch_seconds, config.seed, epoch) for epoch in range(config.epochs)]
    dims = {layer: upstream.dims[layer] for layer in layers}
    probes = Probes(dims, len(units), config, sum(map(len, orders)), device)
    first = 0
    if exp.state.exists():
        state = read_state(exp.state)
        probes.load(state["probes"])
        first = state["epoch"]
        log.info(f"going on at epoch {first + 1}")
    bar = progress(None, sum(map(len, orders)), f"probing {len(layers)} layers of {upstream.name}", "batch")
    bar.update(sum(map(len, orders[:first])))
    for epoch in range(first, config.epochs):
        for batch in train.batches(orders[epoch], workers=1):
            batch = batch.to(device)
            losses = probes.step(*hidden(batch), batch)
            bar.update()
            bar.set_postfix_str(f"best loss {min(losses.values()):.2f}" if losses else "all diverged", refresh=False)
        if len(probes.diverged) == len(layers):
            raise UserError(f"{exp.root}: every layer's probe diverged; lower lr (now {config.lr}) in a fresh folder")
        with write_aside(exp.state) as aside:
            torch.save({"epoch": epoch + 1, "probes": probes.state()}, aside)
    bar.close()
    rows = _score(probes, dev, hidden, units, config, device)
    _write(exp, config, upstream.name, rows)
    write_json(exp.probe, {"upstream": upstream.name, "hash": upstream.hash, "dev": config.dev, "layers": rows})


@torch.no_grad()
def _score(probes: Probes, dev: Speech, hidden: Any, units: Any, config: Any, device: torch.device) -> list[dict]:
    texts: dict[int, dict[str, str]] = {layer: {} for layer in probes.heads}
    for batch in dev.batches(plan(dev.durations_s, config.batch_seconds)):
        states, lens_B = hidden(batch.to(device))
        for layer, head in probes.heads.items():
            ids = greedy(head(states[layer], lens_B), lens_B)
            texts[layer] |= {utt: units.decode(i) for utt, i in zip(batch.ids, ids, strict=True)}
    references = [u.text for u in dev.utterances]
    rows = []
    for layer, found in texts.items():
        hypotheses = [found[u.id] for u in dev.utterances]
        row = {"layer": layer, "wer": score.wer(references, hypotheses), "cer": score.cer(references, hypotheses)}
        rows.append(row | {"diverged": layer in probes.diverged})
    return rows


def _write(exp: ExpDir, config: Any, name: str, rows: list[dict]) -> None:
    best = min(rows, key=lambda r: r["wer"])
    lines = [
        f"Linear CTC probe of {name}: trained on {config.train}, scored on {config.dev}",
        "",
        "layer    WER    CER",
    ]
    for row in rows:
        mark = "  diverged" if row["diverged"] else "  best" if row is best else ""
        lines.append(f"{row['layer']:5d} {100 * row['wer']:6.1f} {100 * row['cer']:6.1f}{mark}")
    write_text(exp.table, "\n".join(lines) + "\n")
    curves = {key.upper(): {r["layer"]: 100 * r[key] for r in rows} for key in ("wer", "cer")}
    layer_curve(exp.layers_image, f"Linear CTC probe of {name} on {config.dev}", curves)
