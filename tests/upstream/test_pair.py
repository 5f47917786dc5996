"""Two upstreams as one: its states are those of each alone, at the first one's frames; padding changes none of them."""

from math import floor

import pytest
import torch
from torch import nn

from hfftools.data import datadir
from hfftools.data.batch import Speech
from hfftools.fuse import hff
from hfftools.log import UserError
from hfftools.model import Model
from hfftools.text import units
from hfftools.train.experiment import configure, states_from
from hfftools.upstream.base import Upstream
from hfftools.upstream.conformer import ConformerUpstream, EncoderConfig, save
from hfftools.upstream.extract import extract
from hfftools.upstream.names import load_upstream, parse
from hfftools.upstream.pair import PairUpstream, align
from hfftools.upstream.state_cache import HiddenCache


class Clock(Upstream):
    """A model of one block; each frame of its state l is 10**l times the moment it stands for, in samples."""

    def __init__(self, stride: int, dim: int = 1, middle: float | None = None):
        super().__init__()
        self.name, self.hash, self.num_layers, self.dim, self.stride_samples = (
            f"clock{stride}",
            str(stride),
            1,
            dim,
            stride,
        )
        self.middle_samples = stride / 2 if middle is None else middle
        self.encoder, self.ran, self.augments = nn.ModuleList([nn.Linear(1, 1)]), [], []

    def out_lens(self, num_samples_B):
        return num_samples_B // self.stride_samples

    def forward(self, wav_BN, num_samples_B, layers, augment=None):
        self.ran.append(list(layers))
        self.augments.append(augment)
        frames = max(1, wav_BN.shape[1] // self.stride_samples)
        moments_T = torch.arange(frames) * self.stride_samples + self.middle_samples
        h_BTD = moments_T[None, :, None].repeat(len(wav_BN), 1, self.dim)
        return {layer: h_BTD * 10**layer for layer in layers}, self.out_lens(num_samples_B)

    def blocks(self):
        return self.encoder

    def front_end(self):
        return []

    def convolutions(self):
        return []


@pytest.fixture(scope="module")
def narrow(tmp_path_factory):
    """The path of a second encoder, of two blocks of width 16."""
    torch.manual_seed(1)
    path = tmp_path_factory.mktemp("narrow") / "encoder.safetensors"
    save(ConformerUpstream(EncoderConfig(dim=16, layers=2, heads=2, expansion=2, kernel=5)), path, {})
    return path


def speech(*lengths):
    torch.manual_seed(0)
    wav_BN = torch.zeros(len(lengths), max(lengths))
    for row, length in enumerate(lengths):
        wav_BN[row, :length] = torch.randn(length)
    return wav_BN, torch.tensor(lengths)


def test_the_same_model_twice_gives_the_same_states_twice(encoder):
    pair = load_upstream(f"{encoder}+{encoder}")
    hidden, lens_B = pair(*speech(16000, 9000), pair.all_layers)
    assert list(hidden) == list(range(8)) and pair.num_layers == 7
    for layer in range(4):
        for row, length in enumerate(lens_B):
            assert torch.equal(hidden[layer][row, :length], hidden[layer + 4][row, :length])


@pytest.mark.parametrize("strides", [(640, 320), (320, 640), (160, 480), (480, 320), (300, 700)])
def test_different_strides_meet_at_the_moments_of_the_first(strides):
    pair = PairUpstream(Clock(strides[0]), Clock(strides[1]))
    num_samples = 12000
    hidden, lens_B = pair(torch.zeros(1, num_samples), torch.tensor([num_samples]), [0, 2, 3])
    first, last = strides[1] / 2, (num_samples // strides[1] - 0.5) * strides[1]
    expected_T = hidden[0][0, :, 0].clamp(
        first, last
    )  # before its first and after its last frame the second stands still
    assert lens_B.tolist() == [num_samples // strides[0]]
    assert torch.allclose(hidden[2][0, :, 0], expected_T) and torch.allclose(hidden[3][0, :, 0], 10 * expected_T)


def test_each_utterance_is_aligned_by_its_own_frames():
    h_BTD = torch.tensor([[1.0, 3.0, 5.0], [1.0, 3.0, 99.0], [99.0, 99.0, 99.0]])[:, :, None]
    lens_B = torch.tensor([3, 2, 0])
    finer = align(h_BTD, lens_B, 2, 1, 6, -0.5)[:, :, 0]
    assert torch.allclose(finer[0], torch.tensor([1, 1.5, 2.5, 3.5, 4.5, 5]))
    assert torch.allclose(finer[1], torch.tensor([1, 1.5, 2.5, 3, 3, 3])) and finer[2].eq(0).all()
    assert torch.equal(align(h_BTD[:1], lens_B[:1], 1, 1, 3, 0.0), h_BTD[:1])


@pytest.mark.parametrize("middles", [(200.0, 0.0), (0.0, 200.0), (496.0, 752.5)])
def test_models_that_look_elsewhere_meet_at_the_middles_of_what_they_see(middles):
    first, second = Clock(320, middle=middles[0]), Clock(640, middle=middles[1])
    hidden, _ = PairUpstream(first, second)(torch.zeros(1, 12800), torch.tensor([12800]), [0, 2])
    expected_T = hidden[0][0, :, 0].clamp(middles[1], middles[1] + 19 * 640)
    assert hidden[0][0, 0, 0] == middles[0] and torch.allclose(hidden[2][0, :, 0], expected_T)


def test_its_states_are_those_of_each_alone(encoder, narrow):
    names = str(encoder), "fbank", str(narrow)
    batch = speech(16000, 9000, 100)  # the last is too short for a frame
    alone = {name: load_upstream(name) for name in names}
    for one, other in [(0, 2), (1, 0), (2, 1)]:
        first, second = alone[names[one]], alone[names[other]]
        pair = load_upstream(f"{names[one]}+{names[other]}")
        hidden, lens_B = pair(*batch, pair.all_layers)
        of_first, first_lens_B = first(*batch, first.all_layers)
        of_second, second_lens_B = second(*batch, second.all_layers)
        assert torch.equal(lens_B, first_lens_B) and torch.equal(lens_B, pair.out_lens(batch[1])) and lens_B[2] == 0
        assert {layer: h.shape[2] for layer, h in hidden.items()} == pair.dims and pair.dim == first.dim
        assert all(torch.equal(hidden[layer], of_first[layer]) for layer in first.all_layers)
        later = (
            first.middle_samples - second.middle_samples
        ) / first.stride_samples  # in frames; the strides are equal
        for layer in second.all_layers:
            for row, (length, other_length) in enumerate(zip(lens_B, second_lens_B, strict=True)):
                h_TD, last = hidden[first.num_layers + 1 + layer][row], max(0, int(other_length) - 1)
                assert other_length > 0 or h_TD.eq(0).all()
                for t in range(length if other_length else 0):
                    at = min(max(t + later, 0), last)
                    low, high = of_second[layer][row, floor(at)], of_second[layer][row, min(floor(at) + 1, last)]
                    assert torch.allclose(h_TD[t], low + (at - floor(at)) * (high - low), atol=1e-5)


def test_padding_changes_no_valid_frame(encoder, narrow):
    pair = PairUpstream(PairUpstream(load_upstream(str(encoder)), Clock(300)), load_upstream(str(narrow)))
    batch = speech(16000, 9000, 4000)
    with torch.no_grad():
        hidden, lens_B = pair(*batch, pair.all_layers)
        for row, length in enumerate(lens_B):
            wav_BN, num_samples_B = batch[0][row : row + 1, : batch[1][row]], batch[1][row : row + 1]
            alone, len_1 = pair(wav_BN, num_samples_B, pair.all_layers)
            assert len_1[0] == length
            assert all((alone[n][0, :length] - hidden[n][row, :length]).abs().max() < 1e-4 for n in pair.all_layers)


def test_only_what_is_asked_for_is_computed():
    first, second = Clock(640), Clock(320, 3)
    pair = PairUpstream(first, second)
    batch = torch.zeros(2, 6400), torch.tensor([6400, 640])
    hidden, lens_B = pair(*batch, [3])
    assert (first.ran, second.ran) == ([], [[1]]) and lens_B.tolist() == [10, 1] and hidden[3].shape == (2, 10, 3)
    hidden, lens_B = pair(*batch, [1, 0])
    assert (first.ran, second.ran) == ([[1, 0]], [[1]]) and lens_B.tolist() == [10, 1] and list(hidden) == [1, 0]
    assert pair.unreached([0]) == [first.encoder[0], second] and pair.unreached([2]) == [first, second.encoder[0]]
    assert first.augments == [None]
    pair(*batch, [0, 2], augment="masks")
    assert first.augments[-1] == second.augments[-1] == "masks"


def test_parameters_are_there_once_and_blocks_are_those_of_both(encoder, narrow):
    pair = load_upstream(f"{encoder}+{narrow}")
    names = [name for name, _ in pair.named_parameters()]
    assert len(names) == len(set(names)) and {name.split(".")[0] for name in names} == {"first", "second"}
    assert list(pair.blocks()) == [*pair.first.blocks(), *pair.second.blocks()]
    assert not any(module.training for module in pair.modules())
    assert [name for name, _ in pair.named_children()] == ["first", "second"]  # asking for blocks registers nothing


def test_names(encoder, narrow, tmp_path):
    pair, other = load_upstream(f"{encoder}+{narrow}"), load_upstream(f"{narrow}+{encoder}")
    assert pair.name == f"{encoder}+{narrow}" and len(pair.hash) == 16 and pair.hash != other.hash
    assert pair.hash == load_upstream(pair.name).hash
    assert parse("hff_tiny+hubert_base").short_name == "hff_tiny-hubert_base"
    assert parse(f"{encoder}+fbank").short_name == f"{encoder.parent.name}-fbank"
    plus = tmp_path / "a+b" / "encoder.safetensors"
    plus.parent.mkdir()
    plus.write_bytes(narrow.read_bytes())
    assert load_upstream(str(plus)).num_layers == 2 and parse(str(plus)).short_name == "a+b"
    assert load_upstream(f"{plus.parent}+fbank").num_layers == 3 and len(parse(str(plus)).halves()) == 1
    for wrong in ("fbank+fbank+fbank", "fbank+", "+"):
        with pytest.raises(UserError, match="two upstreams are fused as A.B"):
            load_upstream(wrong)
    with pytest.raises(UserError, match="no_such_model is not known"):
        load_upstream("fbank+no_such_model")


@pytest.mark.parametrize("order", ["fbank first", "encoder first"])
def test_cached_it_is_fused_to_the_same_stream(options, corpus, encoder, narrow, tmp_path, order):
    name = f"fbank+{narrow}" if order == "fbank first" else f"{encoder}+{narrow}"
    extract(name, [f"{corpus}/train"], tmp_path / "cache", "all", 60.0, torch.device("cpu"), form="float32")
    config = configure([], [*options, f"upstream={name}", "fuse.name=hff"])
    torch.manual_seed(0)
    model = Model(config, units.load(config.data.units)).eval()
    torch.nn.init.normal_(model.fuse.out.weight)
    utterances = datadir.read(corpus / "train")
    cache = HiddenCache(tmp_path / "cache", "train")
    cache.check(model.layers, states_from(model.upstream, utterances))
    streams = []
    for data in (Speech(utterances, None), Speech(utterances, None, cache, model.layers)):
        with torch.no_grad():
            streams.append(model.encode(data.collate([data[index] for index in (0, 3, 5)])))
    (x_BTF, lens_B), (cached_BTF, cached_lens_B) = streams
    assert isinstance(model.fuse, hff.Fuse) and torch.equal(lens_B, cached_lens_B)
    for row, length in enumerate(lens_B):
        assert torch.allclose(x_BTF[row, :length], cached_BTF[row, :length], atol=1e-4)
