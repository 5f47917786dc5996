"""Every family that s3prl or transformers loads: the same states as theirs, and padding that changes nothing."""

import copy
import shutil

import checkpoints
import pytest
import torch
from safetensors.torch import load_file

from hfftools.data.batch import pad_batch
from hfftools.upstream import s3prl
from hfftools.upstream.names import load_upstream, parse
from hfftools.upstream.registry import modules_with
from hfftools.upstream.transformer import DistanceBias

FORMS = [name for name, form in checkpoints.FORMS.items() if form.states]
HF_FORMS = [form for form in FORMS if form.startswith("hf_")]
LENS = (6543, 16000, 4801, 561)  # samples; frames of most 20, 49, 14, 1; of Moonshine's 15, 40, 11, 0


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


def spread(h):
    """States of random tiny models are of the order of one; a test against zeros would prove nothing."""
    return h.std().item() > 0.1


def test_every_family_has_a_form():
    family_of = {name: checkpoints.FORMS[name].family for name in FORMS}
    model_types = {model_type for module in modules_with("MODELS") for model_type in module.MODELS}
    assert {family_of[name] for name in HF_FORMS} == model_types
    assert {family for name, family in family_of.items() if name not in HF_FORMS} == set(s3prl.FAMILIES)


@pytest.mark.parametrize("form", FORMS)
def test_states_equal_theirs(form, models, theirs, wavs):
    model, their_states = models(form), theirs(form)
    for wav in wavs:  # one alone and unpadded, where theirs are right
        if not checkpoints.FORMS[form].frames(len(wav)):
            continue  # too short for theirs
        with torch.no_grad():
            expected = their_states(wav)
            states, lens = model(wav[None], torch.tensor([len(wav)]), model.all_layers)
        assert len(expected) == model.num_layers + 1 == 4
        for layer, h in enumerate(expected):
            h = h[:, : lens[0]]  # without half a frame, which their mask declares to be padding
            assert spread(h) and h.shape == states[layer].shape == (1, lens[0], model.dim)
            assert (h - states[layer]).abs().max() < checkpoints.FORMS[form].near, layer


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
                assert ((h[0, :frames] - states[layer][row, :frames]).abs() < 1e-4).all(), (row, layer)


@pytest.mark.parametrize("form", FORMS)
def test_lengths_are_what_the_convolutions_give(form, models):
    model, form = models(form), checkpoints.FORMS[form]
    for num in (400, 560, 719, 720, 721, 879, 880, 881, 5000, 16079, 16080):
        wav = torch.randn(1, num)
        states, lens = model(wav, torch.tensor([num]), [0])
        assert lens[0] == model.out_lens(torch.tensor([num]))[0] == form.frames(num)
        assert states[0].shape[1] == max(1, lens[0])
    assert model.middle_samples == form.middle
    assert model.stride_samples == form.stride and model.frame_rate_hz == 16000 / form.stride


@pytest.mark.parametrize("form", FORMS)
def test_too_short_gives_no_frame_and_no_nan(form, models):
    states, lens = models(form)(torch.randn(2, 150), torch.tensor([150, 0]), [0, 3])
    assert lens.tolist() == [0, 0] and all(h.isfinite().all() for h in states.values())


@pytest.mark.parametrize("form", FORMS)
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
    parts = {name for name, _ in model.named_modules() if name.startswith("encoder.")}
    assert all(name.endswith(".batch_norm") for name in parts - seen)  # of which only the tensors are used


@pytest.mark.parametrize("form", FORMS)
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
            assert (h - rough[layer])[row, :frames].abs().sum() <= 0.1 * h[row, :frames].abs().sum()


@pytest.mark.parametrize("form", ["wav2vec2_base", "wav2vec2conformer_rope", "hf_wav2vec2conformer_rel"])
def test_training_mode_has_dropout_but_eval_mode_does_not(form, spelled, wavs):
    model = load_upstream(spelled(form))
    for mode in (True, False):
        model.train(mode)
        once, twice = (model(wavs[0][None], torch.tensor([LENS[0]]), [3])[0][3] for _ in range(2))
        assert torch.equal(once, twice) != mode


