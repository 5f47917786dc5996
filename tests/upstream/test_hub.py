"""Repositories of the Hugging Face Hub as upstreams, from a local server, and from a cache without any."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants
from huggingface_hub.utils import _http

from hfftools.expdir import ExpDir
from hfftools.infer import export
from hfftools.infer.bank import Bank
from hfftools.log import UserError
from hfftools.train import experiment
from hfftools.train.job import train
from hfftools.upstream import hub as hub_module
from hfftools.upstream.names import load_upstream, parse, pin

ID = "some-lab/hubert-2.0-base"


@pytest.fixture
def pushed(online, saved):
    """The hub with one model, and its commit."""
    return online, online.push(ID, saved("hf_hubert_base"))


def states(model):
    torch.manual_seed(0)
    with torch.no_grad():
        return model(torch.randn(1, 4000), torch.tensor([4000]), [3])[0][3]


def offline(monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    hub_module._COMMITS.clear()


def refused(name, load=parse):
    with pytest.raises(UserError) as caught:
        load(name)
    assert name in str(caught.value) and "\n" not in str(caught.value)
    return str(caught.value)


def test_it_is_the_model_of_the_folder(pushed, saved):
    hub, commit = pushed
    source = parse(f"hf:{ID}")
    assert hub.names == ["config.json"] and source.places and source.digests() == {}
    assert source.pinned == f"hf:{ID}@{commit}" and source.short_name == "hubert-2.0-base"
    assert source.random().num_layers == 3 and hub.names == ["config.json"]
    model, local = source.load(), load_upstream(f"hf:{saved('hf_hubert_base')}")
    assert hub.names == ["config.json", "preprocessor_config.json", "model.safetensors"]
    assert model.digests == source.digests() == local.digests and model.name == source.pinned
    assert torch.equal(states(model), states(local))
    asked = len(hub.asked)
    assert load_upstream(f"hf:{ID}@{commit}").hash == model.hash and len(hub.asked) == asked


def test_offline_nothing_is_asked_for(pushed, monkeypatch):
    hub, commit = pushed
    model = load_upstream(f"hf:{ID}")
    asked = len(hub.asked)
    offline(monkeypatch)
    for name in (f"hf:{ID}", f"hf:{ID}@main", f"hf:{ID}@{commit}"):
        assert load_upstream(name).hash == model.hash and parse(name).digests() == model.digests
    refused(f"hf:{ID}@v2")
    refused("hf:some-lab/other")
    assert len(hub.asked) == asked


def test_the_offline_error_names_the_command_that_fills_the_cache(pushed, monkeypatch, tmp_path):
    hub, commit = pushed
    hub.push(ID, {**hub.commits[ID][commit], "flax_model.msgpack": b"", "README.md": b""})
    offline(monkeypatch)
    cache, moved = Path(constants.HF_HUB_CACHE), tmp_path / "moved"
    for name, revision in ((f"hf:{ID}", "main"), (f"hf:{ID}@{commit}", commit)):
        line = refused(name)
        assert f"{cache} has no config.json of {ID}, and HF_HUB_OFFLINE is set" in line
        command, folder = re.search("run `hf (.*)` .* copy its folder ([^ ]*) into", line).groups()
        assert (revision in command) == (revision != "main")
        there = {
            "HF_ENDPOINT": hub.url,
            "HF_HOME": str(tmp_path / "there"),
            "HF_HUB_OFFLINE": "0",
            "no_proxy": "127.0.0.1",
        }
        program = [str(Path(sys.executable).parent / "hf"), *shlex.split(command)]
        subprocess.run(program, env={**os.environ, **there}, check=True, capture_output=True)
        shutil.move(tmp_path / "there" / "hub" / folder, moved / folder)
        with monkeypatch.context() as patch:
            patch.setattr(constants, "HF_HUB_CACHE", str(moved))
            hub_module._COMMITS.clear()
            model = load_upstream(name)
        hub_module._COMMITS.clear()
        files = {path.name for path in (moved / folder).glob("snapshots/*/*")}
        assert model.num_layers == 3 and files == {"config.json", "preprocessor_config.json", "model.safetensors"}
        shutil.rmtree(moved)


def test_what_the_cache_lacks_offline(pushed, monkeypatch):
    parse(f"hf:{ID}")
    offline(monkeypatch)
    assert "has no preprocessor_config.json of" in refused(f"hf:{ID}", load_upstream)


def test_settings_are_those_of_the_environment(pushed, tmp_path):
    hub, _ = pushed
    code = f"from hfftools.upstream.hub import Repo; print(Repo('{ID}', '', '').folder)"
    settings = {
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(tmp_path / "home"),
        "HF_TOKEN": "hf_secret",
        "no_proxy": "127.0.0.1",
    }
    run = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **settings, "HF_HUB_OFFLINE": "0"},
        check=True,
        stdout=-1,
        text=True,
    )
    assert run.stdout.startswith(f"{tmp_path}/home/hub/models--some-lab--hubert-2.0-base/snapshots/")
    assert hub.tokens["config.json"] == "Bearer hf_secret"


@pytest.mark.parametrize(
    "status, code, line",
    [
        (
            401,
            "RepoNotFound",
            "does not exist, or is private, .*; correct the name, or log in with `hf auth login`, or set HF_T",
        ),
        (
            401,
            "GatedRepo",
            "is gated; accept its terms on that page, then log in with `hf auth login`, or set HF_TOKEN$",
        ),
        (
            403,
            "GatedRepo",
            "is gated; accept its terms on that page, then log in with `hf auth login`, or set HF_TOKEN$",
        ),
        (403, "", r"may not be read with this token \(403\); log in"),
        (401, "", r"may not be read with this token \(401\); log in"),
        (404, "", r"cannot be downloaded \(.*404.*\); try again$"),
    ],
)
def test_the_hub_refuses(pushed, status, code, line):
    hub, _ = pushed
    hub.refused[ID] = status, code
    assert re.search(f"{hub.url}/{ID} {line}", refused(f"hf:{ID}"))


def test_what_the_hub_does_not_have(pushed, saved, monkeypatch):
    hub, commit = pushed
    assert f"{hub.url}/some-lab/none does not exist" in refused("hf:some-lab/none")
    assert f"{hub.url}/{ID} has no branch, tag or commit v2; give one that it has" in refused(f"hf:{ID}@v2")
    files = hub.commits[ID][commit]
    for name, what in (
        ("config.json", "config.json"),
        ("model.safetensors", "weights \\(model.safetensors or pytorch_mo"),
    ):
        branch = name.partition(".")[0]
        hub.push("some-lab/part", {key: content for key, content in files.items() if key != name}, branch)
        assert re.search(f"some-lab/part has no {what}", refused(f"hf:some-lab/part@{branch}", load_upstream))
    monkeypatch.setattr(_http.time, "sleep", lambda _: None)
    hub.refused["some-lab/down"] = 503, ""
    assert re.search(
        rf"the cache .* and {hub.url} cannot be reached \(.*503.*\); run `hf download", refused("hf:some-lab/down")
    )


@pytest.mark.parametrize(
    "name", ["none", "a/b/c", "./a/b", "/a/b", "https://huggingface.co/a/b", "a/b@", "a/b@x@y@z", "a b/c"]
)
def test_what_is_neither_a_folder_nor_a_repository(name):
    assert "is not a folder; give one written by save_pretrained, or a repository" in refused(f"hf:{name}")


def test_a_revision_is_a_branch_a_tag_or_a_commit(pushed, saved):
    hub, first = pushed
    second = hub.push(ID, saved("hf_hubert_large"))
    hub.refs[ID]["v1"] = first
    assert parse(f"hf:{ID}@v1").pinned == parse(f"hf:{ID}@{first}").pinned == f"hf:{ID}@{first}"
    assert parse(f"hf:{ID}").pinned == parse(f"hf:{ID}@main").pinned == f"hf:{ID}@{second}"
    assert parse(f"hf:{ID}+fbank").pinned == f"hf:{ID}@{second}+fbank"


def test_a_process_keeps_to_one_commit(pushed, saved):
    hub, first = pushed
    source = parse(f"hf:{ID}")
    hub.push(ID, saved("hf_hubert_large"))
    assert source.load().name == load_upstream(f"hf:{ID}").name == f"hf:{ID}@{first}"


def test_only_the_weights_that_are_read_are_downloaded(pushed, saved):
    hub, commit = pushed
    files = hub.commits[ID][commit]
    hub.push(ID, {**files, "pytorch_model.bin": b"", "model.fp32-00001-of-00001.safetensors": b"", "README.md": b""})
    load_upstream(f"hf:{ID}")
    assert hub.names == ["config.json", "preprocessor_config.json", "model.safetensors"]


def test_an_experiment_goes_on_with_its_commit(pushed, saved, options, tmp_path):
    hub, first = pushed
    words = [*options[1:], f"upstream=hf:{ID}", "train.epochs=1", "fuse.name=weighted_sum"]
    exp = train(tmp_path / "exp", [], words)
    config = experiment.read_config(exp, [])
    assert config.upstream == f"hf:{ID}@{first}"
    hub.push(ID, saved("hf_hubert_large"))
    hub_module._COMMITS.clear()
    train(tmp_path / "exp", [], words)  # finds the experiment finished
    exp.final.unlink()
    train(tmp_path / "exp", [], words)
    model = Bank().add(exp.root)
    assert model.upstream.name == export.facts(exp, config, model)["upstream"] == f"hf:{ID}@{first}"
    with pytest.raises(UserError, match=f"upstream was 'hf:{ID}@{first}' and is now 'hf:{ID}@"):
        train(tmp_path / "exp", [], [*words, f"upstream=hf:{ID}@{hub.refs[ID]['main']}"])


def test_the_recorded_commit_is_that_of_the_name_without_it(pushed, tmp_path, saved):
    _, first = pushed
    exp = ExpDir(tmp_path)
    for asked, recorded in {
        f"hf:{ID}": f"hf:{ID}@{'1' * 40}",
        f"hf:{ID}+fbank": f"hf:{ID}@{'1' * 40}+fbank",
        f"fbank+hf:{ID}@fra": f"fbank+hf:{ID}@{'1' * 40}@fra",
    }.items():
        exp.config.write_text(f"upstream: {recorded}\n")
        assert pin(experiment.configure([], [f"upstream={asked}"]), exp.config).upstream == recorded
    exp.config.write_text("upstream: fbank\n")
    for asked in (f"hf:{ID}", f"hf:{ID}@main"):
        assert pin(experiment.configure([], [f"upstream={asked}"]), exp.config).upstream == f"hf:{ID}@{first}"
    assert pin(experiment.configure([], ["upstream=fbank"]), exp.config).upstream == "fbank"
