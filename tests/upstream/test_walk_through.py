"""Check CONTRIBUTING.md, "Adding an upstream family": its module, put where it says, is a family that every job can use."""

import importlib
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from checkpoints import perturb

import hfftools.upstream
from hfftools.bench import methods
from hfftools.bench.measurement import measure_here
from hfftools.data.batch import pad_batch
from hfftools.infer import decode_sets
from hfftools.log import UserError
from hfftools.train import job
from hfftools.upstream.extract import extract
from hfftools.upstream.names import load_upstream, parse
from hfftools.upstream.transformer import Block

TEXT = (Path(__file__).parents[2] / "CONTRIBUTING.md").read_text(encoding="utf-8")
SIZES = dict(
    vocab_size=8, d_model=32, encoder_layers=3, encoder_ffn_dim=48, encoder_attention_heads=4, conv_channels=24
)
SIZES |= dict(decoder_layers=1, decoder_ffn_dim=16, decoder_attention_heads=2)


@pytest.fixture
def family(tmp_path, monkeypatch):
    """Put the document's module into the package, and return the path of its file."""
    section = TEXT.split("## Adding an upstream family\n")[1]
    path = tmp_path / "upstream" / "speech2text.py"
    path.parent.mkdir()
    path.write_text(re.search(r"```python\n(.*?)```", section, re.S).group(1))
    monkeypatch.setattr(hfftools.upstream, "__path__", [*hfftools.upstream.__path__, str(path.parent)])
    importlib.invalidate_caches()
    yield path
    sys.modules.pop("hfftools.upstream.speech2text", None)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Return a folder of save_pretrained with a tiny model of random weights."""
    import transformers

    folder = tmp_path_factory.mktemp("speech2text")
    torch.manual_seed(0)
    model = transformers.Speech2TextModel(transformers.Speech2TextConfig(**SIZES))
    perturb(model)
    model.save_pretrained(folder)
    transformers.Speech2TextFeatureExtractor().save_pretrained(folder)
    return folder


@torch.no_grad()
def test_its_states_are_those_of_transformers(family, folder):
    import transformers

    upstream, wav_N = load_upstream(f"hf:{folder}"), 0.1 * torch.randn(16000)
    extractor = transformers.Speech2TextFeatureExtractor.from_pretrained(folder)
    features = extractor(wav_N.numpy(), sampling_rate=16000, return_tensors="pt").input_features
    theirs = transformers.AutoModel.from_pretrained(folder).eval().encoder(features, output_hidden_states=True)
    states, lens_B = upstream(wav_N[None], torch.tensor([16000]), upstream.all_layers)
    assert len(theirs.hidden_states) == upstream.num_layers + 1 == 4 and lens_B[0] == theirs.hidden_states[0].shape[1]
    for layer, h_BTD in enumerate(theirs.hidden_states):
        assert h_BTD.std() > 0.1 and (h_BTD - states[layer]).abs().max() < 1e-3, layer


@torch.no_grad()
def test_padding_changes_no_valid_frame(family, folder):
    upstream, wavs = load_upstream(f"hf:{folder}"), [0.1 * torch.randn(n) for n in (6543, 16000, 4801, 401, 300)]
    wav_BN, num_samples_B = pad_batch(wavs)
    states, lens_B = upstream(wav_BN, num_samples_B, upstream.all_layers)
    assert (lens_B[:4] > 0).all() and lens_B[4] == 0
    for row, wav_N in enumerate(wavs):
        alone, (frames,) = upstream(wav_N[None], num_samples_B[row : row + 1], upstream.all_layers)
        assert frames == lens_B[row]
        for layer, h_BTD in alone.items():
            assert h_BTD.isfinite().all()
            change_TD = h_BTD[0, :frames] - states[layer][row, :frames]
            assert frames == 0 or change_TD.abs().max() < 1e-4, (row, layer)


def test_it_is_costed_without_its_weights(family, folder, tmp_path):
    (tmp_path / "sizes").mkdir()
    (tmp_path / "sizes" / "config.json").write_bytes((folder / "config.json").read_bytes())
    source = parse(f"hf:{tmp_path}/sizes")
    assert source.places is Block.PLACES and source.random().hash == "random"
    (config,) = methods.configure(["lora"], [], [f"upstream={source.text}", "task.head=linear", "device=cpu"]).values()
    cost = measure_here(config, 1.0, 1)
    assert cost["parameters"]["inserted"] == 3 * 2 * 2 * 32 * 8 and cost["upstream_forward_flops_per_s"] > 0
    with pytest.raises(UserError, match="has no 'value' in its blocks"):
        job.train(tmp_path / "exp", [], [f"upstream={source.text}", "tune.name=lora", "tune.projections=[value]"])


@pytest.mark.parametrize("tune", ["lora", "houlsby", "conv_adapter"])
def test_it_is_tuned_and_decoded(family, folder, options, corpus, tmp_path, tune):
    more = [f"upstream=hf:{folder}", f"tune.name={tune}", "train.epochs=1", "task.head=linear"]
    exp = job.train(tmp_path / "exp", [], [*options, *more])
    assert exp.final.exists()
    decode_sets.decode([exp.root], [], [])
    assert len((exp.root / "decode" / "test" / "text").read_text().splitlines()) == 6


def test_it_is_extracted(family, folder, corpus, tmp_path):
    extract(f"hf:{folder}", [f"{corpus}/dev"], tmp_path / "cache", "all", 30.0, torch.device("cpu"))
    assert 3 in json.loads((tmp_path / "cache" / "dev" / "cache.json").read_text())["layers"]


def test_its_code_is_in_our_style(family):
    for command in (["black", "--check", "--line-length", "120"], ["flake8", "--max-line-length", "125"]):
        done = subprocess.run([sys.executable, "-m", *command, str(family)], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
