"""What a user writes, and the model or the line that it becomes."""

import subprocess
import sys

import pytest

from hfftools.log import UserError
from hfftools.upstream import conformer
from hfftools.upstream.conformer import ConformerUpstream, EncoderConfig
from hfftools.upstream.fbank import FbankUpstream
from hfftools.upstream.names import check_layers, family, known_names, load_upstream


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


def test_family_of_names(tmp_path):
    conformer.save(ConformerUpstream(EncoderConfig(dim=8, layers=1, heads=2)), tmp_path / "encoder.safetensors", {})
    for name, kind in {
        "fbank": "fbank",
        "hff_tiny": "conformer",
        str(tmp_path): "conformer",
        f"{tmp_path}/encoder.safetensors": "conformer",
        "wav2vec2_large": "transformer",
        "wavlm_base_plus": "transformer",
        "wav2vec2_conformer_rope": "macaron",
        "hubert_base+data2vec": "transformer",
        "hubert_base+hff_tiny": "",
    }.items():
        assert family(name) == kind, name


@pytest.mark.parametrize(
    "name",
    [
        "hubert_bas",
        "hff_tiny+hff_tny",
        "wav2vec2:model.pt",
        "wavlm_local:none.pt",
        "wav2vec2_local:none.pt",
        "hf:none",
        "none.safetensors",
        "facebook/wav2vec2-base",
        "none.pt",
    ],
)
def test_family_refuses_what_loading_does(name):
    lines = []
    for door in (load_upstream, family):
        with pytest.raises(UserError) as caught:
            door(name)
        lines.append(str(caught.value))
    assert lines[0] == lines[1]


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
