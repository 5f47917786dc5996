"""Operations against arithmetic: each kind of layer, forward and backward, and a whole model, which stays as it was."""

from dataclasses import replace

import pytest
import torch
from checkpoints import needs_bf16
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence

from hfftools.data.batch import Speech
from hfftools.data.datadir import read
from hfftools.meter import flops
from hfftools.model import Model
from hfftools.text import units
from hfftools.train.experiment import configure
from hfftools.upstream.names import load_upstream

B, T, D = 2, 50, 16


def both(function, bf16: bool = False) -> tuple[int, int]:
    """Operations of `function` forward, and of the backward pass from its sum."""
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        y, forward = flops.run_counted(function)
    _, backward = flops.run_counted(y.float().sum().backward)
    return forward, backward


@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize("into_input", [False, True])
def test_a_linear_layer_has_two_operations_a_weight_and_frame(into_input, bf16):
    layer, x_BTD = nn.Linear(D, 24), torch.randn(B, T, D, requires_grad=into_input)
    once = 2 * B * T * D * 24
    assert both(lambda: layer(x_BTD), bf16) == (once, once * (2 if into_input else 1))  # frozen input: half of it


def test_a_matrix_times_a_vector():
    x_BTD, v_D = torch.randn(B, T, D), torch.randn(D, requires_grad=True)
    assert both(lambda: x_BTD @ v_D) == (2 * B * T * D, 2 * B * T * D)


