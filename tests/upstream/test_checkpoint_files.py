"""Registered names offline, from the cache and from a local server."""

import logging
import threading

import pytest

from hfftools.corpora import download
from hfftools.log import UserError
from hfftools.upstream import s3prl
from hfftools.upstream.checkpoint_files import cache_file, fetch
from hfftools.upstream.names import load_upstream


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("HFF_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    return tmp_path / "cache"


def files_in(folder):
    return sorted(path.name for path in folder.glob("*") if path.suffix not in (".lock", ".sqlite"))


def test_cache_files_are_those_of_s3prl(monkeypatch, tmp_path):
    theirs = pytest.importorskip("s3prl.util.download")
    monkeypatch.setattr(theirs, "_download_dir", tmp_path)
    url = s3prl.url_of("wav2vec2_large_ll60k", "wav2vec2")
    assert url == "https://huggingface.co/s3prl/converted_ckpts/resolve/main/wav2vec_vox_new.pt"
    assert cache_file(url).name == theirs._urls_to_filepaths(url, download=False).split("/")[-1]
    monkeypatch.delenv("HFF_CACHE")
    assert str(cache_file(url).parent).endswith(".cache/s3prl/download")


def test_every_registered_name_has_one_url():
    urls = {name: s3prl.url_of(name, family) for name, family in s3prl.registered().items()}
    assert {"wav2vec2", "hubert_base", "wavlm_large", "data2vec", "xlsr_53", "contentvec"} <= set(urls)
    assert all(url.startswith("https://huggingface.co/") for url in urls.values())
    assert set(s3prl.ALIASES.values()) <= set(urls) and not set(s3prl.ALIASES) & set(urls)


def test_a_file_put_in_place_is_used(saved, caplog, monkeypatch, cache):
    path = cache_file(s3prl.url_of("wav2vec2_large_ll60k", "wav2vec2"))
    cache.mkdir()
    path.write_bytes(saved("wav2vec2_large").read_bytes())
    monkeypatch.setattr(download, "urlopen", None)
    with caplog.at_level(logging.INFO, "hff"):
        model = load_upstream("wav2vec2_large")
    assert "upstream wav2vec2_large is s3prl's wav2vec2_large_ll60k" in caplog.text
    assert model.name == "wav2vec2_large" and model.hash == load_upstream("wav2vec2_large_ll60k").hash


def test_offline_names_the_url_and_the_cache_file(server, monkeypatch, cache):
    url = f"{server.url}/hubert.pt"
    server.shutdown()
    server.server_close()
    monkeypatch.setattr(s3prl, "url_of", lambda *_: url)
    with pytest.raises(UserError) as caught:
        load_upstream("hubert_base")
    assert url in str(caught.value) and str(cache_file(url)) in str(caught.value) and "\n" not in str(caught.value)
    assert files_in(cache) == []


def test_download_once_and_load(server, saved, monkeypatch, cache):
    content = saved("hubert_base").read_bytes()
    server.files["/hubert.pt"] = content, len(content)
    monkeypatch.setattr(s3prl, "url_of", lambda *_: f"{server.url}/hubert.pt")
    first, second = load_upstream("hubert_base"), load_upstream("hubert_base")
    assert server.requests == 1 and first.hash == second.hash
    assert files_in(cache) == [cache_file(f"{server.url}/hubert.pt").name]


def test_concurrent_downloads_are_one(server):
    server.files["/a.pt"] = b"x" * 3_000_000, 3_000_000
    threads = [threading.Thread(target=fetch, args=(f"{server.url}/a.pt",)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert server.requests == 1 and cache_file(f"{server.url}/a.pt").stat().st_size == 3_000_000


def test_cut_short_or_absent_leaves_nothing(server, cache):
    server.files["/cut.pt"] = b"half", 8
    for name, what in (("cut.pt", "4 of 8 bytes were received"), ("none.pt", "404")):
        with pytest.raises(UserError, match=what):
            fetch(f"{server.url}/{name}")
    assert files_in(cache) == []


def test_broken_cache_file_is_named(cache):
    path = cache_file(s3prl.url_of("hubert_base", "hubert"))
    cache.mkdir()
    path.write_bytes(b"half a checkpoint")
    with pytest.raises(UserError, match=f"{path} is not a checkpoint .*; delete it"):
        load_upstream("hubert_base")
