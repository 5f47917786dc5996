"""Check the precision of positional convolutions: narrow groups leave bfloat16 on CPUs, wide ones do not."""

import pytest
import torch
from torch import nn

from hfftools.upstream.transformer import NARROW, Position


@pytest.mark.parametrize("width, dtype", [(NARROW // 2, torch.float32), (NARROW, torch.bfloat16)])
def test_narrow_groups_are_convolved_in_single_precision_on_a_cpu(width, dtype):
    seen = []
    conv = nn.Conv1d(4 * width, 4 * width, 5, padding=2, groups=4)
    conv.register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    position = Position([conv], None, 0.0).eval()
    x_BTD, valid_BT = torch.randn(2, 9, 4 * width), torch.ones(2, 9, dtype=torch.bool)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        rough_BTD = position(x_BTD, valid_BT)
    with torch.no_grad():
        exact_BTD = position(x_BTD, valid_BT)
    assert seen == [dtype, torch.float32]
    assert (rough_BTD - exact_BTD).abs().max() < 0.05
