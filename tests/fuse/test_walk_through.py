"""Check CONTRIBUTING.md, "Adding a fusion": its module and a yaml, put where it says, are a method that trains."""

import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import hfftools.fuse
from hfftools.infer import decode_sets
from hfftools.log import UserError
from hfftools.model import Model, build_fusion
from hfftools.text import units
from hfftools.train import job
from hfftools.train.experiment import configure

TEXT = (Path(__file__).parents[2] / "CONTRIBUTING.md").read_text(encoding="utf-8")


@pytest.fixture
def scalar_mix(tmp_path, monkeypatch):
    """Put the document's module into the package, and return the path of its yaml."""
    section = TEXT.split("## Adding a fusion\n")[1]
    folder = tmp_path / "fuse"
    folder.mkdir()
    (folder / "scalar_mix.py").write_text(re.search(r"```python\n(.*?)```", section, re.S).group(1))
    yaml = tmp_path / "scalar_mix.yaml"
    yaml.write_text("fuse: {name: scalar_mix}\n")
    monkeypatch.setattr(hfftools.fuse, "__path__", [*hfftools.fuse.__path__, str(folder)])
    importlib.invalidate_caches()
    yield yaml
    sys.modules.pop("hfftools.fuse.scalar_mix", None)


def test_the_walk_through_makes_a_method_that_trains_and_decodes(scalar_mix, options, corpus, tmp_path):
    config = configure([scalar_mix], options)
    model = Model(config, units.load(config.data.units))
    assert {name for name, _ in model.parts()["fuse"]} == {"fuse.gamma", "fuse.sum.logits_L"}
    exp = job.train(tmp_path / "exp", [scalar_mix], options)
    assert exp.final.exists()
    decode_sets.decode([exp.root], [str(corpus / "test")], [])
    assert (exp.root / "decode" / "test" / "text").exists()


def test_the_module_computes_its_equation(scalar_mix):
    plug_in = importlib.import_module("hfftools.fuse.scalar_mix")
    fuse = plug_in.Fuse({0: 4, 2: 4}, plug_in.Config())
    with torch.no_grad():
        fuse.gamma.fill_(2.5)
        fuse.sum.logits_L.copy_(torch.tensor([0.3, -0.4]))
    hidden = {0: torch.randn(1, 3, 4), 2: torch.randn(1, 3, 4)}
    shares = torch.tensor([0.3, -0.4]).exp() / torch.tensor([0.3, -0.4]).exp().sum()
    expected_BTF = 2.5 * (shares[0] * hidden[0] + shares[1] * hidden[2])
    torch.testing.assert_close(fuse(hidden, torch.tensor([3])), expected_BTF)


def test_it_is_refused_for_layers_of_two_widths(scalar_mix):
    plug_in = importlib.import_module("hfftools.fuse.scalar_mix")
    with pytest.raises(UserError, match="'scalar_mix' needs layers of one width"):
        build_fusion({0: 4, 1: 6}, plug_in.Config())


def test_its_code_is_in_our_style(scalar_mix, tmp_path):
    code = tmp_path / "fuse" / "scalar_mix.py"
    for command in (["black", "--check", "--line-length", "120"], ["flake8", "--max-line-length", "125"]):
        done = subprocess.run([sys.executable, "-m", *command, str(code)], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
