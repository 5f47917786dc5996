"""Check --show: what it prints is yaml that gives the same configuration, with the comments of the dataclasses."""

import importlib
import runpy
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from hfftools import __version__
from hfftools.config import conf_file
from hfftools.show import show
from hfftools.train.experiment import configure

TOP = Path(__file__).parents[1]


@dataclass
class Inner:
    """A nested group of options."""

    rate: float = 1e-5  # of learning
    # a comment that stands above
    # and takes two lines
    word: str = "true"


@dataclass
class Outer:
    """Options of several types."""

    names: list[str] = field(default_factory=lambda: ["a", "b"])  # of data directories
    empty: str = ""
    inner: Inner = field(default_factory=Inner)  # the group


def test_options_are_shown_with_their_comments():
    lines = show(Outer()).splitlines()
    assert [" ".join(line.split()) for line in lines] == [
        "names: [a, b] # of data directories",
        'empty: ""',
        "inner: # the group",
        "rate: 1e-05 # of learning",
        'word: "true" # a comment that stands above and takes two lines',
    ]
    assert lines[3].startswith("  rate:")


def test_what_is_shown_reads_back_as_the_same_options():
    config = configure([conf_file("method", "hff_houlsby")], ["data.test=[a/b,c]", "optim.fuse.lr=1e-5", "device="])
    assert OmegaConf.create(show(config)) == OmegaConf.structured(config)


@pytest.mark.parametrize("command", [["hff-train", "--method", "hff"], ["hff-probe"], ["hff-pretrain"]])
def test_commands_show_their_options_and_do_nothing(command, tmp_path):
    done = subprocess.run([*command, "--show", "seed=7"], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert OmegaConf.create(done.stdout).seed == 7
    assert not list(tmp_path.iterdir())
    wrong = subprocess.run([*command, "--show", "sead=7"], cwd=tmp_path, capture_output=True, text=True)
    assert wrong.returncode == 1 and "there is no option 'sead'; did you mean seed" in wrong.stderr


@pytest.mark.parametrize(
    ("command", "shown"),
    [
        ("hff-sweep out --keys seed --values 1 --show --options seed=7", "seed: 7"),
        ("hff-account --upstream hff_tiny --method hff --method lora:tune.rank=3 --show", "  rank: 3"),
        ("hff-bench --upstream hff_tiny --methods hff --show seed=7", "seed: 7"),
        ("hff-decode --show search.name=beam", "  name: beam"),
        ("hff-datadir normalise data/train language=tr --show", "language: tr"),
    ],
)
def test_other_commands_show_what_they_would_run_with(command, shown, tmp_path):
    done = subprocess.run(command.split(), cwd=tmp_path, capture_output=True, text=True, check=True)
    assert any(line.startswith(shown) for line in done.stdout.splitlines())
    assert not list(tmp_path.iterdir())


def test_an_option_is_not_taken_for_the_experiments_folder(tmp_path):
    done = subprocess.run(["hff-train", "train.epochs=2"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2 and "name the experiment's folder first" in done.stderr
    assert not list(tmp_path.iterdir())


def test_every_command_prints_the_version():
    for path in sorted((TOP / "hfftools/bin").glob("[a-z]*.py")):
        command = f"hff-{path.stem}"
        done = subprocess.run([command, "--version"], capture_output=True, text=True, check=True)
        assert done.stdout == f"{command} {__version__}\n"


def test_the_page_of_options_is_up_to_date():
    """Run `python utils/options_page.py` where this fails."""
    written = (TOP / "docs/options.md").read_text(encoding="utf-8")
    made = runpy.run_path(str(TOP / "utils/options_page.py"))
    assert made["page"]() == written
    kept = {path.stem: path.read_text(encoding="utf-8") for path in (TOP / "conf/options").glob("*.txt")}
    assert made["keys"]() == kept


@pytest.mark.parametrize("name", ["train", "pretrain"])
def test_a_folder_whose_name_has_an_equals_sign_is_no_option(name, monkeypatch, capsys):
    main = importlib.import_module(f"hfftools.bin.{name}").main
    monkeypatch.setattr(sys, "argv", [f"hff-{name}", "--show", "seed=5"])
    main()
    shown = capsys.readouterr().out
    for folder in ("exp/lr=1e-3", "./lr=1e-3"):
        monkeypatch.setattr(sys, "argv", [f"hff-{name}", folder, "--show", "seed=5"])
        main()
        assert capsys.readouterr().out == shown
