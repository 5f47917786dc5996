"""Make the files of experiments, configurations and caches for tests/fuzz.py, and name what reads them."""

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from checkpoints import save_pretrained
from fuzz import Kind
from fuzz_data import TEXTS

from hfftools import score
from hfftools.decode.search import Search
from hfftools.expdir import ExpDir
from hfftools.infer.decode_sets import decode, decode_chosen, read_scores, rescore
from hfftools.model import Model
from hfftools.pretrain import features, masked
from hfftools.probe import job
from hfftools.report.results import report
from hfftools.report.training_curves import training_curves
from hfftools.text import ctm, units
from hfftools.train import experiment
from hfftools.train.job import train
from hfftools.upstream.conformer import ConformerUpstream, EncoderConfig, save
from hfftools.upstream.extract import extract
from hfftools.upstream.names import load_upstream
from hfftools.upstream.state_cache import HiddenCache

CPU = ["device=cpu"]


def _options(root: Path) -> list[str]:
    return [
        f"upstream={root / 'encoder.safetensors'}", f"data.train={root / 'set'}", f"data.dev={root / 'set'}",
        f"data.test=[{root / 'set'}]", f"data.units={root / 'units_char'}", "task.head_dim=8", "task.head_layers=1",
        "train.epochs=2", "data.workers=0", "train.bf16=false", "train.blank_epochs=0", *CPU,
    ]  # fmt: skip


def experiment_kinds(root: Path) -> dict[str, Kind]:
    """Return the files of a finished experiment, of one to be resumed and of a decoded set."""
    torch.manual_seed(0)
    save(
        ConformerUpstream(EncoderConfig(dim=16, layers=2, heads=2, expansion=2, kernel=5)),
        root / "encoder.safetensors",
        {},
    )
    exp = train(root / "exp" / "a", [], _options(root))
    (decoded,) = decode([exp.root], [], CPU)
    begun = ExpDir(root / "exp" / "begun")
    shutil.copytree(exp.root, begun.root)
    begun.final.unlink()
    table = root / "choice"
    table.write_text("".join(f"{utt} a\n" for utt in TEXTS))
    again = {"train": lambda: train(exp.root, [], []).root}
    resume = {"resume": lambda: train(begun.root, [], []).root}
    use = {"decode": lambda: decode([exp.root], [str(root / "halves")], CPU)}
    shown = {"report": lambda: report([exp.root], root / "RESULTS.md", "Results")[0]}
    scored = {"scores": lambda: read_scores(decoded), "rescore": lambda: rescore(decoded), **shown}
    searching = Search(name="beam", lm=str(root / "lm" / "lm.arpa"), lm_weight=0.5, beam_size=2)
    weighed = {"decode": lambda: decode([exp.root], [], CPU, searching)}
    weighed["decode"]()
    shutil.rmtree(root / "exp" / "a" / "decode" / "set_beam_lm")
    named = f"data directory|upstream |device=|{root}"
    kinds = {
        "config.yaml": Kind(exp.config, {**again, **use, **shown}, named),
        "inputs.json": Kind(exp.inputs, again, str(exp.root)),
        "resources.json": Kind(exp.resources, shown),
        "history.jsonl": Kind(exp.history, {"curves": lambda: training_curves(exp)}),
        "search.json": Kind(exp.search, weighed),
        "final.safetensors": Kind(exp.final, use),
        "state.pt": Kind(begun.state, resume),
        "encoder": Kind(
            root / "encoder.safetensors", {"load": lambda: load_upstream(str(root / "encoder.safetensors"))}
        ),
        "choice": Kind(
            table, {"decode": lambda: decode_chosen([exp.root], table, [str(root / "set")], root / "out", CPU)}
        ),
        "decode.json": Kind(decoded / "decode.json", {**scored, "decode": lambda: decode([exp.root], [], CPU)}),
    }
    for name in ("text", "ref", "utt2spk"):
        readers = {"rescore": scored["rescore"], "read": lambda: score.read_decoded(decoded), **shown}
        kinds[f"decoded/{name}"] = Kind(decoded / name, readers, str(decoded))
    kinds["decoded/ctm"] = Kind(decoded / "ctm", {"read": lambda: ctm.read(decoded / "ctm")})
    return kinds


def _build(path: Path, root: Path) -> Any:
    """Return the model of a configuration, as training begins with it."""
    config = experiment.configure([path], CPU)
    return sum(p.numel() for p in Model(config, units.load(root / "units_char")).parameters())


def yaml_kinds(root: Path) -> dict[str, Kind]:
    """Return configurations that people write."""
    kinds = {}
    recommended = f"# why\nupstream: {root / 'encoder.safetensors'}\ndata:\n  train: a\n  dev: b\n"
    recommended += "tune: {name: frozen}\nfuse:\n  name: hff\n  layers: [0, 1, 2]\n"
    written = recommended + "task: {name: asr_ctc, head_dim: 16, head_layers: 1, dropout: 0.1}\ntrain: {epochs: 2}\n"
    written += "optim: {head: {lr: 0.001, warmup: 0.1}, clip: 5.0}\naugment: {time_masks: 2}\nseed: 3\n"
    for name, text in (("recommendation.yaml", recommended), ("train.yaml", written)):
        path = root / name
        path.write_text(text)
        kinds[name] = Kind(
            path, {"model": lambda path=path: _build(path, root)}, r"upstream|fuse\.|tune\.|task\.|mask:|layers"
        )
    more = {
        "probe.yaml": (job.configure, "upstream: hff_tiny\nlayers: [0, 2]\nparts: [asr, phone]\nepochs: 3\nlr: 0.01\n"),
        "pretrain.yaml": (masked.configure, "seed: 3\n"),
    }
    for name, (configure, text) in more.items():
        (root / name).write_text(text)
        kinds[name] = Kind(root / name, {"read": lambda path=root / name, read=configure: read([path], [])})
    return kinds


def state_kinds(root: Path) -> dict[str, Kind]:
    """Return caches of hidden states and log-mel frames, and a folder of save_pretrained."""
    kinds, feats = {}, root / "feats"
    extract(str(root / "encoder.safetensors"), [str(root / "set")], feats, "all", 60.0, torch.device("cpu"))

    def read() -> Any:
        cache = HiddenCache(feats, "set")
        info = json.loads(known)
        return cache.lacks([0, 1], info["made_from"]) or [cache.read(utt, [0, 1]) for utt in TEXTS]

    known = (feats / "set" / "cache.json").read_text()
    for name in ("cache.json", "states_00000.safetensors", "utt2shard"):
        kinds[name] = Kind(feats / "set" / name, {"read": read}, str(feats))
    features.corpus([str(root / "set")], root / "mel")
    for name in ("index.json", "mel.npy"):
        mel = {"read": lambda: [features.corpus([str(root / "set")], root / "mel").mel(at) for at in range(len(TEXTS))]}
        kinds[name] = Kind(root / "mel" / name, mel, str(root / "mel"))
    save_pretrained("hf_hubert_base", root / "hf")
    for name in ("config.json", "preprocessor_config.json", "model.safetensors"):
        kinds[f"hf/{name}"] = Kind(
            root / "hf" / name, {"load": lambda: load_upstream(f"hf:{root / 'hf'}")}, f"hf:{root / 'hf'}"
        )
    return kinds
