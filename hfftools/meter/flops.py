"""Count the floating-point operations of a model's forward and backward passes, per second of audio.

A multiply-add is two operations, as torch counts them. Matrix products, convolutions, attention and recurrent layers
are counted as they are run: with padding, and in the backward pass of fused attention with the scores computed again.
Elementwise operations (norms, activations, softmax, dropout) are not counted, nor are the spectra of log-mel.

torch's own counter gets formulas of ours where it has none (attention as the CPU runs it; recurrent layers that oneDNN
or cuDNN run as one operation), and where its own is wrong: it counts the weight gradient of a convolution in G groups G
times.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode, conv_flop_count, sdpa_backward_flop_count, sdpa_flop_count

from hfftools.data.batch import Batch, Speech, plan
from hfftools.model import Model
from hfftools.nn.rate import RATE_HZ


def _attention(q_shape, k_shape, v_shape, *_, **__) -> int:
    return sdpa_flop_count(q_shape, k_shape, v_shape)


def _attention_backward(grad_shape, q_shape, k_shape, v_shape, *_, **__) -> int:
    return sdpa_backward_flop_count(grad_shape, q_shape, k_shape, v_shape)


def _conv_backward(grad_shape, x_shape, w_shape, _bias, _stride, _pad, _dilation, transposed, *rest, **__) -> int:
    needed = rest[2]  # after output padding and groups: whether gradients of input, weight and bias are asked for
    return sum(needed[:2]) * conv_flop_count(x_shape, w_shape, grad_shape, transposed)


def _onednn_rnn(x_shape, w_in_shape, w_hidden_shape, *_, **__) -> int:
    """Return the operations of one direction of one layer over an input [T, B, F]: two per weight, frame and utterance."""
    return 2 * prod(x_shape[:-1]) * (prod(w_in_shape) + prod(w_hidden_shape))


def _onednn_rnn_backward(*args, **kwargs) -> int:
    return 2 * _onednn_rnn(*args, **kwargs)  # gradients of inputs and of weights; oneDNN always computes both


def _cudnn_rnn(x_shape, weight_shapes, *_, **__) -> int:
    """Return the operations of all layers and directions: each frame, packed [frames, F] or padded, meets each matrix."""
    return 2 * prod(x_shape[:-1]) * sum(prod(shape) for shape in weight_shapes if len(shape) == 2)


def _cudnn_rnn_backward(*args, **kwargs) -> int:
    needed = kwargs.get("output_mask", args[-1])  # whether gradients of input, states (two) and weights are asked for
    return (1 + bool(needed[3])) * _cudnn_rnn(*args, **kwargs)


def _matrix_vector(matrix_shape, *_, **__) -> int:
    return 2 * prod(matrix_shape)


aten = torch.ops.aten
FORMULAS = {
    aten._scaled_dot_product_flash_attention_for_cpu: _attention,
    aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,
    aten.convolution_backward: _conv_backward,
    aten.mkldnn_rnn_layer: _onednn_rnn,
    aten.mkldnn_rnn_layer_backward: _onednn_rnn_backward,
    aten._cudnn_rnn: _cudnn_rnn,
    aten._cudnn_rnn_backward: _cudnn_rnn_backward,
    aten.mv: _matrix_vector,
}


def run_counted(function: Callable[[], Any]) -> tuple[Any, int]:
    """Return the result of `function` and the number of its operations."""
    with FlopCounterMode(display=False, custom_mapping=FORMULAS) as counter:
        result = function()
    return result, counter.get_total_flops()


@contextmanager
def _as_it_was(model: nn.Module) -> Iterator[None]:
    """Restore at the end the random state, the mode, the buffers and the gradients of the model."""
    devices = {p.device for p in model.parameters() if p.device.type == "cuda"}
    mode, buffers = model.training, [(buffer, buffer.clone()) for buffer in model.buffers()]
    grads = [(parameter, parameter.grad) for parameter in model.parameters()]
    for parameter, _ in grads:
        parameter.grad = None
    try:
        with torch.random.fork_rng(devices=list(devices)):
            yield
    finally:
        for parameter, grad in grads:
            parameter.grad = grad
        with torch.no_grad():
            for buffer, old in buffers:
                buffer.copy_(old)
        model.train(mode)


def count(model: Model, batch: Batch, bf16: bool = False) -> dict[str, float]:
    """Return the operations, per second of audio, of `model.loss` on a batch in training and of its backward pass.

    Where the batch has hidden states, the upstream is not run and not counted. The model does not change.
    """
    device = next(model.parameters()).device

    def loss() -> Tensor:
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            return model.loss(batch.to(device), batch.random_seeds(0, 0)).sum()

    with _as_it_was(model):
        model.train()
        total, forward = run_counted(loss)
        _, backward = run_counted(total.backward)
    return {"forward_flops_per_s": forward / batch.seconds, "backward_flops_per_s": backward / batch.seconds}


def count_upstream(model: Model, seconds: float, bf16: bool = False) -> dict[str, float]:
    """Return the operations, per second of audio, of the upstream's forward pass alone, up to the highest tapped layer."""
    device = next(model.parameters()).device
    wav_BN = torch.zeros(1, round(RATE_HZ * seconds), device=device)  # the count depends on the length alone
    lens_B = torch.tensor([wav_BN.shape[1]], device=device)
    with _as_it_was(model), torch.no_grad(), torch.autocast(device.type, torch.bfloat16, enabled=bf16):
        model.eval()
        _, flops = run_counted(lambda: model.upstream(wav_BN, lens_B, model.layers))
    return {"upstream_forward_flops_per_s": flops / seconds}


def count_run(model: Model, data: Speech, batch_seconds: float, seed: int, bf16: bool) -> dict[str, float]:
    """Return both counts for the first batch of a run's first epoch; the upstream's for one utterance of the mean length.

    Call it after training, so that it adds nothing to the memory and time of the training.
    """
    model.hold(False)
    batch = next(data.batches(plan(data.durations_s, batch_seconds, seed, 0)[:1]))
    return {**count(model, batch, bf16), **count_upstream(model, batch.seconds / len(batch.ids), bf16)}
