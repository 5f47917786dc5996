"""Files are written whole or not at all, and a cut line of a .jsonl file is no line."""

import json

import pytest

from hfftools.expdir import ExpDir, append_json_line, write_aside, write_json, write_text
from hfftools.records import read_json_lines


def test_write_aside_replaces_only_when_the_block_ends_well(tmp_path):
    path = tmp_path / "new" / "file.txt"
    write_text(path, "old")
    with pytest.raises(KeyboardInterrupt), write_aside(path) as aside:
        aside.write_text("half of the n")
        assert path.read_text() == "old"
        raise KeyboardInterrupt
    assert path.read_text() == "old"
    with open(path) as reader:
        write_text(path, "new")
        assert reader.read() == "old"  # whoever reads meanwhile reads a whole file
    assert path.read_text() == "new"
    assert [p.name for p in path.parent.iterdir()] == ["file.txt"]


def test_write_aside_without_a_file_is_an_error_and_keeps_the_old(tmp_path):
    write_text(tmp_path / "a", "old")
    with pytest.raises(FileNotFoundError), write_aside(tmp_path / "a"):
        pass
    assert (tmp_path / "a").read_text() == "old"


def test_texts_and_json_come_back(tmp_path):
    write_text(tmp_path / "a", "é 你\n")
    assert (tmp_path / "a").read_bytes() == "é 你\n".encode()
    value = {"wer": 0.25, "texts": ["é", "\u2028"], "none": None}
    write_json(tmp_path / "b", value)
    assert json.loads((tmp_path / "b").read_text(encoding="utf-8")) == value


def test_json_lines_come_back_up_to_a_cut(tmp_path):
    path = tmp_path / "history.jsonl"
    assert read_json_lines(path) == []
    records = [{"epoch": epoch, "wer": 0.5, "note": "é"} for epoch in range(3)]
    for record in records:
        append_json_line(path, record)
    assert read_json_lines(path) == records
    whole = path.read_bytes()
    start = whole.rindex(b"\n", 0, -1) + 1
    for end in range(start, whole.index("é".encode(), start)):
        path.write_bytes(whole[:end])
        assert read_json_lines(path) == records[:2]


def test_every_path_is_inside_the_experiment(tmp_path):
    exp = ExpDir(tmp_path / "exp")
    names = [name for name, value in vars(ExpDir).items() if isinstance(value, property)]
    paths = [getattr(exp, name) for name in names] + [exp.decode("test"), exp.epoch(7)]
    assert all(path.is_relative_to(exp.root) for path in paths)
    assert len(set(paths)) == len(paths)
