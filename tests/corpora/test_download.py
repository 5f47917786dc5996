"""Downloads over a line that breaks, from servers that go on, that cannot, and that hold another file by now."""

import hashlib
import logging

import pytest

from hfftools.corpora import download
from hfftools.corpora.download import fetch
from hfftools.log import UserError

CONTENT = bytes(range(256)) * 5000


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(download, "WAIT_S", 0.0)
    monkeypatch.setattr(download, "CHUNK_BYTES", 1000)


def left(folder):
    return sorted(path.name for path in folder.iterdir() if path.suffix != ".lock")


def test_a_broken_line_is_taken_up_again(server, tmp_path, caplog):
    server.files["/a.tar"], server.etags["/a.tar"] = (CONTENT, len(CONTENT)), '"1"'
    server.cuts["/a.tar"] = 700_000
    with caplog.at_level(logging.INFO, "hff"):
        path = fetch(f"{server.url}/a.tar", tmp_path / "a.tar", f"sha256:{hashlib.sha256(CONTENT).hexdigest()}")
    assert path.read_bytes() == CONTENT and left(tmp_path) == ["a.tar"]
    assert server.ranges == [None, "bytes=700000-"] and "resuming at byte 700000" in caplog.text


def test_a_killed_run_goes_on_where_it_was(server, tmp_path, monkeypatch):
    server.files["/a.tar"], server.etags["/a.tar"] = (CONTENT, len(CONTENT)), '"1"'
    monkeypatch.setattr(download, "TRIES", 1)
    for cut in (700_000, 100_000):
        server.cuts["/a.tar"] = cut
        with pytest.raises(UserError, match="of 1280000 bytes were received"):
            fetch(f"{server.url}/a.tar", tmp_path / "a.tar")
    assert left(tmp_path) == ["a.tar.part", "a.tar.part.json"]
    assert fetch(f"{server.url}/a.tar", tmp_path / "a.tar").read_bytes() == CONTENT
    assert server.ranges == [None, "bytes=700000-", "bytes=800000-"] and left(tmp_path) == ["a.tar"]


def test_a_part_that_is_whole_is_not_asked_for_again(server, tmp_path):
    server.files["/a.tar"], server.etags["/a.tar"] = (CONTENT, len(CONTENT)), '"1"'
    (tmp_path / "a.tar.part").write_bytes(CONTENT)
    note = f'{{"url": "{server.url}/a.tar", "version": "\\"1\\"", "bytes": {len(CONTENT)}}}'
    (tmp_path / "a.tar.part.json").write_text(note)
    assert fetch(f"{server.url}/a.tar", tmp_path / "a.tar").read_bytes() == CONTENT and server.requests == 0


@pytest.mark.parametrize("change", ["another file", "another url", "no ranges"])
def test_what_cannot_be_gone_on_with_is_begun_again(server, tmp_path, monkeypatch, change):
    server.files["/a.tar"], server.etags["/a.tar"] = (b"x" * 1_000_000, 1_000_000), '"1"'
    server.cuts["/a.tar"] = 700_000
    monkeypatch.setattr(download, "TRIES", 1)
    with pytest.raises(UserError):
        fetch(f"{server.url}/a.tar", tmp_path / "a.tar")
    url = f"{server.url}/a.tar"
    server.files["/a.tar"] = CONTENT, len(CONTENT)
    if change == "another url":
        url = f"{server.url}/b.tar"
        server.files["/b.tar"], server.etags["/b.tar"] = server.files["/a.tar"], '"1"'
    elif change == "another file":
        server.etags["/a.tar"] = '"2"'
    else:
        server.etags.clear()
    assert fetch(url, tmp_path / "a.tar").read_bytes() == CONTENT and left(tmp_path) == ["a.tar"]


def test_without_a_mark_of_the_version_nothing_is_kept(server, tmp_path):
    server.files["/a.tar"], server.cuts["/a.tar"] = (CONTENT, len(CONTENT)), 700_000
    with pytest.raises(
        UserError, match=r"cannot download .*700000 of 1280000 bytes were received.*by hand, as .*/a\.tar"
    ):
        fetch(f"{server.url}/a.tar", tmp_path / "a.tar")
    assert left(tmp_path) == []


@pytest.mark.parametrize("kind", ["md5", "sha256"])
def test_a_wrong_sum_leaves_nothing_and_says_what_to_do(server, tmp_path, kind):
    server.files["/a.tar"], server.etags["/a.tar"] = (CONTENT, len(CONTENT)), '"1"'
    found = hashlib.new(kind, CONTENT).hexdigest()
    with pytest.raises(UserError, match=f"a.tar: the {kind} sum of the download is {found}, not 00, .*run again"):
        fetch(f"{server.url}/a.tar", tmp_path / "a.tar", f"{kind}:00")
    assert left(tmp_path) == []
    assert fetch(f"{server.url}/a.tar", tmp_path / "a.tar", f"{kind}:{found}").read_bytes() == CONTENT
