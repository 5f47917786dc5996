"""A record that is empty, cut or of another form is named, with what to do; none is taken for one that holds nothing."""

import json
import os

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.torch import save_file

from hfftools import disk, expdir
from hfftools.corpora.prepare import prepare
from hfftools.decode.lm import of_units
from hfftools.expdir import ExpDir, check_inputs, write_aside, write_json, write_text
from hfftools.infer.decode_sets import decode, read_scores
from hfftools.log import UserError
from hfftools.pretrain.features import corpus as features_of
from hfftools.recorded import compare_config
from hfftools.records import check, read_json, read_json_lines, readable
from hfftools.report.training_curves import training_curves
from hfftools.text import units
from hfftools.train import checkpoint
from hfftools.train.config import Config
from hfftools.train.experiment import read_config
from hfftools.train.job import read_resources, train
from hfftools.upstream.conformer import load as load_encoder
from hfftools.upstream.state_cache import HiddenCache

FORM = {"name": str, "layers": [int], "from": {"limit": int | None}}
WHOLE = {"name": "a", "layers": [1, 2], "from": {"limit": None}, "more": 1}


def test_a_record_of_its_form_comes_back_and_others_say_where_they_differ(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, WHOLE)
    assert read_json(path, FORM) == WHOLE
    for changed, reason in (
        ({"name": 3}, "'name' is of type int"),
        ({"layers": [1, "2"]}, "an entry of 'layers' is of type str"),
        ({"layers": {}}, "'layers' is of type dict"),
        ({"from": {}}, "'from' has no 'limit'"),
    ):
        with pytest.raises(ValueError, match=reason):
            check(WHOLE | changed, FORM)
        write_json(path, WHOLE | changed)
        with pytest.raises(UserError, match=rf"a\.json is damaged \({reason}\); remove it and run the same command"):
            read_json(path, FORM)


@pytest.mark.parametrize("content", [b"", b'{"name": "a", "lay', b"\0" * 40, b"\xff{}", b"[]", b"3"])
def test_every_kind_of_damage_is_one_line(content, tmp_path):
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(UserError) as raised:
        read_json(path, FORM, "do this")
    assert str(raised.value).startswith(f"{path} is {'damaged (' if content else 'empty; '}")
    assert str(raised.value).endswith("; do this") and "\n" not in str(raised.value)


