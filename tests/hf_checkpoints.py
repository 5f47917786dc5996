"""Tiny models of transformers' families: what `save_pretrained` writes, and the hidden states that transformers computes.

A form is named hf_<family>_<settings>.
"""

import importlib
from functools import partial
from types import SimpleNamespace

import torch
import torchaudio

SIZES = dict(hidden_size=32, num_hidden_layers=3, num_attention_heads=4, intermediate_size=48, conv_dim=(16,) * 7)
LARGE = dict(feat_extract_norm="layer", conv_bias=True)
WHISPER_SIZES = dict(d_model=32, encoder_layers=3, encoder_attention_heads=4, encoder_ffn_dim=48, vocab_size=30)
WHISPER_SIZES |= dict(decoder_layers=1, decoder_attention_heads=2, decoder_ffn_dim=16)
WHISPER_SIZES |= dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id", "decoder_start_token_id"), 0)
MOONSHINE_SIZES = dict(hidden_size=32, intermediate_size=48, vocab_size=30)
MOONSHINE_SIZES |= dict(encoder_num_hidden_layers=3, encoder_num_attention_heads=4)
MOONSHINE_SIZES |= dict(decoder_num_hidden_layers=1, decoder_num_attention_heads=2)
OWN_SIZES = {"whisper": WHISPER_SIZES, "moonshine": MOONSHINE_SIZES}
PARAKEET_SIZES = dict(hidden_size=32, num_hidden_layers=3, num_attention_heads=4, intermediate_size=48)
PARAKEET_SIZES |= dict(subsampling_conv_channels=16, conv_kernel_size=7)
PARAKEET_PLAIN = dict(attention_bias=False, convolution_bias=False, scale_input=False)
PARAKEET = {  # by the last part of a form: class in transformers, settings of the encoder, settings of what it is in
    "encoder": ("ParakeetEncoder", {}, None),
    "ctc": ("ParakeetForCTC", PARAKEET_PLAIN, dict(vocab_size=12, pad_token_id=11)),
    "tdt": (
        "ParakeetForTDT",
        {**PARAKEET_PLAIN, "num_mel_bins": 128},
        dict(vocab_size=12, blank_token_id=11, decoder_hidden_size=8, num_decoder_layers=1),
    ),
}
CLASSES = {
    "wav2vec2": "Wav2Vec2",
    "hubert": "Hubert",
    "wavlm": "WavLM",
    "unispeech": "UniSpeech",
    "unispeechsat": "UniSpeechSat",
    "data2vec": "Data2VecAudio",
    "wav2vec2conformer": "Wav2Vec2Conformer",
    "whisper": "Whisper",
    "moonshine": "Moonshine",
    "wav2vec2bert": "Wav2Vec2Bert",
}
EXTRACTORS = {"whisper": "WhisperFeatureExtractor", "wav2vec2bert": "SeamlessM4TFeatureExtractor"}  # of features
SETTINGS = {  # of transformers' models, by the last part of a form
    "base": {},
    "large": {**LARGE, "do_stable_layer_norm": True},
    "mms": {**LARGE, "do_stable_layer_norm": True, "adapter_attn_dim": 8},
    "rel": {**LARGE, "position_embeddings_type": "relative", "conv_depthwise_kernel_size": 7},
    "rot": {"position_embeddings_type": "rotary", "conv_depthwise_kernel_size": 7, "hidden_act": "swish"},
    "shaw": {"left_max_position_embeddings": 5, "right_max_position_embeddings": 3, "conv_depthwise_kernel_size": 7},
    "partial": {"partial_rotary_factor": 0.62},  # of the 4 pairs of a head, 2 are turned
    "whole": {"partial_rotary_factor": 1.0, "pad_head_dim_to_multiple_of": 16, "attention_bias": True},
    "none": {**LARGE, "position_embeddings_type": None, "conv_depthwise_kernel_size": 7},
}


def perturb(model):
    """Weights away from the ones and zeros that they start from, so that no norm or bias is an identity."""
    for param in model.parameters():
        param.data += 0.1 * torch.randn_like(param)
    for part in model.modules():
        if isinstance(part, torch.nn.BatchNorm1d):
            part.running_mean.normal_(0, 0.3)
            part.running_var.uniform_(0.5, 1.5)


def quiet_high_frequencies():
    """Return two seconds whose high frequencies are 70 dB below the low ones, with an offset and digital silence."""
    generator = torch.Generator().manual_seed(1)
    wav_N = torchaudio.functional.lowpass_biquad(torch.randn(32000, generator=generator), 16000, 150.0)
    wav_N[12000:14000] = 0.0
    return 0.3 * wav_N + 0.1 * (torch.arange(32000) < 12000)


