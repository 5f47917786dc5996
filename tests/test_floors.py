"""The floors of the house: a file imports from lower floors or from its own room, and plug-ins never from each other."""

import ast
import importlib
import re
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "hfftools"
FLOORS = {  # the order of design: a room imports from the rooms of lower numbers
    number: rooms
    for number, rooms in enumerate(
        [
            ["memory", "disk", "textfile", "dist", "log"],
            ["cli", "completion", "config", "given", "recorded", "figure", "expdir", "records", "show"],
            ["nn"],
            ["audio"],
            ["text"],
            ["data"],
            ["corpora"],
            ["decode", "score"],
            ["upstream"],
            ["tune", "fuse", "task"],
            ["model"],
            ["meter"],
            ["train"],
            ["pretrain"],
            ["probe"],
            ["infer"],
            ["bench"],
            ["report"],
            ["bin"],
        ]
    )
}
FLOOR = {room: floor for floor, rooms in FLOORS.items() for room in rooms}
DOORS = {
    "s3prl": "upstream/s3prl.py",
    "transformers": "upstream/huggingface.py",
    "huggingface_hub": "upstream/hub.py",
    "kaldiio": "upstream/state_archives.py",
    "soundfile": "audio/decoder.py",
    "sentencepiece": "text/units.py",
    "espeakng_loader": "audio/espeak.py",
    "jiwer": "score/counts.py",
    "kenlm": "decode/lm.py",
    "matplotlib": "figure.py",
    "regex": "text/normalise.py",
    "num2words": "text/normalise.py",
    "onnx": "infer/export.py",
    "onnxruntime": "infer/export.py",
    "sklearn": "nn/kmeans.py",
    "omegaconf": "config.py",
    "argcomplete": "completion.py",
}
FILES = sorted(PACKAGE.rglob("*.py"))


def imports(path: Path) -> set[str]:
    """Dotted names of everything a file imports, anywhere in it."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_go_down(path):
    mine = room(path)
    if mine == "__init__":
        return
    assert mine in FLOOR, f"{mine} has no floor; find its room in the layout, or give it one here"
    for name in imports(path):
        if not name.startswith("hfftools.") or name == "hfftools.__version__":
            continue
        theirs = name.split(".")[1]
        assert theirs in FLOOR, f"{name}: {theirs} has no floor"
        if theirs == mine:
            if mine in ("tune", "fuse", "task") and path.name != "__init__.py":
                shared = getattr(importlib.import_module(f"hfftools.{mine}"), "NOT_PLUGINS", ())
                assert name.split(".")[2] in shared, f"{path.name}: plug-in imports {name}"
        else:
            one_room = FLOOR[theirs] == FLOOR[mine] < 2  # each of the two lowest floors, of single files, is one room
            assert (
                one_room or FLOOR[theirs] < FLOOR[mine]
            ), f"{mine} (floor {FLOOR[mine]}) imports {name} (floor {FLOOR[theirs]})"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_each_outside_package_has_one_door(path):
    for name in imports(path):
        door = DOORS.get(name.split(".")[0])
        assert door in (None, str(path.relative_to(PACKAGE))), f"{name} is for {door} alone"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_a_file_is_a_room(path):
    source = path.read_text(encoding="utf-8")
    assert path.name != "utils.py"
    assert len(source.splitlines()) <= 260, "one noun, about 250 lines at most"
    if source.strip():
        first = ast.get_docstring(ast.parse(source))
        assert first, "the first line says what enters and what leaves"


@pytest.mark.parametrize("path", sorted((PACKAGE / "bin").glob("[a-z]*.py")), ids=lambda p: p.stem)
def test_a_door_is_thin(path):
    """Nothing heavy is imported before main has parsed, so that --help answers in a blink."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    top = {a.name for n in tree.body if isinstance(n, ast.Import) for a in n.names}
    top |= {n.module for n in tree.body if isinstance(n, ast.ImportFrom)}
    assert top <= {"argparse", "pathlib", "hfftools.cli"}
    assert len(path.read_text().splitlines()) <= 60


def test_the_page_of_the_architecture_lists_all_rooms_in_order():
    page = (PACKAGE.parent / "docs" / "architecture.md").read_text(encoding="utf-8")
    rows = [re.findall(r"`(\w+)`", line.split("|")[1]) for line in page.splitlines() if line.startswith("| `")]
    assert rows == list(reversed(FLOORS.values()))