def test_lines_of_another_form_are_left_out(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"epoch": 1}\n{"epoch": "2"}\n3\n\0\0\0\n{"epoch": 4}\n{"epo')
    assert read_json_lines(path, {"epoch": int}) == [{"epoch": 1}, {"epoch": 4}]


def test_forms_of_tables_whose_keys_are_not_all_known(tmp_path):
    form = {"sets": {...: {"seconds": float}}, "hash?": str}
    whole = {"sets": {"dev": {"seconds": 1.0}, "test": {"seconds": 2.0}}}
    assert check(whole, form) == whole and check(whole | {"hash": "a"}, form)
    for changed, reason in (
        ({"hash": None}, "'hash' is of type NoneType"),
        ({"sets": {"dev": {"seconds": 1.0}, "test": {}}}, "'test' has no 'seconds'"),
        ({"sets": []}, "'sets' is of type list"),
    ):
        with pytest.raises(ValueError, match=reason):
            check(whole | changed, form)


def test_half_a_character_is_damage(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"a": "\\ud83d\\ude00"}\n{"a": "\\ud83d"}\n')
    assert read_json_lines(path) == [{"a": "\U0001f600"}]
    path.write_bytes(b'{"a": "\\UD83D"}'.replace(b"U", b"u"))
    with pytest.raises(UserError, match="damaged .*surrogates"):
        read_json(path, dict)


@pytest.mark.parametrize("key", ["parameters", "train_seconds", "dev_error", "peak_bytes"])
def test_costs_of_another_type_are_damage(made, key):
    path, read = next((path, read) for path, read in made.items() if path.name == "resources.json")
    whole = path.read_text()
    write_json(path, json.loads(whole) | {key: "x"})
    with pytest.raises(UserError, match=rf"resources\.json is damaged \('{key}' is of type str\)"):
        read()
    path.write_text(whole)


def test_half_a_count_of_acting_parts_is_damage(made):
    path, read = next((path, read) for path, read in made.items() if path.name == "resources.json")
    whole = path.read_text()
    write_json(path, json.loads(whole) | {"acting": {"acting": 3}})
    with pytest.raises(UserError, match=r"resources\.json is damaged \('acting' has no 'parts'\)"):
        read()
    path.write_text(whole)


def test_scores_that_lack_a_count_are_damage(made):
    path, read = next((path, read) for path, read in made.items() if path.name == "decode.json")
    whole = path.read_text()
    stored = json.loads(whole)
    for changed, reason in (({"words": "1"}, "'words' is of type str"), ({"more": 1}, "unexpected keyword .*'more'")):
        write_json(path, stored | {"scores": {"wer": stored["scores"]["wer"] | changed}})
        with pytest.raises(UserError, match=rf"decode\.json is damaged \(.*{reason}"):
            read()
    path.write_text(whole)


def test_what_the_system_refuses_is_not_called_damage(tmp_path):
    with pytest.raises(FileNotFoundError), readable(tmp_path / "none"):
        open(tmp_path / "none")
    (tmp_path / "folder").mkdir()
    with pytest.raises(IsADirectoryError), readable(tmp_path / "folder"):
        open(tmp_path / "folder")


@pytest.fixture(scope="module")
def made(corpus, encoder, tmp_path_factory):
    """A folder with one of each of our records: {path: what reads it}."""
    root = tmp_path_factory.mktemp("made")
    words = [
        f"upstream={encoder}", f"data.train={corpus}/train", f"data.dev={corpus}/dev", f"data.test=[{corpus}/test]",
        f"data.units={corpus}/units", "task.head_dim=8", "task.head_layers=1", "train.epochs=1", "data.workers=0",
        "device=cpu", "train.bf16=false",
    ]  # fmt: skip
    exp = train(root / "exp", [], words)
    (decoded,) = decode([exp.root], [], ["device=cpu"])
    prepare("mini", None, root / "mini", 2)
    cache = HiddenCache(root / "feats", "a")
    cache.write([("u", {0: np.zeros((2, 3))})], [0], "x", {"upstream": "hash"})
    features_of([f"{corpus}/dev"], root / "mel")
    write_json(root / "lm.json", {"units": None})
    units.train("char", ["ab"], None, root / "units")
    return {
        exp.inputs: lambda: check_inputs(exp.inputs, {}),
        exp.config: lambda: read_config(exp, []),
        exp.resources: lambda: read_resources(exp),
        exp.history: lambda: training_curves(exp),
        exp.final: lambda: checkpoint.read(exp.final),
        exp.state: lambda: checkpoint.read_state(exp.state, {"epoch": int}),
        decoded / "decode.json": lambda: read_scores(decoded),
        root / "mini" / ".mini.json": lambda: prepare("mini", None, root / "mini", 2),
        cache.info_file: lambda: cache.lacks([0], {}),
        root / "mel" / "index.json": lambda: features_of([f"{corpus}/dev"], root / "mel"),
        root / "mel" / "mel.npy": lambda: features_of([f"{corpus}/dev"], root / "mel"),
        root / "lm.json": lambda: of_units(root / "lm.arpa"),
        root / "units" / "units.json": lambda: units.load(root / "units"),
        encoder: lambda: load_encoder(encoder, "mine"),
    }


@pytest.mark.parametrize("keep", [0, 0.5], ids=["empty", "cut"])
def test_every_record_that_is_damaged_is_named(made, keep):
    for path, read in made.items():
        read()
        whole = path.read_bytes()
        path.write_bytes(whole[: int(keep * len(whole))])
        if path.suffix in (".jsonl", ".yaml") and keep:
            path.write_bytes(whole)  # what is left of lines may be whole lines
            continue
        with pytest.raises(UserError, match=rf"{path}.*(remove|make the folder again|copy it)"):
            read()
        path.write_bytes(whole)


def test_numbers_that_are_not_finite_are_damage(made, encoder, tmp_path):
    """In frames of log-mel and in checkpoints, which have no checksum."""
    (mel,) = (path for path in made if path.name == "mel.npy")
    whole = mel.read_bytes()
    frames = np.load(mel)
    frames[-1, 3] = np.inf
    np.save(mel, frames)
    speech = made[mel]()
    speech.mel(0)
    with pytest.raises(UserError, match=rf"{mel} is damaged \(frames \d+ to {len(frames)} hold .* not finite.*remove"):
        speech.mel(len(speech) - 1)
    mel.write_bytes(whole)
    (final,) = (path for path in made if path.name == "final.safetensors")
    for path, read in (
        (final, lambda: checkpoint.read(tmp_path / "a")),
        (encoder, lambda: load_encoder(tmp_path / "a", "x")),
    ):
        with safe_open(path, "pt") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}
            name = max(tensors, key=lambda key: tensors[key].numel())
            tensors[name].flatten()[0] = float("nan")
            save_file(tensors, tmp_path / "a", file.metadata())
        with pytest.raises(UserError, match=f"a is damaged \\('{name}' has values that are not finite numbers\\)"):
            read()


def test_an_empty_configuration_does_not_stand_for_the_defaults(tmp_path):
    write_text(tmp_path / "config.yaml", "")
    with pytest.raises(UserError, match=r"config\.yaml is empty; remove it"):
        compare_config(Config(upstream="x"), tmp_path / "config.yaml")


def test_content_is_on_the_disk_before_its_name_and_many_files_are_synced_at_once(tmp_path, monkeypatch):
    done = []
    monkeypatch.setattr(expdir, "sync", lambda path: done.append(("sync", path.name)))
    replace = os.replace
    monkeypatch.setattr(os, "replace", lambda a, b: (done.append(("rename", b.name)), replace(a, b)))
    write_text(tmp_path / "a", "x")
    (_, aside), *rest = done
    assert aside.startswith(".a.") and rest == [("rename", "a"), ("sync", tmp_path.name)]
    done.clear()
    with write_aside(tmp_path / "b", synced=False) as aside:
        aside.write_text("x")
    assert done == [("rename", "b")]
    disk.sync_all(tmp_path)
    with pytest.raises(FileNotFoundError):
        disk.sync_all(tmp_path / "none")


def test_targets_of_pre_training_that_are_cut_are_named(tmp_path):
    path = ExpDir(tmp_path).targets
    np.savez(path, targets=np.zeros(3), classes=2)
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(UserError, match=r"targets\.npz is damaged"), readable(path):
        np.load(path)["targets"]
