"""Tiny models of transformers' families: what `save_pretrained` writes, and the hidden states that transformers computes.

A form is named hf_<family>_<settings>.
"""

from functools import partial

import torch

SIZES = dict(hidden_size=32, num_hidden_layers=3, num_attention_heads=4, intermediate_size=48, conv_dim=(16,) * 7)
LARGE = dict(feat_extract_norm="layer", conv_bias=True)
WHISPER_SIZES = dict(d_model=32, encoder_layers=3, encoder_attention_heads=4, encoder_ffn_dim=48, vocab_size=30)
WHISPER_SIZES |= dict(decoder_layers=1, decoder_attention_heads=2, decoder_ffn_dim=16)
WHISPER_SIZES |= dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id", "decoder_start_token_id"), 0)
CLASSES = {
    "wav2vec2": "Wav2Vec2",
    "hubert": "Hubert",
    "wavlm": "WavLM",
    "unispeech": "UniSpeech",
    "unispeechsat": "UniSpeechSat",
    "data2vec": "Data2VecAudio",
    "wav2vec2conformer": "Wav2Vec2Conformer",
    "whisper": "Whisper",
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


def save_pretrained(form, folder):
    """A folder as transformers saves them."""
    import transformers

    _, family, size = form.split("_")
    settings = WHISPER_SIZES if family == "whisper" else {**SIZES, **SETTINGS[size]}
    if family == "wavlm":
        settings.update(num_buckets=32, max_bucket_distance=80)
    model_class = getattr(transformers, f"{CLASSES[family]}Model")
    model = model_class(model_class.config_class(**settings))
    perturb(model)
    model.save_pretrained(folder)
    if family in EXTRACTORS:
        getattr(transformers, EXTRACTORS[family])().save_pretrained(folder)
        return
    large = family == "data2vec" or settings.get("feat_extract_norm") == "layer"
    transformers.Wav2Vec2FeatureExtractor(do_normalize=large, return_attention_mask=large).save_pretrained(folder)


def load_states(form, path):
    """Return a function: one waveform [N] -> transformers' states of it, with frames masked that `masked_T` marks."""
    import transformers

    model = transformers.AutoModel.from_pretrained(path).eval()
    extractor = transformers.AutoFeatureExtractor.from_pretrained(path)
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