def save_pretrained(form, folder):
    """A folder as transformers saves them."""
    import transformers

    _, family, size = form.split("_")
    if family == "parakeet":
        return save_parakeet(size, folder)
    settings = {**OWN_SIZES.get(family, SIZES), **SETTINGS.get(size, {})}
    if family == "wavlm":
        settings.update(num_buckets=32, max_bucket_distance=80)
    model_class = getattr(transformers, f"{CLASSES[family]}Model")
    model = model_class(model_class.config_class(**settings))
    perturb(model)
    model.save_pretrained(folder)
    if family in EXTRACTORS:
        getattr(transformers, EXTRACTORS[family])().save_pretrained(folder)
        return
    large = family == "data2vec" or size == "whole" or settings.get("feat_extract_norm") == "layer"
    transformers.Wav2Vec2FeatureExtractor(do_normalize=large, return_attention_mask=large).save_pretrained(folder)


def save_parakeet(size, folder):
    """A Parakeet encoder, alone or in a recogniser, as transformers saves it."""
    import transformers

    name, settings, outer = PARAKEET[size]
    model_class = getattr(transformers, name)
    sizes = {**PARAKEET_SIZES, **settings}
    config = model_class.config_class(**sizes if outer is None else {**outer, "encoder_config": sizes})
    model = model_class(config)
    perturb(model)
    model.save_pretrained(folder)
    parakeet_extractor(sizes.get("num_mel_bins", 80)).save_pretrained(folder)


def parakeet_extractor(num_mels):
    """transformers' own extractor, which needs nothing of librosa but its filters; transformers has the same."""
    from transformers.audio_utils import mel_filter_bank

    theirs = importlib.import_module("transformers.models.parakeet.feature_extraction_parakeet")

    def mel(sr, n_fft, n_mels, fmin, fmax, norm):
        return mel_filter_bank(n_fft // 2 + 1, n_mels, fmin, fmax, sr, norm, "slaney").T.astype("float32")

    theirs.librosa = SimpleNamespace(filters=SimpleNamespace(mel=mel))
    return theirs.ParakeetFeatureExtractor(feature_size=num_mels)


def load_parakeet(size, path):
    """transformers' encoder, loaded with what it is in, and its extractor."""
    import transformers

    model = getattr(transformers, PARAKEET[size][0]).from_pretrained(path).eval()
    encoder = getattr(model, "encoder", model)
    return encoder, parakeet_extractor(encoder.config.num_mel_bins)


def encoder_states(encoder, extractor, front, channels, wav, masked_T=None):
    """The states of transformers' encoder for one waveform; `front` puts out frames, with `channels` as this axis."""
    inputs = extractor(wav.numpy(), sampling_rate=16000, return_tensors="pt")
    hook = front.register_forward_hook(
        lambda _, __, x: x if masked_T is None else x * ~masked_T[: x.shape[3 - channels]].unsqueeze(channels - 1)
    )
    hidden = encoder(**inputs, output_hidden_states=True).hidden_states
    hook.remove()
    return hidden


def load_states(form, path):
    """Return a function: one waveform [N] -> transformers' states of it, with frames masked that `masked_T` marks."""
    import transformers

    if form.startswith("hf_parakeet"):
        encoder, extractor = load_parakeet(form.split("_")[2], path)
        return partial(encoder_states, encoder, extractor, encoder.subsampling, 2)
    model = transformers.AutoModel.from_pretrained(path).eval()
    extractor = transformers.AutoFeatureExtractor.from_pretrained(path)
    if form.startswith("hf_moonshine"):
        return partial(encoder_states, model.encoder, extractor, model.encoder.conv3, 1)
    if form.startswith("hf_whisper"):
        return partial(whisper_states, model.encoder, extractor, form.endswith("_padded"))

    def states(wav, masked_T=None):
        inputs = extractor(wav.numpy(), sampling_rate=16000, return_tensors="pt")
        masked = {} if masked_T is None else {"mask_time_indices": masked_T[None]}
        return model(**inputs, output_hidden_states=True, **masked).hidden_states

    return states


def whisper_states(encoder, extractor, padded, wav, masked_T=None):
    """The states of transformers' encoder for one waveform: its own, or of its blocks over the utterance's frames."""
    mel = extractor(wav.numpy(), sampling_rate=16000, return_tensors="pt").input_features
    frames = (len(wav) // 160 + 1) // 2
    if padded and masked_T is None:
        return [h[:, :frames] for h in encoder(mel, output_hidden_states=True).hidden_states]
    gelu = torch.nn.functional.gelu
    x_BTD = gelu(encoder.conv2(gelu(encoder.conv1(mel)))).transpose(1, 2)
    x_BTD = x_BTD if padded else x_BTD[:, :frames]
    if masked_T is not None:
        x_BTD[:, : len(masked_T)][:, masked_T] = 0.0
    states = [x_BTD + encoder.embed_positions.weight[: x_BTD.shape[1]]]
    for layer in encoder.layers:
        states.append(layer(states[-1], None))
    return [h[:, :frames] for h in [*states[:-1], encoder.layer_norm(states[-1])]]
