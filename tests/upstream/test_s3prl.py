"""Every family that s3prl or transformers loads: the same states as theirs, and padding that changes nothing."""

import copy
import shutil

import pytest
import torch

from hfftools.data.batch import pad_batch
from hfftools.log import UserError
from hfftools.upstream import s3prl
from hfftools.upstream.names import load_upstream
from hfftools.upstream.transformer import DistanceBias

FORMS = (
    "wav2vec2_base",
    "wav2vec2_large",
    "hubert_base",
    "hubert_large",
    "wavlm_base",
    "wavlm_large",
    "data2vec_base",
    "hf_wav2vec2_base",
    "hf_wav2vec2_large",
    "hf_hubert_base",
    "hf_hubert_large",
)
LENS = (6543, 16000, 4801, 401)  # samples; frames 20, 49, 14, 1


@pytest.fixture(scope="module")
def models(spelled):
    loaded = {}

    def model(form):
        if form not in loaded:
            loaded[form] = load_upstream(spelled(form)).requires_grad_(False)
        return loaded[form]

    return model


@pytest.fixture(scope="module")
def wavs():
    generator = torch.Generator().manual_seed(7)
    return [0.1 * torch.randn(n, generator=generator) + 0.05 for n in LENS]


def theirs(form, path):
    """The package's own expert."""
    if form.startswith("hf_"):
        kind = form.split("_")[1]
        expert = pytest.importorskip(f"s3prl.upstream.hf_{kind}.expert").UpstreamExpert(str(path))
    else:
        kind = form.split("_")[0]
        expert = pytest.importorskip(f"s3prl.upstream.{kind}.expert").UpstreamExpert(str(path))
    return expert.eval()


def spread(h):
    """States of random tiny models are of the order of one; a test against zeros would prove nothing."""
    return h.std().item() > 0.1


@pytest.mark.parametrize("form", FORMS)
def test_states_equal_theirs(form, models, saved, wavs):
    model = models(form)
    for wav in wavs:  # one alone and unpadded, where theirs are right
        with torch.no_grad():
            expected = theirs(form, saved(form))([wav])["hidden_states"]
            states, lens = model(wav[None], torch.tensor([len(wav)]), model.all_layers)
        assert len(expected) == model.num_layers + 1 == 4
        for layer, h in enumerate(expected):
            assert spread(h) and h.shape == states[layer].shape == (1, lens[0], model.dim)
            assert (h - states[layer]).abs().max() < 1e-5, layer


@torch.no_grad()
def test_distance_bias_equals_theirs_at_full_size():
    theirs = pytest.importorskip("s3prl.upstream.wavlm.modules").MultiheadAttention(
        32, 2, self_attention=True, has_relative_attention_bias=True, num_buckets=320, max_distance=800
    )
    ours = DistanceBias(theirs.relative_attention_bias, theirs.max_distance)
    for frames in (1, 2, 79, 1300):
        assert torch.equal(ours(frames), theirs.compute_bias(frames, frames))


@pytest.mark.parametrize("form", FORMS)
def test_padding_changes_no_valid_frame(form, models, wavs):
    model = models(form)
    wav_BN, num_B = pad_batch(wavs)
    dirty_BN = torch.nn.functional.pad(wav_BN, (0, 3000), value=0.3)  # what lies beyond the end must not matter
    for row, num in enumerate(LENS):
        dirty_BN[row, num:] = 0.3
    with torch.no_grad():
        states, lens = model(dirty_BN, num_B, model.all_layers)
        for row, wav in enumerate(wavs):
            solo, (frames,) = model(wav[None], torch.tensor([len(wav)]), model.all_layers)
            assert frames == lens[row]
            for layer, h in solo.items():
                assert (h[0, :frames] - states[layer][row, :frames]).abs().max() < 1e-4, (row, layer)


@pytest.mark.parametrize("form", FORMS)
def test_lengths_are_what_the_convolutions_give(form, models):
    model = models(form)
    for num in (400, 719, 720, 721, 5000, 16079, 16080):
        wav = torch.randn(1, num)
        states, lens = model(wav, torch.tensor([num]), [0])
        assert states[0].shape[1] == lens[0] == model.out_lens(torch.tensor([num]))[0] == (num - 400) // 320 + 1
    assert model.stride_samples == 320 and model.frame_rate_hz == 50


@pytest.mark.parametrize("form", ["wav2vec2_base", "wavlm_large", "hf_hubert_large"])
def test_too_short_gives_no_frame_and_no_nan(form, models):
    states, lens = models(form)(torch.randn(2, 300), torch.tensor([300, 0]), [0, 3])
    assert lens.tolist() == [0, 0] and all(h.isfinite().all() for h in states.values())


@pytest.mark.parametrize("form", ["wav2vec2_large", "hubert_base", "wavlm_base", "hf_wav2vec2_large"])
def test_nothing_above_the_highest_layer_is_computed(form, models, wavs):
    model, calls = models(form), []
    hooks = [block.register_forward_hook(lambda *_, n=n: calls.append(n)) for n, block in enumerate(model.blocks(), 1)]
    full, _ = model(wavs[0][None], torch.tensor([LENS[0]]), [0, 1, 2, 3])
    for layers, called in (([0], []), ([2], [1, 2]), ([2, 0], [1, 2])):
        calls.clear()
        states, _ = model(wavs[0][None], torch.tensor([LENS[0]]), layers)
        assert calls == called and list(states) == layers
        assert all(torch.equal(states[layer], full[layer]) for layer in layers)
    for hook in hooks:
        hook.remove()


