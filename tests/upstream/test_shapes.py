"""Shapes by name: the published totals of parameters, nothing downloaded, and what has no shape says so."""

import json

import pytest
import torch

from hfftools.corpora import download
from hfftools.log import UserError
from hfftools.upstream import s3prl
from hfftools.upstream.conformer import BUNDLED
from hfftools.upstream.names import load_upstream, parse
from hfftools.upstream.shapes import SHAPES


@pytest.fixture
def offline(monkeypatch):
    def fetch(url, path):
        raise AssertionError(f"{url} was to be downloaded")

    monkeypatch.setattr(download, "fetch", fetch)


def total(name: str) -> int:
    return sum(p.numel() for p in parse(name).random().parameters())


@pytest.mark.parametrize("name", ["wav2vec2_base", "hubert_base"])
def test_a_base_model_has_its_published_parameters(name, offline):
    assert 94_371_712 - total(name) in (0, 768)  # the published total has the mask embedding in it


@pytest.mark.parametrize(
    "name, millions",
    [("wavlm_base", 94.38), ("data2vec_base", 93.16)],
)
def test_relatives_of_the_base_models(name, millions, offline):
    assert total(name) == pytest.approx(1e6 * millions, rel=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name, millions",
    [
        ("wav2vec2_large", 315.439),
        ("wav2vec2_large_960", 315.43),
        ("hubert_large", 315.43),
        ("wavlm_large", 315.45),
        ("data2vec_large", 313.28),
        ("xls_r_1b", 962.5),
        ("xls_r_2b", 2159.3),
        ("wav2vec2_conformer_relpos", 610),
        ("wav2vec2_conformer_rope", 585),
    ],
)
def test_large_models(name, millions, offline):
    assert total(name) == pytest.approx(1e6 * millions, rel=1e-3)


def test_every_shape_but_no_other_is_one_that_s3prl_registers():
    known = {**s3prl.registered(), **s3prl.ALIASES}
    assert not SHAPES.keys() - known.keys()
    without = {name for name in known if name not in SHAPES}
    assert all("s2st" in name for name in without)  # published without their sizes


@pytest.fixture
def folder(tmp_path):
    """A config.json alone, as save_pretrained writes it beside weights."""
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}
    sizes |= {"conv_dim": [16] * 7, "num_conv_pos_embedding_groups": 4}
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "hubert", **sizes}))
    return tmp_path


def test_a_folder_needs_its_configuration_alone(folder):
    upstream = parse(f"hf:{folder}").random()
    assert (upstream.num_layers, upstream.dim) == (2, 32)
    hidden, lens_B = upstream(torch.randn(1, 3200), torch.tensor([3200]), [2])
    assert hidden[2].shape == (1, int(lens_B), 32)


def test_what_is_here_is_loaded_as_it_is(encoder):
    for name in (*BUNDLED, "fbank", str(encoder)):
        assert parse(name).random().hash == load_upstream(name).hash


def test_a_pair_is_two_shapes(folder):
    upstream = parse(f"hf:{folder}+fbank").random()
    assert upstream.num_layers == 3 and upstream.dims[3] == 320


@pytest.mark.parametrize("name", ["wav2vec2_base_s2st_es_voxpopuli", "fbank+wav2vec2_base_s2st_es_voxpopuli"])
def test_a_name_without_a_shape_says_so_and_names_those_that_have_one(name, offline):
    with pytest.raises(
        UserError,
        match="upstream wav2vec2_base_s2st_es_voxpopuli: no sizes are known for it; known: .*wav2vec2_large.* or hf:FOLDER",
    ):
        parse(name).check_sizes()


@pytest.mark.parametrize("content, match", [(None, "does not exist"), ("{", "broken")])
def test_a_folder_without_a_configuration(tmp_path, content, match):
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    with pytest.raises(UserError, match=f"config.json.*{match}"):
        parse(f"hf:{tmp_path}").random()
