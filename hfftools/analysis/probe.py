"""Layer-wise probing: an upstream and transcribed speech in, the error rate of a linear CTC probe on every layer out.

All probes share one frozen forward pass a batch and nothing else: each layer has its own weights, optimizer, clipping and
schedule, so its result is that of a probe trained alone.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from hfftools import score
from hfftools.analysis.plot import layer_curve
from hfftools.config import resolve, save_config
from hfftools.data import datadir
from hfftools.data.ark import HiddenCache
from hfftools.data.batch import Batch, Speech, plan
from hfftools.data.units import load as load_units
from hfftools.decode.greedy import greedy
from hfftools.expdir import write_aside, write_json, write_text
from hfftools.log import UserError, log, progress
from hfftools.model import choose_layers
from hfftools.nn.heads import LinearHead
from hfftools.train.experiment import device_of
from hfftools.train.optim import Group, shape
from hfftools.upstream.names import load_upstream


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


class Probes:
    """A linear head and its optimizer for each layer; a layer whose loss is not finite is dropped, the others go on."""

    def __init__(self, layers: list[int], dim: int, units: int, config: Any, steps: int, device: torch.device):
        self.heads, self.optimizers, self.schedules, self.clip = {}, {}, {}, config.clip
        for layer in layers:
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
            log_probs_TBU = head(hidden[layer], lens_B).log_softmax(-1).transpose(0, 1)
            loss = nn.functional.ctc_loss(
                log_probs_TBU, batch.targets_BL, lens_B, batch.target_lens_B, reduction="sum", zero_infinity=True
            ) / len(batch.ids)
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


def probe(folder: Path, sources: list[Path], overrides: list[str]) -> list[dict]:
    """Probe every layer; writes probe.json, table.txt and layers.png into `folder`; one row a layer.

    Interrupted, it goes on at the last whole epoch. Layers are compared on the dev set, never on a test set.
    """
    config = resolve(Config, sources, overrides)
    save_config(config, folder / "config.yaml", may_differ=("device",))
    result_file = folder / "probe.json"
    if result_file.exists():
        log.info(f"{result_file} is there already")
        return json.loads(result_file.read_text())["layers"]
    device = device_of(config.device)
    units = load_units(Path(config.units))
    upstream = load_upstream(config.upstream).eval().to(device)
    upstream.requires_grad_(False)
    layers = choose_layers(config.layers, upstream)

    def speech(directory: str) -> Speech:
        utterances = datadir.read(directory)
        cache = HiddenCache(config.features, Path(directory).name) if config.features else None
        if cache is not None:
            cache.check(upstream.hash, layers, [u.id for u in utterances])
        return Speech(utterances, units, cache, layers)

    def hidden(batch: Batch) -> tuple[dict[int, Tensor], Tensor]:
        if batch.hidden is not None:
            return batch.hidden, batch.lens_B
        with torch.no_grad():
            return upstream(batch.wav_BN, batch.num_samples_B, layers)

    train, dev = speech(config.train), speech(config.dev)
    orders = [plan(train.durations_s, config.batch_seconds, config.seed, epoch) for epoch in range(config.epochs)]
    probes = Probes(layers, upstream.dim, len(units), config, sum(map(len, orders)), device)
    state_file, first = folder / "state.pt", 0
    if state_file.exists():
        state = torch.load(state_file, weights_only=True)
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
            raise UserError(f"{folder}: every layer's probe diverged; lower lr (now {config.lr}) in a fresh folder")
        with write_aside(state_file) as aside:
            torch.save({"epoch": epoch + 1, "probes": probes.state()}, aside)
    bar.close()
    rows = _score(probes, dev, hidden, units, config, device)
    _write(folder, config, upstream.name, rows)
    write_json(result_file, {"upstream": upstream.name, "hash": upstream.hash, "dev": config.dev, "layers": rows})
    return rows


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


def _write(folder: Path, config: Any, name: str, rows: list[dict]) -> None:
    best = min(rows, key=lambda r: r["wer"])
    lines = [
        f"Linear CTC probe of {name}: trained on {config.train}, scored on {config.dev}",
        "",
        "layer    WER    CER",
    ]
    for row in rows:
        mark = "  diverged" if row["diverged"] else "  best" if row is best else ""
        lines.append(f"{row['layer']:5d} {100 * row['wer']:6.1f} {100 * row['cer']:6.1f}{mark}")
    write_text(folder / "table.txt", "\n".join(lines) + "\n")
    curves = {key.upper(): {r["layer"]: 100 * r[key] for r in rows} for key in ("wer", "cer")}
    layer_curve(folder / "layers.png", f"Linear CTC probe of {name} on {config.dev}", curves)
