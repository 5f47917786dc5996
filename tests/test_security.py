"""Files from outside that try to run code, to leave their folder or to fill the disk: each is refused in one line."""

import io
import os
import shutil
import subprocess
import tarfile
import warnings
import zipfile

import kaldiio
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from hfftools.audio import waveform
from hfftools.config import resolve
from hfftools.corpora import an4, unpacking
from hfftools.corpora.prepare import prepare
from hfftools.data import datadir
from hfftools.log import UserError
from hfftools.pretrain.features import read_arrays
from hfftools.train.checkpoint import read_state
from hfftools.train.config import Config
from hfftools.upstream.names import load_upstream
from hfftools.upstream.state_cache import HiddenCache


class Payload:
    """An object whose unpickling creates a file."""

    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.system, (f"touch '{self.mark}'",)


@pytest.fixture
def mark(tmp_path):
    """The path of a file that exists only if code of an attacker has run."""
    path = tmp_path / "attacked"
    yield path
    assert not path.exists()


def refused(call, what=""):
    with warnings.catch_warnings(), pytest.raises(UserError, match=what) as caught:
        warnings.simplefilter("ignore")
        call()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["wav2vec2_local", "hubert_local", "data2vec_local", "wavlm_local"])
def test_checkpoints_of_s3prl_are_not_unpickled(kind, saved, tmp_path, mark, monkeypatch):
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")  # the default of every call that leaves it open
    state = torch.load(saved(f"{kind.removesuffix('_local')}_base"), weights_only=True)
    torch.save({**state, "more": Payload(mark)}, tmp_path / "model.pt")
    refused(lambda: load_upstream(f"{kind}:{tmp_path}/model.pt"), "model.pt is not a checkpoint")


@pytest.mark.parametrize("form", ["wav2vec2_base", "hubert_base", "data2vec_base", "wavlm_base"])
def test_settings_of_s3prl_are_not_evaluated(form, saved, tmp_path, mark):
    state = torch.load(saved(form), weights_only=True)
    settings = state["cfg" if "cfg" in state else "model_cfg"]
    harmless = settings["conv_feature_layers"]
    settings["conv_feature_layers"] = f"[__import__('os').system('touch {mark}')] and {harmless}"
    torch.save(state, tmp_path / "model.pt")
    family = form.removesuffix("_base")
    refused(lambda: load_upstream(f"{family}_local:{tmp_path}/model.pt"), "conv_feature_layers is not a list of sizes")


def test_weights_of_transformers_are_not_unpickled_and_safetensors_come_first(saved, tmp_path, mark):
    folder = shutil.copytree(saved("hf_hubert_base"), tmp_path / "model")
    weights = load_file(folder / "model.safetensors")
    torch.save({**weights, "more": Payload(mark)}, folder / "pytorch_model.bin")
    load_upstream(f"hf:{folder}")
    (folder / "model.safetensors").unlink()
    refused(lambda: load_upstream(f"hf:{folder}"), "transformers cannot read")


def test_states_arrays_and_yaml_are_not_unpickled(tmp_path, mark):
    torch.save({"epoch": Payload(mark)}, tmp_path / "state.pt")
    refused(lambda: read_state(tmp_path / "state.pt", dict), "state.pt is damaged")
    np.savez(tmp_path / "targets.npz", targets=np.array([Payload(mark)], object))
    np.save(tmp_path / "mel.npy", np.array([Payload(mark)], object))
    for name in ("targets.npz", "mel.npy"):
        refused(lambda name=name: read_arrays(tmp_path / name, ("targets",), ""), f"{name} is damaged")
    (tmp_path / "train.yaml").write_text(f"seed: !!python/object/apply:os.system ['touch {mark}']\n")
    refused(lambda: resolve(Config, [tmp_path / "train.yaml"], []), "train.yaml")


def test_hidden_states_from_elsewhere_run_nothing(tmp_path, mark):
    def made():
        cache = HiddenCache(tmp_path, "dev")
        cache.write([("u1", {0: np.ones((2, 3), np.float32)})], [0], "some", {"upstream": "abc"}, "kaldi")
        return HiddenCache(tmp_path, "dev")

    assert (made().read("u1", [0])[0] == 1).all()
    (made().folder / "layer_00.scp").write_text(f"u1 touch {mark} |\n")
    refused(lambda: HiddenCache(tmp_path, "dev").read("u1", [0]), "cannot read u1")
    kaldiio.save_ark(str(tmp_path / "evil.ark"), {"u1": np.ones(1)}, scp=str(tmp_path / "evil.scp"))
    with open(tmp_path / "evil.ark", "wb") as file:
        kaldiio.save_ark(file, {"u1": Payload(mark)}, write_function="pickle")
    (made().folder / "layer_00.scp").write_text(f"u1 {tmp_path}/evil.ark:3\n")
    refused(lambda: HiddenCache(tmp_path, "dev").read("u1", [0]), "cannot read u1")


def member(name, kind=tarfile.REGTYPE, link="", content=b""):
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, link, len(content)
    return info, content


def archive_of(path, *members):
    with tarfile.open(path, "w:gz") as tar:
        for info, content in members:
            tar.addfile(info, io.BytesIO(content))
    return path