@pytest.mark.parametrize("form", FORMS)
def test_every_part_is_reached_by_gradients_and_hooks(form, spelled, wavs):
    model, seen = load_upstream(spelled(form)), set()
    assert not any(part.training for part in model.modules())
    for name, part in model.named_modules():
        part.register_forward_hook(lambda *_, name=name: seen.add(name))
    wav_BN, num_B = pad_batch(wavs)
    states, _ = model(wav_BN, num_B, [3])
    states[3].square().mean().backward()
    unused = [name for name, param in model.named_parameters() if param.grad is None or not param.grad.isfinite().all()]
    assert not unused
    for number, block in enumerate(model.blocks()):
        parts = ("", ".attention", ".feed_forward", *(f".attention.{x}_proj" for x in ("q", "k", "v", "out")))
        assert {f"encoder.{number}{part}" for part in parts} <= seen


@pytest.mark.parametrize("form", ["wav2vec2_base", "hubert_large", "wavlm_base", "data2vec_base", "hf_hubert_base"])
def test_autocast_and_copies(form, models, wavs):
    model = models(form)
    batch = (*pad_batch(wavs), [0, 3])
    with torch.no_grad():
        states, lens = model(*batch)
        again, _ = copy.deepcopy(model)(*batch)
        with torch.autocast("cpu", torch.bfloat16):
            rough, _ = model(*batch)
    for layer, h in states.items():
        assert torch.equal(h, again[layer])
        for row, frames in enumerate(lens):
            assert (h - rough[layer])[row, :frames].abs().mean() < 0.1 * h[row, :frames].abs().mean()


def test_training_mode_has_dropout_but_eval_mode_does_not(spelled, wavs):
    model = load_upstream(spelled("wav2vec2_base"))
    for mode in (True, False):
        model.train(mode)
        once, twice = (model(wavs[0][None], torch.tensor([LENS[0]]), [3])[0][3] for _ in range(2))
        assert torch.equal(once, twice) != mode


@pytest.mark.parametrize("form", ["hubert_base", "wavlm_base", "hf_wav2vec2_base"])
def test_loading_leaves_the_random_state_alone(form, spelled):
    torch.manual_seed(3)
    before = torch.get_rng_state()
    load_upstream(spelled(form))
    assert torch.equal(before, torch.get_rng_state())


def test_hash_is_of_the_weights(spelled, saved, tmp_path):
    one, other = load_upstream(spelled("hubert_base")), load_upstream(spelled("hubert_large"))
    shutil.copy(saved("hubert_base"), tmp_path / "moved.pt")
    assert len(one.hash) == 16 and one.hash != other.hash
    assert load_upstream(f"hubert_local:{tmp_path}/moved.pt").hash == one.hash
    assert len({load_upstream(spelled(form)).hash for form in FORMS if form.startswith("hf_")}) == 4


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


def test_conformers_are_refused(tmp_path):
    from s3prl.upstream.wav2vec2.wav2vec2_model import Wav2Vec2Config, Wav2Vec2Model

    config = dict(encoder_layers=1, encoder_embed_dim=32, encoder_ffn_embed_dim=48, encoder_attention_heads=4)
    config.update(conv_feature_layers="[(16,10,5)]", layer_type="conformer", pos_enc_type="rel_pos", attn_type="espnet")
    state = Wav2Vec2Model(Wav2Vec2Config(**config)).state_dict()
    torch.save({"task_cfg": {"normalize": True}, "model_cfg": config, "model_weight": state}, tmp_path / "c.pt")
    with pytest.raises(UserError, match="only plain Transformer encoders are supported, not ConformerEncoder"):
        load_upstream(f"wav2vec2_local:{tmp_path}/c.pt")
    assert not any("conformer" in name for name in s3prl.names())


def test_huggingface_folder_lacks(saved, tmp_path, edit_json):
    def refused(folder, what):
        with pytest.raises(UserError, match=what) as caught:
            load_upstream(f"hf:{folder}")
        assert str(folder) in str(caught.value) and "\n" not in str(caught.value)

    refused(tmp_path / "none", "is not a folder")
    refused("facebook/wav2vec2-base", "is not a folder")  # never looked for on a model hub
    folder = tmp_path / "model"
    for file, what in (
        ("config.json", "config.json does not exist"),
        ("preprocessor_config.json", "preprocessor_config.json does not exist"),
        ("model.safetensors", "holds no weights"),
    ):
        shutil.copytree(saved("hf_hubert_base"), folder, dirs_exist_ok=True)
        (folder / file).unlink()
        refused(folder, what)
    (folder / "model.safetensors").write_bytes(b"broken")
    refused(folder, "transformers cannot read")
    shutil.copytree(saved("hf_hubert_base"), folder, dirs_exist_ok=True)
    edit_json(folder / "config.json", num_hidden_layers=4)
    refused(folder, "lack .* tensors, first encoder.layers.3")
    edit_json(folder / "config.json", model_type="wavlm")
    with pytest.raises(UserError, match="model type wavlm is not supported"):
        load_upstream(f"hf:{folder}")
    edit_json(folder / "config.json", model_type="hubert")
    edit_json(folder / "preprocessor_config.json", sampling_rate=8000)
    refused(folder, "trained at 8000 Hz")
    (folder / "config.json").write_text("{")
    refused(folder, "is broken")
