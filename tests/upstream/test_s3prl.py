"""What s3prl's checkpoints may lack, and the line that says so."""

import pytest
import torch

from hfftools.log import UserError
from hfftools.upstream import s3prl
from hfftools.upstream.names import load_upstream, parse
from hfftools.upstream.transformer import Block
from hfftools.upstream.w2v_conformer import MacaronBlock


@pytest.mark.parametrize("kind", ["wav2vec2_local", "hubert_local", "wavlm_local", "data2vec_local"])
def test_missing_file_is_named(kind, tmp_path):
    with pytest.raises(UserError, match=f"{tmp_path}/none.pt does not exist"):
        load_upstream(f"{kind}:{tmp_path}/none.pt")


@pytest.mark.parametrize("kind", ["wav2vec2_local", "hubert_local", "wavlm_local", "data2vec_local"])
def test_broken_and_foreign_files_are_named(kind, saved, tmp_path):
    path = tmp_path / "broken.pt"
    whole = saved("wavlm_base" if kind != "wavlm_local" else "wav2vec2_base")
    for content in (b"", b"no checkpoint", whole.read_bytes()[:5000], whole.read_bytes()):
        path.write_bytes(content)
        with pytest.raises(UserError, match=f"{path} is not a checkpoint of s3prl's {kind[:-6]}.*convert") as caught:
            load_upstream(f"{kind}:{path}")
        assert "\n" not in str(caught.value)


@pytest.fixture
def conformer():
    """Settings -> s3prl's model of one block."""
    from s3prl.upstream.wav2vec2.wav2vec2_model import Wav2Vec2Config, Wav2Vec2Model

    config = dict(encoder_layers=1, encoder_embed_dim=32, encoder_ffn_embed_dim=48, encoder_attention_heads=4)
    config.update(conv_feature_layers="[(16,10,5)]", layer_type="conformer", pos_enc_type="rel_pos")
    return lambda **settings: Wav2Vec2Model(Wav2Vec2Config(**config, **settings))


def test_unknown_blocks_are_refused(conformer):
    model = conformer(attn_type="espnet")
    model.encoder.layers[0] = torch.nn.TransformerEncoderLayer(32, 4)
    with pytest.raises(UserError, match="^upstream mine: blocks of the class TransformerEncoderLayer are not supp.*$"):
        s3prl._upstream(model, True, "mine", "")


def test_relative_positions_that_s3prl_cannot_run_are_refused(conformer):
    with pytest.raises(UserError, match="^upstream mine: relative positions need fairseq's attn_type espnet$"):
        s3prl._upstream(conformer(), True, "mine", "")


def test_conformers_are_known_by_name():
    named = [name for name in s3prl.registered() if "conformer" in name]
    assert {"wav2vec2_conformer_relpos", "wav2vec2_conformer_rope"} <= set(named)
    assert all(parse(name).places is MacaronBlock.PLACES for name in named)
    assert parse("wav2vec2_large").places is parse("hubert_base").places is Block.PLACES
