"""CONTRIBUTING.md's walk-through: its module and a yaml, put where it says, are a method that trains."""

import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

import hfftools.tune
from hfftools.config import conf_file, plugin
from hfftools.model import Model
from hfftools.text import units
from hfftools.train import job
from hfftools.train.experiment import configure

ROOT = Path(__file__).parents[2]


@pytest.fixture
def scale(tmp_path, monkeypatch):
    """The text's module beside the others, and its yaml."""
    code = re.search(r"```python\n(.*?)```", (ROOT / "CONTRIBUTING.md").read_text(), re.S).group(1)
    (tmp_path / "tune").mkdir()
    (tmp_path / "tune" / "scale.py").write_text(re.sub(r"^ {3}", "", code, flags=re.M))
    yaml = tmp_path / "scale.yaml"
    yaml.write_text("tune: {name: scale}\nfuse: {name: layer, layers: last}\n")
    monkeypatch.setattr(hfftools.tune, "__path__", [*hfftools.tune.__path__, str(tmp_path / "tune")])
    importlib.invalidate_caches()
    yield yaml
    sys.modules.pop("hfftools.tune.scale", None)


def test_the_walk_through_makes_a_method_that_trains(scale, options, tmp_path):
    assert plugin("tune", "scale").Config().layers == "all"
    config = configure([scale], options)
    model = Model(config, units.load(config.data.units))
    assert {name.rpartition(".")[2] for name, _ in model.parts()["inserted"]} == {"gain_D"}
    exp = job.train(tmp_path / "exp", [scale], options)
    assert exp.final.exists()


def test_its_code_is_in_our_style(scale, tmp_path):
    code = tmp_path / "tune" / "scale.py"
    for command in (["black", "--check", "--line-length", "120"], ["flake8", "--max-line-length", "125"]):
        done = subprocess.run([sys.executable, "-m", *command, str(code)], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
    assert conf_file("method", "lora").exists()
