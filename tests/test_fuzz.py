"""Damage every kind of file in a few ways; tests/fuzz.py, run by hand, tries hundreds."""

import json
import os
from pathlib import Path

import pytest
from damage import ODD_VALUES, damage
from fuzz import Kind, Tree, check_whole, try_kind
from fuzz_kinds import make_kinds

from hfftools.log import UserError


@pytest.fixture(scope="module")
def kinds(tmp_path_factory):
    """All kinds of files, and the folder that holds them."""
    root = tmp_path_factory.mktemp("fuzz")
    found = make_kinds(root)
    return found, Tree(root)


def test_damaged_files_are_refused_in_one_line_or_read(kinds, monkeypatch):
    found, tree = kinds
    monkeypatch.chdir(tree.root)
    faults = []
    for kind in found.values():
        name, read = next(iter(kind.readers.items()))
        faults += try_kind(Kind(kind.path, {name: read}, kind.also), range(1, 2), tree).faults
    assert faults == []


def test_each_way_to_fail_is_noticed(tmp_path):
    path, other = tmp_path / "a.txt", tmp_path / "b.txt"
    path.write_text("one\ntwo\n")
    other.write_text("kept")

    def refuses(words: str) -> None:
        raise UserError(words)

    def changes_another() -> None:
        other.write_text("lost")
        raise UserError("a.txt is damaged")

    readers = {
        "passes": lambda: 1.0,
        "refuses": lambda: refuses("a.txt is damaged"),
        "raises": lambda: [][1],
        "hangs": lambda: exec("while True: pass"),
        "dies": lambda: os.kill(os.getpid(), 9),
        "names no file": lambda: refuses("it is damaged"),
        "two lines": lambda: open("a.txt\n"),
        "odd": lambda: {"a": [float("nan")]},
        "changes": changes_another,
    }
    tally = try_kind(Kind(path, readers), range(1), Tree(tmp_path), seconds=1)
    assert tally.counts == {"passed": 1, "refused": 1, "fault": 7}
    assert [case.partition(" 0:")[0] for _, case in tally.faults] == list(readers)[2:]
    assert (path.read_text(), other.read_text()) == ("one\ntwo\n", "kept")


def test_a_reader_that_refuses_the_whole_file_is_named(tmp_path):
    def refuse() -> None:
        raise UserError("no")

    kind = Kind(tmp_path / "a", {"read": refuse})
    with pytest.raises(ValueError, match="a, read: no"):
        check_whole({"a": kind}, Tree(tmp_path))


def test_damages_follow_from_the_number_and_change_the_file():
    for name, content in (
        ("a.txt", b"one 1\ntwo 2\n"),
        ("a.json", json.dumps({"a": [1, {"b": 2}]}).encode()),
        ("a.wav", bytes(999)),
    ):
        made = [damage(Path(name), content, number) for number in range(60)]
        assert made == [damage(Path(name), content, number) for number in range(60)]
        assert len(set(made) - {content}) > 20
    assert any(value != value for value in ODD_VALUES)  # NaN is among them
