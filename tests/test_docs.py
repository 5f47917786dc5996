"""Check that the commands, methods and options that README.md and docs/ name exist."""

import re
from configparser import ConfigParser
from importlib import import_module
from pathlib import Path

import pytest

from hfftools.config import plugin_names
from hfftools.show import show

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
COMMANDS = ("hff-train", "hff-decode", "hff-probe", "hff-pretrain")  # those with lists of keys in conf/options
pages = pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)


def known_keys() -> set[str]:
    """Return the keys of all commands and plug-ins, as `--show` prints them."""
    keys = {key for name in COMMANDS for key in (ROOT / "conf/options" / f"{name}.txt").read_text().split()}
    for room in ("tune", "fuse", "task"):
        for name in plugin_names(room):
            config = import_module(f"hfftools.{room}.{name}").Config()
            keys |= {f"{room}.{line.partition(':')[0]}" for line in show(config).splitlines()}
    return keys


@pages
def test_every_command_is_an_entry_point(path):
    setup = ConfigParser()
    setup.read(ROOT / "setup.cfg")
    scripts = setup["options.entry_points"]["console_scripts"]
    assert set(re.findall(r"(?<![\w/-])hff-[a-z]+", path.read_text())) <= set(re.findall(r"hff-[a-z]+", scripts))


@pages
def test_every_method_has_a_file(path):
    named = set(re.findall(r"hff-(?:train|account|sweep)[^\n|`]*? --method (\w+)", path.read_text()))
    assert named <= {yaml.stem for yaml in (ROOT / "conf/method").glob("*.yaml")}


@pages
def test_every_option_exists(path):
    """Keys on a line with one of the commands, and every dotted key that is written as code."""
    text = path.read_text()
    lines = [line for line in text.splitlines() if re.search("|".join(COMMANDS), line)]
    named = {key for line in lines for key in re.findall(r"(?<![\w.-])([a-z][\w.]*)=", line)}
    named |= set(re.findall(r"(?<![\w.-])((?:tune|fuse|task|optim|train|data|perturb|mask|search)\.[a-z_.]+)=", text))
    examples = {"key", "optim.hed.lr"}  # of how options are written, and of an error
    assert named - examples <= known_keys()
