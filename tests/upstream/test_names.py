"""What a user writes, and the model or the line that it becomes."""

import subprocess
import sys

import pytest

from hfftools.log import UserError
from hfftools.nn.conformer import ConformerBlock
from hfftools.upstream import conformer
from hfftools.upstream.base import check_layers
from hfftools.upstream.conformer import ConformerUpstream, EncoderConfig
from hfftools.upstream.fbank import FbankUpstream
from hfftools.upstream.names import doors, known_names, load_upstream, parse
from hfftools.upstream.transformer import Block
from hfftools.upstream.w2v_conformer import MacaronBlock


@pytest.mark.parametrize(
    "wrong, near",
    [
        ("wav2vec2_lrage", "did you mean .*wav2vec2_large"),
        ("hubert_bas", "did you mean hubert_base"),
        ("hff_tny", "did you mean hff_tiny"),
        ("fbnk", "did you mean fbank"),
        ("mockingjay", "known: .*wavlm_large"),
    ],
)
def test_unknown_names_suggest(wrong, near):
    with pytest.raises(UserError, match=f"upstream {wrong} is not known; {near}"):
        load_upstream(wrong)


@pytest.mark.parametrize("kind", ["wav2vec_local", "wav2vec2", "wav2vec2_url"])
def test_unknown_kinds_suggest(kind):
    with pytest.raises(UserError, match=f"{kind} is not known; did you mean wav2vec2_local"):
        load_upstream(f"{kind}:model.pt")


def test_known_names():
    names = known_names()
    assert names == sorted(set(names)) and {"hff_tiny", "fbank", "wav2vec2_large", "wavlm_base_plus"} <= set(names)
    assert not any(name.endswith(("_local", "_url", "_custom")) for name in names)


def test_own_encoder_by_file_and_by_folder(tmp_path):
    config = EncoderConfig(dim=8, layers=2, heads=2, num_mels=20)
    conformer.save(ConformerUpstream(config), tmp_path / "encoder.safetensors", {})
    for name in (str(tmp_path), str(tmp_path / "encoder.safetensors")):
        model = load_upstream(name)
        assert isinstance(model, ConformerUpstream) and model.num_layers == 2 and not model.training
    with pytest.raises(UserError, match="none.safetensors does not exist"):
        load_upstream(str(tmp_path / "none.safetensors"))


def test_places_are_known_without_loading(tmp_path):
    conformer.save(ConformerUpstream(EncoderConfig(dim=8, layers=1, heads=2)), tmp_path / "encoder.safetensors", {})
    for name, places in {
        "fbank": [{}],
        "hff_tiny": [ConformerBlock.PLACES],
        str(tmp_path): [ConformerBlock.PLACES],
        f"{tmp_path}/encoder.safetensors": [ConformerBlock.PLACES],
        "wav2vec2_large": [Block.PLACES],
        "wavlm_base_plus": [Block.PLACES],
        "wav2vec2_conformer_rope": [MacaronBlock.PLACES],
        "hubert_base+hff_tiny": [Block.PLACES, ConformerBlock.PLACES],
    }.items():
        assert [half.places for half in parse(name).halves()] == places, name


@pytest.mark.parametrize(
    "name, match",
    [
        ("hubert_bas", "did you mean hubert_base"),
        ("hff_tiny+hff_tny", "upstream hff_tny is not known"),
        ("wav2vec2:model.pt", "did you mean wav2vec2_local"),
        ("wavlm_local:none.pt", "none.pt does not exist"),
        ("wav2vec2_local:none.pt", "none.pt does not exist"),
        ("hf:none", "none is not a folder"),
        ("none.safetensors", "none.safetensors does not exist"),
        ("facebook/wav2vec2-base", "no such file or folder"),
        ("none.pt", "no such file or folder"),
    ],
)
def test_what_is_not_there_is_refused_when_its_name_is_parsed(name, match):
    with pytest.raises(UserError, match=match):
        parse(name)


def test_each_form_of_names_has_one_door(encoder, saved):
    names = ["hff_tiny", "fbank", str(encoder), f"hf:{saved('hf_hubert_base')}", "wav2vec2_large"]
    for name in [*names, f"wavlm_local:{saved('wavlm_base')}"]:
        assert len([door for door in doors() if door.claims(name)]) == 1, name


def test_paths_without_their_kind_say_what_to_write(tmp_path):
    (tmp_path / "model.pt").touch()
    with pytest.raises(UserError, match=f"wav2vec2_local:{tmp_path}/model.pt"):
        load_upstream(f"{tmp_path}/model.pt")
    with pytest.raises(UserError, match="holds no encoder.safetensors"):
        load_upstream(str(tmp_path))
    (tmp_path / "config.json").touch()
    with pytest.raises(UserError, match=f"hf:{tmp_path}"):
        load_upstream(str(tmp_path))
    for missing in (f"{tmp_path}/none", "facebook/wav2vec2-base"):
        with pytest.raises(UserError, match=f"upstream {missing}: no such file or folder"):
            load_upstream(missing)


def test_layers_out_of_range():
    config = EncoderConfig(dim=8, layers=2, heads=2, num_mels=20)
    check_layers(ConformerUpstream(config), [0, 2])
    check_layers(FbankUpstream(), [0])
    for layers, what in (([0, 3], "3: no such layer"), ([-1], "-1: no such layer"), ([], "none given")):
        with pytest.raises(UserError, match=f"{what}; conformer has 0 to 2"):
            check_layers(ConformerUpstream(config), layers)


def test_own_models_do_not_import_s3prl():
    code = "import sys; from hfftools.upstream.names import load_upstream; load_upstream('fbank')"
    code += "; assert not {'s3prl', 'transformers'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
