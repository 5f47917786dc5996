"""A Hugging Face Hub on this machine: the routes that huggingface_hub calls, over repositories that a test fills."""

import hashlib
import http.server
import json
import re
import threading
from pathlib import Path

import pytest

ROUTE = re.compile(r"/(?P<id>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<name>.+)")
API = re.compile(r"/api/models/(?P<id>[^/]+/[^/]+)/(?P<what>revision|tree)/(?P<revision>[^/?]+)")


class Hub:
    """Repositories by name: {commit: {file: content}}, {branch or tag: commit}; what was asked for, and {file: token}."""

    def __init__(self, url: str):
        self.url, self.commits, self.refs, self.asked, self.tokens, self.refused = url, {}, {}, [], {}, {}

    def push(self, name: str, files: dict[str, bytes] | Path, branch: str = "main") -> str:
        """Add a commit, of files or those of a folder, and return its hash."""
        if isinstance(files, Path):
            files = {path.name: path.read_bytes() for path in files.iterdir()}
        commit = hashlib.sha1(repr((name, sorted(files.items()))).encode()).hexdigest()
        self.commits.setdefault(name, {})[commit] = files
        self.refs.setdefault(name, {})[branch] = commit
        return commit

    def answer(self, path: str) -> tuple[int, dict[str, str], bytes]:
        """Return status, headers and body."""
        match = ROUTE.fullmatch(path) or API.match(path)
        name = match and match["id"]
        if name in self.refused:
            status, code = self.refused[name]
            return status, {"X-Error-Code": code} if code else {}, b""
        if name not in self.commits:
            return 401, {"X-Error-Code": "RepoNotFound"}, b""
        commit = self.refs[name].get(match["revision"], match["revision"])
        if commit not in self.commits[name]:
            return 404, {"X-Error-Code": "RevisionNotFound"}, b""
        files = self.commits[name][commit]
        if match.re is API:
            return self._listing(name, commit, files, match["what"])
        if match["name"] not in files:
            return 404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": commit}, b""
        content = files[match["name"]]
        return 200, {"X-Repo-Commit": commit, "ETag": f'"{hashlib.sha256(content).hexdigest()}"'}, content

    def _listing(self, name, commit, files, what):
        if what == "tree":
            rows = [{"type": "file", "path": file, "size": len(files[file]), "oid": "0" * 40} for file in files]
        else:
            rows = {"id": name, "sha": commit, "siblings": [{"rfilename": file} for file in files]}
        return 200, {"Content-Type": "application/json"}, json.dumps(rows).encode()

    @property
    def names(self) -> list[str]:
        """Return the names of the files that were asked for, once each."""
        matches = [ROUTE.fullmatch(path) for _, path in self.asked]
        return list(dict.fromkeys(match["name"] for match in matches if match))


@pytest.fixture
def hub():
    """A running server; see Hub."""

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            self.server.hub.asked.append((self.command, self.path))
            self.server.hub.tokens[self.path.rpartition("/")[2]] = self.headers.get("Authorization")
            status, headers, content = self.server.hub.answer(self.path)
            self.send_response(status)
            for key, value in {**headers, "Content-Length": str(len(content))}.items():
                self.send_header(key, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(content)

        do_HEAD = do_GET

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.hub = Hub(f"http://127.0.0.1:{server.server_port}")
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield server.hub
    server.shutdown()
    server.server_close()


@pytest.fixture
def online(hub, monkeypatch, tmp_path):
    """The server as the hub of this process, with an empty cache; huggingface_hub has read its settings long before."""
    import huggingface_hub
    from huggingface_hub import constants

    from hfftools.upstream import hub as ours

    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setattr(constants, "ENDPOINT", hub.url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub.url + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(ours, "_COMMITS", {})
    huggingface_hub.close_session()
    yield hub
    huggingface_hub.close_session()
