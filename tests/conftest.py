"""A tiny corpus and a tiny random-weight encoder, made once a session; they prove loading and learning, never quality."""

import http.server
import os
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from hfftools.audio import waveform
from hfftools.corpora import mini
from hfftools.data import datadir
from hfftools.data.datadir import Utterance
from hfftools.text import units
from hfftools.upstream.conformer import ConformerUpstream, EncoderConfig, save

pytest_plugins = ["checkpoints", "hub_server"]  # tiny models of every family; a Hugging Face Hub of this machine
torch.set_num_threads(1)
os.environ["HF_HUB_OFFLINE"] = "1"  # read when huggingface_hub is imported: no test asks the real hub
os.environ["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"  # where the hff commands are


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory) -> None:
    """Keep downloads and digests out of the user's cache, also in processes that tests start."""
    os.environ["HFF_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def encoder(tmp_path_factory) -> Path:
    """A Conformer encoder of three narrow blocks with random weights."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("encoder") / "encoder.safetensors"
    save(ConformerUpstream(EncoderConfig(dim=32, layers=3, heads=2, expansion=2, kernel=5)), path, {})
    return path


@pytest.fixture(scope="session")
def corpus(tmp_path_factory) -> Path:
    """Data directories train, dev and test of egs/mini, a few utterances each, and character units."""
    root = tmp_path_factory.mktemp("corpus")
    for name, utterances in mini.sets(None, root, 32).items():
        slow_enough = [u for u in utterances if u.duration_s > 0.05 * len(u.text)]  # frames for all their characters
        datadir.write(root / name, slow_enough[: {"train": 24, "dev": 6, "test": 6}[name]])
    units.train("char", [u.text for u in datadir.read(root / "train")], None, root / "units")
    return root


@pytest.fixture
def options(corpus, encoder) -> list[str]:
    """Arguments of hff-train for a run of seconds on the tiny corpus."""
    return [
        f"upstream={encoder}", f"data.train={corpus}/train", f"data.dev={corpus}/dev", f"data.test=[{corpus}/test]",
        f"data.units={corpus}/units", "data.batch_seconds=12", "task.head_dim=16", "task.head_layers=1", "train.epochs=2",
        "data.workers=0", "device=cpu", "train.bf16=false",  # the same figures on every processor
    ]  # fmt: skip


@pytest.fixture
def server():
    """{path: (content, length announced)} served; `.requests` counts, `.ranges` are those asked for.

    A path in `.etags` can be gone on with, from a byte; of one in `.cuts` so many bytes come, once, and the line goes dead.
    """

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.server.requests += 1
            if self.path not in self.server.files:
                return self.send_error(404)
            content, length = self.server.files[self.path]
            tag, asked = self.server.etags.get(self.path), self.headers.get("Range")
            self.server.ranges.append(asked)
            if asked and tag and self.headers.get("If-Range") == tag:
                start = int(asked.removeprefix("bytes=").removesuffix("-"))
                self.send_response(206)
                self.send_header("Content-Range", f"bytes {start}-{length - 1}/{length}")
                content, length = content[start:], length - start
            else:
                self.send_response(200)
            if tag:
                self.send_header("ETag", tag)
            self.send_header("Content-Length", str(length))
            self.end_headers()
            self.wfile.write(content[: self.server.cuts.pop(self.path, None)])

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.files, server.requests, server.url = {}, 0, f"http://127.0.0.1:{server.server_port}"
    server.etags, server.cuts, server.ranges = {}, {}, []
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


TEXTS = {"ann-1": "the cat", "ann-2": "مرحبا بك", "bob-1": "e\u0301 é 你好", "bob-10": "a", "bob-9": "b"}


@pytest.fixture
def spoken(tmp_path) -> list[Utterance]:
    """Five utterances of 0.5 to 0.9 s, last id first."""
    spoken = []
    for index, (utt, text) in enumerate(reversed(TEXTS.items())):
        path, duration_s = tmp_path / f"{utt}.wav", 0.5 + index / 10
        waveform.save(path, np.full(round(duration_s * 16000), 0.1))
        spoken.append(Utterance(utt, utt.split("-")[0], str(path), text, duration_s=duration_s))
    return spoken


@pytest.fixture
def folder(tmp_path, spoken):
    """`spoken` as a data directory."""
    datadir.write(tmp_path / "set", spoken)
    return tmp_path / "set"
