"""Check that an upstream works on data directories and, where asked for, cache its hidden states.

A set whose cache is there, whole, and of the same weights and utterances is skipped; an interrupted one is completed.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from hfftools.data import datadir
from hfftools.data.batch import Speech, plan
from hfftools.data.inputs import of_set, refuse_other_set
from hfftools.disk import alone
from hfftools.log import UserError, log, progress, require
from hfftools.upstream.base import Upstream, choose_layers
from hfftools.upstream.names import load_upstream
from hfftools.upstream.state_cache import FORMS, HiddenCache


def verify(upstream: Upstream, data: Speech) -> None:
    """Run the shortest and the median utterance alone and together; raise UserError where a state is not finite, and
    warn where padding changes one.
    """
    ranked = sorted(range(len(data)), key=lambda i: data.durations_s[i])
    order = sorted({ranked[0], ranked[len(ranked) // 2]})
    layers = upstream.all_layers
    with torch.inference_mode():
        together = data.batch(order)
        batched, lens_B = upstream(together.wav_BN, together.num_samples_B, layers)
        for row, index in enumerate(order):
            alone = data.batch([index])
            single, len_1 = upstream(alone.wav_BN, alone.num_samples_B, layers)
            if len_1[0] == 0:
                log.warning(f"{upstream.name}: {alone.ids[0]} is too short for a single frame")
                continue
            for layer in layers:
                a_TD, b_TD = single[layer][0, : len_1[0]], batched[layer][row, : lens_B[row]]
                if not torch.isfinite(a_TD).all():
                    raise UserError(
                        f"{upstream.name}: layer {layer} is not finite on {alone.ids[0]}; is its file damaged?"
                    )
                worst = (a_TD - b_TD).abs().max().item() / max(1.0, a_TD.abs().max().item())
                if worst > 1e-3:
                    log.warning(f"{upstream.name}: padding changes layer {layer} by {worst:.1e} of its range")
    total = sum(p.numel() for p in upstream.parameters())
    widths = " and ".join(str(width) for width in dict.fromkeys(upstream.dims.values()))
    log.info(
        f"{upstream.name}: states 0..{upstream.num_layers}, width {widths}, {upstream.frame_rate_hz:g} frames/s, "
        f"{total:,} parameters, hash {upstream.hash}"
    )


@torch.inference_mode()
def _states(
    upstream: Upstream,
    data: Speech,
    layers: list[int],
    batch_seconds: float,
    device: torch.device,
    workers: int,
    kept: set[str],
) -> Iterator:
    """Yield (utterance, {layer: h [T, D]}) of all batches in which there is an utterance that is not kept."""
    planned = plan(data.durations_s, batch_seconds)  # the same batches after an interrupt, so that the states are equal
    bar = progress(None, len(data), "hidden states")
    planned = [rows for rows in planned if not all(data.utterances[row].id in kept for row in rows)]
    bar.update(len(data) - sum(map(len, planned)))
    for batch in data.batches(planned, workers):
        batch = batch.to(device)
        hidden, lens_B = upstream(batch.wav_BN, batch.num_samples_B, layers)
        arrays = {layer: h.float().cpu().numpy() for layer, h in hidden.items()}
        for row, (utt, length) in enumerate(zip(batch.ids, lens_B.tolist(), strict=True)):
            yield utt, {layer: np.ascontiguousarray(a[row, :length]) for layer, a in arrays.items()}
        bar.update(len(batch.ids))
    bar.close()


def extract(
    name: str,
    directories: list[str],
    out: Path | None,
    layers: str | list[int],
    batch_seconds: float,
    device: torch.device,
    workers: int = 1,
    form: str | None = None,
) -> None:
    """Load and verify upstream `name` on the first directory; with `out`, cache its `layers` for each directory.

    So many `workers` are processes that load audio. `form` is one of FORMS of state_cache.py; None: that of the cache
    that is there already, else float16.
    """
    require(form in (None, *FORMS), f"--form: '{form}' is not one of {', '.join(FORMS)}")
    require(batch_seconds > 0, f"--batch-seconds: {batch_seconds} is not above 0")
    require(workers >= 0, f"--workers: {workers} is below 0")
    upstream = load_upstream(name).eval()
    upstream.requires_grad_(False)
    chosen = choose_layers(layers, upstream, "--layers")
    for number, directory in enumerate(datadir.of_different_names(directories, str(out or "."))):
        utterances = datadir.read(directory, need_text=False)
        data = Speech(utterances, None)
        if number == 0:
            verify(upstream, data)
        if out is None:
            continue
        cache = HiddenCache(out, datadir.set_name(directory))
        digests = of_set("data", utterances, text=False)
        with alone(cache.folder, waits=True):
            lacks = cache.lacks(chosen, {**upstream.digests, **digests})
            there = cache.form() if cache.info_file.exists() else "float16"
            if form not in (None, there):
                lacks.append("form")
            if not lacks:
                log.info(f"{cache.folder} is there already")
                continue
            refuse_other_set(cache.made_from(), directory, digests, cache.folder, "give another folder, by --out")
            if cache.info_file.exists():
                log.info(f"{cache.folder} is made again: {', '.join(lacks)} of it differ")
            frames = sum(data.durations_s) * upstream.frame_rate_hz
            chosen_form = form or there
            cache.check_room(frames, [upstream.dims[layer] for layer in chosen], chosen_form)
            made_from = {**upstream.digests, **digests, "directory": os.path.realpath(directory)}
            kept = cache.kept(chosen, made_from, chosen_form)
            states = _states(upstream.to(device), data, chosen, batch_seconds, device, workers, kept)
            frames = cache.write(states, chosen, name, made_from, chosen_form)
        log.info(f"{cache.folder}: {len(utterances)} utterances, {frames} frames, layers {chosen}")