@pytest.mark.parametrize("form", ["hubert_base", "wavlm_base", "wav2vec2conformer_rel", "hf_wav2vec2_base"])
def test_loading_leaves_the_random_state_alone(form, spelled):
    name = spelled(form)  # draws random numbers where it makes the checkpoint
    torch.manual_seed(3)
    before = torch.get_rng_state()
    load_upstream(name)
    assert torch.equal(before, torch.get_rng_state())


def test_hash_is_of_the_weights(spelled, saved, tmp_path):
    one, other = load_upstream(spelled("hubert_base")), load_upstream(spelled("hubert_large"))
    shutil.copy(saved("hubert_base"), tmp_path / "moved.pt")
    assert len(one.hash) == 16 and one.hash != other.hash
    assert load_upstream(f"hubert_local:{tmp_path}/moved.pt").hash == one.hash
    assert len({load_upstream(spelled(form)).hash for form in HF_FORMS}) == len(HF_FORMS)


@pytest.mark.parametrize("form", FORMS)
def test_places_are_known_without_loading(form, models, spelled, monkeypatch):
    block = type(models(form).blocks()[0])
    monkeypatch.setattr(torch, "load", None)
    monkeypatch.setattr("transformers.PreTrainedModel.from_pretrained", None)
    assert block is checkpoints.FORMS[form].blocks
    known = form.startswith(("hf_", "wavlm"))  # of s3prl's others the settings in the file decide
    assert parse(spelled(form)).places == (block.PLACES if known else None)


@pytest.mark.parametrize("form", HF_FORMS)
def test_random_weights_have_the_sizes_of_the_checkpoint(form, models, spelled):
    model, other = models(form), parse(spelled(form)).random()
    shapes, other_shapes = ({n: p.shape for n, p in m.named_parameters()} for m in (model, other))
    assert shapes == other_shapes and other.hash == "random"
    assert (other.stride_samples, other.middle_samples) == (model.stride_samples, model.middle_samples)


@pytest.mark.parametrize("form", FORMS)
def test_mask_embedding_is_the_checkpoint_s_and_frozen(form, models, saved):
    if form.startswith("hf_"):
        expected = load_file(saved(form) / "model.safetensors").get("masked_spec_embed")
    else:
        state = torch.load(saved(form))
        expected = state["model" if form.startswith("wavlm") else "model_weight"]["mask_emb"]
    model = models(form)
    if expected is None:
        assert model.mask_embedding is None
        return
    assert torch.equal(model.mask_embedding, expected) and not model.mask_embedding.requires_grad
    assert model.mask_embedding.shape == (model.dim,) and not any("mask" in key for key in model.state_dict())


@pytest.mark.parametrize("form", FORMS)
def test_augment_works_on_what_the_front_end_puts_out(form, models, wavs):
    model, seen = models(form), []

    def augment(x_BTD, lens_B, _):
        seen.append((x_BTD, lens_B))
        return x_BTD.index_fill(1, torch.arange(3, 7), 0.0)

    batch = (*pad_batch(wavs), model.all_layers)
    with torch.no_grad():
        states, lens_B = model(*batch)
        masked, _ = model(*batch, augment=augment)
        same, _ = model(*batch, augment=lambda x_BTD, lens_B, _: x_BTD)
    ((x_BTD, seen_B),) = seen
    assert torch.equal(seen_B, lens_B) and x_BTD.shape == states[0].shape
    for layer, h in states.items():
        assert torch.equal(h, same[layer])
        assert not torch.equal(h[0], masked[layer][0])


@pytest.mark.parametrize("form", HF_FORMS)
def test_masked_states_equal_theirs(form, models, theirs, wavs):
    model = models(form)
    masked_T = torch.zeros(20, dtype=torch.bool)
    embedding = torch.zeros(()) if model.mask_embedding is None else model.mask_embedding
    masked_T[[2, 3, 4, 11, 19]] = True

    def augment(x_BTD, lens_B, _):
        return torch.where(masked_T[None, : x_BTD.shape[1], None], embedding, x_BTD)

    with torch.no_grad():
        expected = theirs(form)(wavs[0], masked_T)
        states, _ = model(wavs[0][None], torch.tensor([LENS[0]]), model.all_layers, augment=augment)
    for layer, h in enumerate(expected):
        frames = states[layer].shape[1]
        assert (h[:, :frames] - states[layer]).abs().max() < checkpoints.FORMS[form].near, layer