@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize("groups", [1, 4, D])
@pytest.mark.parametrize("into_input", [False, True])
def test_a_convolution_in_groups_does_a_groupth_of_the_work(groups, into_input, bf16):
    """torch's formula takes the gradient of its weight for `groups` times as much."""
    kernel, layer = 5, nn.Conv1d(D, 32, 5, stride=2, groups=groups)
    x_BDT = torch.randn(B, D, T, requires_grad=into_input)
    once = 2 * B * ((T - kernel) // 2 + 1) * kernel * 32 * D // groups
    assert both(lambda: layer(x_BDT), bf16) == (once, once * (2 if into_input else 1))


@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize("keys", [T, T + 10])
@pytest.mark.parametrize("mask", [False, True])
def test_attention_has_two_products_forward_and_five_backward(mask, keys, bf16):
    """The fifth: the fused kernels keep no scores, and compute them anew."""
    heads = 4
    q_BHTd, k_BHTd, v_BHTd = (torch.randn(B, heads, n, D, requires_grad=True) for n in (T, keys, keys))
    valid = torch.ones(B, 1, 1, keys, dtype=torch.bool) if mask else None
    product = 2 * B * heads * T * keys * D
    attend = nn.functional.scaled_dot_product_attention
    assert both(lambda: attend(q_BHTd, k_BHTd, v_BHTd, attn_mask=valid), bf16) == (2 * product, 5 * product)


def test_attention_with_a_trained_bias_keeps_its_scores():
    q_BHTd, bias = torch.randn(B, 4, T, D, requires_grad=True), torch.zeros(B, 4, T, T, requires_grad=True)
    product = 2 * B * 4 * T * T * D
    attend = nn.functional.scaled_dot_product_attention
    assert both(lambda: attend(q_BHTd, q_BHTd, q_BHTd, attn_mask=bias)) == (2 * product, 4 * product)


def lstm_operations(cells: int) -> tuple[int, int]:
    """Of one frame through a bidirectional LSTM of two layers: into the gates, and from the hidden state."""
    return 2 * 2 * 4 * cells * (D + 2 * cells), 2 * 2 * 2 * 4 * cells * cells


@pytest.mark.parametrize("bf16", [False, pytest.param(True, marks=needs_bf16)])
@pytest.mark.parametrize("into_input", [False, True])
def test_a_packed_blstm_is_counted_by_its_valid_frames(into_input, bf16):
    cells, lens_B = 12, torch.tensor([T, T - 20])
    lstm, x_BTD = nn.LSTM(D, cells, 2, batch_first=True, bidirectional=True), torch.randn(B, T, D)
    x_BTD.requires_grad_(into_input)
    packed = pack_padded_sequence(x_BTD, lens_B, batch_first=True)
    forward, backward = both(lambda: lstm(packed)[0].data, bf16)
    into_gates, from_state = lstm_operations(cells)
    frames = int(lens_B.sum())
    assert forward == frames * (into_gates + from_state)
    unneeded = 0 if into_input else 2 * 2 * 4 * cells * D  # gradients into the input of the lowest layer
    first = (
        2 * 2 * (B + 1) * 4 * cells * cells
    )  # and into the states that each direction begins with: rearwards one row
    assert backward == frames * (2 * (into_gates + from_state) - unneeded) - first


@pytest.mark.parametrize("bf16", [False, pytest.param(True, marks=needs_bf16)])
def test_a_padded_blstm_is_counted_though_onednn_runs_it(bf16):
    cells = 12
    lstm, x_BTD = nn.LSTM(D, cells, 2, batch_first=True, bidirectional=True), torch.randn(B, T, D, requires_grad=True)
    once = B * T * sum(lstm_operations(cells))
    assert both(lambda: lstm(x_BTD)[0], bf16) == (once, 2 * once)


def test_cudnn_runs_all_layers_of_an_lstm_at_once():
    """By the shapes that it would be called with, for machines without a GPU."""
    lstm = nn.LSTM(D, 12, 2, bidirectional=True)
    weights = [w.shape for w in lstm.parameters()]
    once = 80 * sum(lstm_operations(12))
    assert flops._cudnn_rnn((80, D), weights, 4, None) == once
    assert flops._cudnn_rnn_backward((80, D), weights, 4, None, [True, True, True, True]) == 2 * once
    assert flops._cudnn_rnn_backward((80, D), weights, 4, None, [True, False, False, False]) == once


@pytest.fixture(params=["frozen", "full"])
def model(request, encoder, corpus):
    torch.manual_seed(0)
    options = [f"upstream={encoder}", f"tune.name={request.param}", "fuse.name=weighted_sum", "task.head=conformer"]
    options += ["task.head_dim=16", "task.head_layers=1"]
    return Model(configure([], options), units.load(corpus / "units"), load_upstream(str(encoder)))


@pytest.fixture
def batch(corpus):
    data = Speech(read(corpus / "train"), units.load(corpus / "units"))
    return next(data.batches([[0, 1]]))


def test_a_count_changes_nothing_of_a_model(model, batch):
    model.eval()
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    random = torch.get_rng_state()
    first = flops.count(model, batch)
    assert torch.equal(torch.get_rng_state(), random) and not model.training
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())
    assert first == flops.count(model, batch) and all(n > 0 for n in first.values())


def test_a_frozen_upstream_costs_its_forward_pass_alone(model, batch):
    whole, upstream = (
        flops.count(model, batch),
        flops.count_upstream(model, batch.seconds)["upstream_forward_flops_per_s"],
    )
    forward, backward = whole["forward_flops_per_s"], whole["backward_flops_per_s"]
    with torch.no_grad():
        hidden, lens_B = model.upstream(batch.wav_BN, batch.num_samples_B, model.layers)
    cached = flops.count(model, replace(batch, hidden=hidden, lens_B=lens_B, wav_BN=None))
    assert forward - cached["forward_flops_per_s"] == pytest.approx(upstream, rel=0.1)  # the rest is padding
    if model.upstream_trains:
        assert backward - cached["backward_flops_per_s"] > 0.5 * upstream  # it is that small: its front end is frozen
    else:
        assert backward == cached["backward_flops_per_s"]


def test_operations_are_those_of_a_second_of_audio(model, batch):
    once, slower = flops.count(model, batch), flops.count(model, replace(batch, seconds=4 * batch.seconds))
    assert {key: 4 * value for key, value in slower.items()} == pytest.approx(once)
    per_s = [flops.count_upstream(model, seconds)["upstream_forward_flops_per_s"] for seconds in (2.0, 4.0)]
    # the attention alone grows faster than the frames
    assert per_s[0] < per_s[1] < 1.2 * per_s[0]
