"""An exported file gives what the model gives, at any batch and length, to a reader that has none of this project's code."""

import json
import os
import re
import subprocess
import sys
from dataclasses import fields
from itertools import cycle, islice
from pathlib import Path

import checkpoints
import numpy as np
import pytest
import torch

from hfftools.audio import waveform
from hfftools.config import plugin, plugin_names
from hfftools.data import datadir
from hfftools.data.batch import Speech
from hfftools.expdir import ExpDir
from hfftools.infer import export
from hfftools.infer.bank import Bank
from hfftools.log import UserError
from hfftools.model import Model
from hfftools.recorded import save_config
from hfftools.task import asr_ctc, asr_transducer
from hfftools.text import units
from hfftools.train import checkpoint, experiment
from hfftools.upstream.names import load_upstream

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
PAGE = Path(__file__).parents[2] / "docs" / "transcription.md"
FORMS = ["conformer", "hff_tiny", *(name for name, form in checkpoints.FORMS.items() if form.export)]
HEADS = ["blstm", "conformer", "linear"]


def options_of(tune: str, fuse: str, head: str) -> list[str]:
    """Return options that choose one of each, small where they can be; a part that acts on one layer takes the last."""
    small = ["tune.width=8"] if "width" in {field.name for field in fields(plugin("tune", tune).Config)} else []
    lora = ["tune.projections=[q,v,up]"] if tune == "lora" else []
    layers = ["fuse.layers=last"] if fuse == "layer" else []
    return [f"tune.name={tune}", *small, *lora, f"fuse.name={fuse}", *layers, f"task.head={head}"]


def cases() -> dict[str, tuple[str, list[str]]]:
    """Return {name: (upstream, options)}: each form, way to tune, fusion and head on disk in at least one case."""
    tunes, fuses = plugin_names("tune"), plugin_names("fuse")
    count = max(len(FORMS), len(tunes), len(fuses))
    turns = zip(cycle(FORMS), cycle(tunes), cycle(fuses), cycle(HEADS), strict=False)
    chosen = [(form, *parts) for form, *parts in islice(turns, count)]
    return {"-".join(parts): (parts[0], options_of(*parts[1:])) for parts in chosen} | {
        "dora": ("conformer", ["tune.name=lora", "tune.variant=dora", "fuse.name=layer", "fuse.layers=last"]),
        "pissa": ("conformer", ["tune.name=lora", "tune.variant=pissa", "fuse.name=layer", "fuse.layers=last"]),
        "fbank": ("fbank", ["fuse.name=layer", "fuse.layers=last", "task.head=blstm"]),
        "pair": ("conformer+fbank", ["fuse.name=hff", "fuse.layers=[4]"]),  # of the second alone
    }


CASES = cases()


@pytest.fixture(scope="module")
def train(corpus, encoder, spelled, tmp_path_factory):
    """(upstream, options) -> an experiment as training leaves it, with weights of no use but far from the initial ones."""

    def make(form, *options):
        exp = ExpDir(tmp_path_factory.mktemp("exported"))
        ours = {"conformer": str(encoder), "hff_tiny": "hff_tiny", "fbank": "fbank"}
        name = "+".join(ours.get(half) or spelled(half) for half in form.split("+"))
        config = experiment.configure(
            [], [f"upstream={name}", f"data.units={corpus}/units", "device=cpu", "task.head_dim=16", *options]
        )
        torch.manual_seed(0)
        targets = units.load(config.data.units)
        model = Model(config, targets, load_upstream(name))
        for parameter in (p for p in model.parameters() if p.requires_grad):
            parameter.data += 0.1 * torch.randn_like(parameter)
        save_config(config, exp.config)
        experiment.keep_targets(exp, targets)
        checkpoint.save(exp.final, model.trained_state(), model)
        return exp.root

    return make


def read(session, wav_BN, num_samples_B):
    return session.run(["log_probs", "lens"], {"wav": wav_BN.numpy(), "num_samples": num_samples_B.numpy()})