OUTSIDE = "../../outside.tsv"
ATTACKS = {
    "above": [member(OUTSIDE, content=b"x")],
    "link out": [member("a", tarfile.SYMTYPE, "../.."), member("a/outside.tsv", content=b"x")],
    "link": [member("a.tsv", tarfile.SYMTYPE, "/etc/passwd")],
    "hard link": [member("a.tsv", tarfile.LNKTYPE, "../../outside.tsv")],
    "device": [member("a.tsv", tarfile.CHRTYPE)],
    "pipe": [member("a.tsv", tarfile.FIFOTYPE)],
    "command": [member("a/touch outside.tsv |", content=b"x")],
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_archives_do_not_leave_their_folder(attack, tmp_path):
    archive = archive_of(tmp_path / "x.tar.gz", *ATTACKS[attack])
    folder = tmp_path / "in" / "side"
    refused(lambda: unpacking.unpack(archive, folder), "x.tar.gz cannot be unpacked .*; delete it")
    taken = []

    def place(path):
        taken.append(path)
        return folder / path

    try:
        unpacking.extract(archive, place, "tables")
    except UserError as error:
        assert "cannot be unpacked" in str(error)
    assert all(path.suffix == ".tsv" and ".." not in path.parts for path in taken), "only plain files are offered"
    kept = [path for path in tmp_path.rglob("*") if path not in (archive, tmp_path / "in", folder)]
    assert all(folder in path.parents and not path.is_symlink() for path in kept), kept


def test_absolute_names_are_unpacked_below_the_folder(tmp_path):
    archive = archive_of(tmp_path / "x.tar.gz", member(f"{tmp_path}/outside.tsv", content=b"x"))
    unpacking.unpack(archive, tmp_path / "in")
    assert not (tmp_path / "outside.tsv").exists() and len(list((tmp_path / "in").rglob("outside.tsv"))) == 1


def test_archives_that_would_fill_the_disk_stop_early(tmp_path, monkeypatch):
    monkeypatch.setattr(unpacking, "MOST_BYTES", 1 << 20)
    archive = archive_of(tmp_path / "x.tar.gz", member("zeros.tsv", content=bytes(30 << 20)))
    assert archive.stat().st_size < 100_000
    refused(lambda: unpacking.unpack(archive, tmp_path / "in"), "it unpacks to more than 1 MiB, 20 times its size")
    refused(lambda: unpacking.extract(archive, lambda p: tmp_path / "out" / p, "tables"), "more than 1 MiB")
    assert sum(path.stat().st_size for path in tmp_path.glob("*/*")) <= 1 << 20
    sparse = tmp_path / "sparse"
    with open(sparse, "wb") as file:
        file.truncate(1 << 30)
    subprocess.run(["tar", "-C", str(tmp_path), "-Sczf", str(archive), "sparse"], check=True)
    refused(lambda: unpacking.unpack(archive, tmp_path / "in"), "'sparse' in it is not a plain file")


def test_zip_archives_are_not_unpacked(tmp_path):
    with zipfile.ZipFile(tmp_path / "cv.zip", "w") as file:
        file.writestr(OUTSIDE, "x")
    refused(lambda: prepare("commonvoice", tmp_path / "cv.zip", tmp_path / "recipe/data"), "cv.zip cannot be unpacked")
    assert not list(tmp_path.rglob("outside.tsv"))


def test_no_command_comes_from_a_downloaded_archive(tmp_path, mark, monkeypatch):
    """The unpacked corpus has a recording whose name is a command, and a data directory of its own."""
    content = io.BytesIO()
    waveform.save(tmp_path / "a.wav", np.full(8000, 0.1))
    content = (tmp_path / "a.wav").read_bytes()
    clip = f"a.mp3; touch {mark.name} |"
    table = f"client_id\tpath\tsentence\nann\t{clip}\tone\nbob\tb.wav\ttwo\neve\tc.wav\tthree\n"
    folder = tmp_path / "fr"
    for part in ("train", "dev", "test"):
        (folder / "clips").mkdir(parents=True, exist_ok=True)
        (folder / f"{part}.tsv").write_text(table.replace("\tb.wav", f"\t{part}.wav").replace("ann", f"ann{part}"))
        (folder / "clips" / f"{part}.wav").write_bytes(content)
    (folder / "clips" / clip).write_bytes(content)
    (folder / "wav.scp").write_text(f"u1 touch {mark} |\n")
    monkeypatch.chdir(tmp_path)
    try:
        prepare("commonvoice", folder, tmp_path / "data")
    except UserError as error:
        assert "not a file name" in str(error)
    for scp in (tmp_path / "data").glob("*/wav.scp"):
        assert "|" not in scp.read_text()
    archive = archive_of(tmp_path / "cv.tar.gz", member("cv/fr/wav.scp", content=f"u1 touch {mark} |\n".encode()))
    refused(lambda: prepare("commonvoice", archive, tmp_path / "recipe/data"), "holds no .tsv file")
    monkeypatch.setattr(an4, "URL", f"http://127.0.0.1:9/{archive.name}")
    (tmp_path / "downloads/an4").mkdir(parents=True)
    shutil.copy(archive, tmp_path / "downloads/an4" / archive.name)
    refused(lambda: prepare("an4", None, tmp_path / "data"), "an4_train.fileids is missing")


def test_commands_run_for_the_data_directory_that_was_named(tmp_path):
    waveform.save(tmp_path / "a.wav", np.full(8000, 0.1))
    (tmp_path / "set").mkdir()
    (tmp_path / "set/wav.scp").write_text(f"u1 cat {tmp_path}/a.wav |\n")
    assert datadir.read(tmp_path / "set", need_text=False)[0].duration_s == 0.5
