"""One upstream, many trained sets: frozen tensors are in memory once, and each utterance is decoded by its own set."""

import json
import shutil
import subprocess
import sys

import pytest
import torch

from hfftools.config import conf_file
from hfftools.data import datadir
from hfftools.data.batch import Speech
from hfftools.data.table import read_table, write_table
from hfftools.infer import bank, decode_sets
from hfftools.log import UserError
from hfftools.train import job

METHODS = {"a": ["houlsby_chen"], "b": ["lora"], "c": ["full"], "d": ["hff"]}


@pytest.fixture(scope="module")
def trained(corpus, encoder, tmp_path_factory):
    """Four experiments over one upstream, trained hot enough for their hypotheses to differ."""
    root = tmp_path_factory.mktemp("trained")
    options = [
        f"upstream={encoder}", f"data.train={corpus}/train", f"data.dev={corpus}/dev", f"data.test=[{corpus}/test]",
        f"data.units={corpus}/units", "data.batch_seconds=12", "task.head=linear", "train.epochs=3", "data.workers=0",
        "device=cpu", "optim.head.lr=0.1", "optim.fuse.lr=0.05", "optim.upstream.lr=0.01",
    ]  # fmt: skip
    for seed, (name, (method,)) in enumerate(METHODS.items()):
        job.train(root / name, [conf_file("method", method)], [*options, f"seed={seed}"])
    return root


def storages(module) -> dict[int, int]:
    """{address: bytes} of the tensors of a module."""
    tensors = [*module.parameters(), *module.buffers()]
    return {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}


def test_frozen_tensors_are_in_memory_once(trained, monkeypatch):
    loads = []
    load = bank.load_upstream
    monkeypatch.setattr(bank, "load_upstream", lambda name: loads.append(name) or load(name))
    sets = bank.Bank()
    a, b, c = (sets.add(trained / name) for name in "abc")
    assert len(loads) == 1
    own = {name: sum(p.nbytes for p in m.upstream.parameters() if p.requires_grad) for name, m in (("a", a), ("b", b))}
    one = sum(storages(a.upstream).values()) - own["a"]
    both = sum({**storages(a.upstream), **storages(b.upstream)}.values())
    assert both == one + own["a"] + own["b"]
    for name, parameter in c.upstream.named_parameters():  # what full fine-tuning changed is its own
        assert (parameter.untyped_storage().data_ptr() in storages(a.upstream)) != parameter.requires_grad, name


def test_each_utterance_is_decoded_by_its_own_set(trained, corpus):
    sets, alone = bank.Bank(), {}
    utterances = datadir.read(corpus / "test")
    data = Speech(utterances, None)
    batch = data.collate([data[i] for i in range(len(data))])
    for name in METHODS:
        alone[name] = bank.Bank().add(trained / name).predict(batch)
    assert len({tuple(texts) for texts in alone.values()}) >= 3  # there is something to mix up
    for name in METHODS:
        sets.add(trained / name)
    names = ["abcd"[i % 4] for i in range(len(data))]
    mixed = sets.predict(batch, [trained / name for name in names])
    assert mixed == [alone[name][row] for row, name in enumerate(names)]
    assert sets.models[trained / "a"].predict(batch) == alone["a"]  # and a call by one set alone


def test_the_command_decodes_by_several_and_by_choice(trained, corpus, tmp_path):
    exps = [str(trained / name) for name in "ab"]
    command = [sys.executable, "-m", "hfftools.bin.decode", *exps]
    done = subprocess.run([*command, "device=cpu"], capture_output=True, text=True)
    assert done.returncode == 0 and done.stdout.count("wrote") == 2, done.stderr
    texts = {name: read_table(trained / name / "decode" / "test" / "text", value_required=False) for name in "ab"}
    table = {utt: "ab"[i % 2] for i, utt in enumerate(sorted(texts["a"]))}
    write_table(tmp_path / "utt2exp", table)
    by_choice = ["--data", f"{corpus}/test", "--choose", str(tmp_path / "utt2exp"), "--out", str(tmp_path / "out")]
    done = subprocess.run([*command, *by_choice], capture_output=True, text=True)
    assert done.returncode == 0 and "%WER" in done.stdout and f"wrote {tmp_path}/out/test" in done.stdout
    mixed = read_table(tmp_path / "out" / "test" / "text", value_required=False)
    assert mixed == {utt: texts[name][utt] for utt, name in table.items()}
    assert set(json.loads((tmp_path / "out" / "test" / "decode.json").read_text())["scores"]) == {"wer", "cer"}
    made_by = [trained / name / "checkpoints" / "final.safetensors" for name in "ab"]
    for path in [*made_by, tmp_path / "utt2exp"]:  # a decoded set is out of date where one of these has changed since
        before = path.read_bytes()
        assert decode_sets.stale(tmp_path / "out" / "test") == []
        path.write_bytes(before + b"0")
        assert decode_sets.stale(tmp_path / "out" / "test") == [str(path)]
        path.write_bytes(before)


def test_a_choice_that_is_missing_or_wrong_is_named(trained, corpus, tmp_path):
    utts = [u.id for u in datadir.read(corpus / "test")]
    for table, what in (
        ({utt: "a" for utt in utts[1:]}, f"{utts[0]}: is missing"),
        ({utt: "z" for utt in utts}, "'z' is none of a, b"),
    ):
        write_table(tmp_path / "utt2exp", table)
        with pytest.raises(UserError, match=what):
            decode_sets.decode_chosen(
                [trained / "a", trained / "b"], tmp_path / "utt2exp", [f"{corpus}/test"], tmp_path / "out", []
            )
    shutil.copytree(trained / "a", tmp_path / "other" / "a")
    with pytest.raises(UserError, match="two experiments are called a"):
        decode_sets.decode_chosen(
            [trained / "a", tmp_path / "other" / "a"], tmp_path / "utt2exp", [f"{corpus}/test"], tmp_path / "out", []
        )


def test_a_view_is_left_alone_by_what_is_done_to_another(trained):
    sets = bank.Bank()
    a, c = sets.add(trained / "a"), sets.add(trained / "c")
    before = [p.detach().clone() for p in a.parameters()]
    with torch.no_grad():
        for parameter in c.parameters():
            if parameter.requires_grad:
                parameter.zero_()
    assert all(torch.equal(old, new) for old, new in zip(before, a.parameters(), strict=True))