@pytest.mark.parametrize("case", CASES)
def test_posteriors_and_texts_are_the_models(case, train, corpus, tmp_path):
    form, options = CASES[case]
    root = train(form, *options)
    path = export.export(root, tmp_path / "a.onnx")
    assert [p.name for p in tmp_path.iterdir()] == ["a.onnx"]
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    model, data = Bank().add(root), Speech(datadir.read(corpus / "test"), None)
    batch = data.collate([data[row] for row in range(len(data))])
    with torch.no_grad():
        x_BTF, lens_B = model.encode(batch)
        wanted_BTU = model.task.log_probs(x_BTF, lens_B).numpy()
    found_BTU, found_lens_B = read(session, batch.wav_BN, batch.num_samples_B)
    assert found_lens_B.tolist() == lens_B.tolist()
    pieces = json.loads(session.get_modelmeta().custom_metadata_map["pieces"])
    for row, (n, text) in enumerate(zip(lens_B.tolist(), model.predict(batch), strict=True)):
        assert np.abs(found_BTU[row, :n] - wanted_BTU[row, :n]).max() < 1e-3
        wav_1N = batch.wav_BN[row : row + 1, : batch.num_samples_B[row]]
        alone_1TU, _ = read(session, wav_1N, batch.num_samples_B[row : row + 1])
        assert np.abs(alone_1TU[0, :n] - found_BTU[row, :n]).max() < 1e-3
        best_T = alone_1TU[0, :n].argmax(-1)
        ids = [unit for unit, before in zip(best_T, [0, *best_T], strict=False) if unit not in (0, before)]
        assert " ".join("".join(pieces[unit] for unit in ids).split()) == text
    for wav_1N in (torch.zeros(1, 1), torch.zeros(1, 16000)):
        assert np.isfinite(read(session, wav_1N, torch.tensor([wav_1N.shape[1]]))[0]).all()


def test_the_snippet_of_the_documentation_reads_the_file(train, corpus, tmp_path):
    (snippet,) = [s for s in re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.S) if "onnxruntime" in s]
    assert len(snippet.strip().splitlines()) <= 18
    root = train("conformer", "fuse.name=hff", "task.head=linear")
    export.export(root, tmp_path / "fusion.onnx")
    data = Speech(datadir.read(corpus / "test"), None)
    items = [data[row] for row in range(len(data))]
    for number, (_, wav_N) in enumerate(items):
        waveform.save(tmp_path / f"{number}.wav", wav_N.numpy())
    (tmp_path / "without").mkdir()
    (tmp_path / "without" / "hfftools.py").write_text("raise ImportError('the snippet is to run without hff')")
    (tmp_path / "without" / "torch.py").write_text("raise ImportError('the snippet is to run without torch')")
    done = subprocess.run(
        [sys.executable, "-c", snippet, *(f"{number}.wav" for number in range(len(items)))],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": f"{tmp_path}/without:{os.environ.get('PYTHONPATH', '')}"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    model = Bank().add(root)
    wavs = [torch.from_numpy(waveform.load(str(tmp_path / f"{number}.wav"))) for number in range(len(items))]
    texts = model.predict(data.collate([(row, wav_N) for row, wav_N in enumerate(wavs)]))
    assert len(set(texts)) > 1  # there is something to tell apart
    assert done.stdout.splitlines() == [f"{number}.wav {text}".strip() for number, text in enumerate(texts)]


def test_the_metadata_are_whole(train, tmp_path):
    root = train("hff_tiny", "tune.name=lora", "task.head=linear")
    facts = {p.key: p.value for p in onnx.load(export.export(root, tmp_path / "a.onnx")).metadata_props}
    inventory = units.load(ExpDir(root).units)
    assert json.loads(facts["units"]) == inventory.symbols and json.loads(facts["pieces"]) == inventory.pieces
    assert (facts["units_kind"], facts["blank"], facts["sample_rate_hz"], facts["stride_samples"]) == (
        "char", "0", "16000", "640",
    )  # fmt: skip
    assert (facts["upstream"], facts["task"], facts["tune"], facts["fuse"]) == ("hff_tiny", "asr_ctc", "lora", "hff")
    assert facts["hff_version"] and "Carnegie Mellon" in facts["upstream_card"] and "Apache-2.0" in facts["licence"]


def test_what_cannot_be_exported_is_one_line(train, tmp_path, monkeypatch):
    root, out = train("conformer", "task.head=linear"), tmp_path / "a.onnx"
    with pytest.raises(UserError, match="--out .*ends in .onnx"):
        export.export(root, tmp_path / "a.pt")
    with pytest.raises(UserError, match="not an experiment"):
        export.export(tmp_path / "none", out)
    with monkeypatch.context() as patch:
        patch.setattr(asr_ctc.Task, "exports", False)
        patch.setattr(asr_transducer.Task, "exports", True)
        with pytest.raises(UserError, match="task 'asr_ctc' cannot be exported; those that can: asr_transducer"):
            export.export(root, out)
    with monkeypatch.context() as patch:
        patch.setattr(export, "LIMIT_BYTES", 1000)
        with pytest.raises(UserError, match="at most 2 GB"):
            export.export(root, out)
    with monkeypatch.context() as patch:
        patch.setattr(export, "TOLERANCE", 0.0)
        with pytest.raises(UserError, match="nothing is written"):
            export.export(root, out)
    for package in ("onnx", "onnxruntime"):
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, package, None)
            with pytest.raises(UserError, match=rf"needs the package {package} .*pip install 'hff\[export\]'"):
                export.export(root, out)
    assert not list(tmp_path.iterdir())
