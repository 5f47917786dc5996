"""The transducer's likelihood against a plain dynamic program, in one part or many; and its gradients."""

import math

import pytest
import torch

from hfftools.nn.transducer import Transducer


def network(units=7, dim=8, context=2, most_scores=10**9, scale=3.0) -> Transducer:
    net = Transducer(units, dim, context, most_scores)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter *= scale
    return net.eval()


def plain_log_likelihood(net: Transducer, f_TJ: torch.Tensor, labels: list[int]) -> float:
    """Graves' forward variable, a cell of the lattice at a time."""
    frames, places = len(f_TJ), len(labels) + 1
    if frames == 0:
        return -math.inf if labels else 0.0
    cells = {}
    for place in range(places):
        before = ([0] * net.context + labels[:place])[-net.context :]
        g_J = net.predict(torch.tensor([before]))[0, 0]
        for t in range(frames):
            cells[t, place] = net.join(f_TJ[t], g_J).double().log_softmax(0)
    alpha = {(0, 0): torch.tensor(0.0).double()}
    for t in range(frames):
        for place in range(places):
            ways = [alpha[t - 1, place] + cells[t - 1, place][0]] if t else []
            ways += [alpha[t, place - 1] + cells[t, place - 1][labels[place - 1]]] if place else []
            if ways:
                alpha[t, place] = torch.stack(ways).logsumexp(0)
    return (alpha[frames - 1, places - 1] + cells[frames - 1, places - 1][0]).item()


LENS_B = torch.tensor([6, 3, 1, 6, 0, 0])
LABELS = [[1, 2, 3, 3], [5], [4, 4, 4], [], [1], []]
TARGETS_BL = torch.tensor([row + [0] * (4 - len(row)) for row in LABELS])
TARGET_LENS_B = torch.tensor([len(row) for row in LABELS])


@pytest.mark.parametrize("context", [1, 2, 4])
@pytest.mark.parametrize("most_scores", [1, 500, 10**9])
def test_the_likelihood_is_the_plain_dynamic_programs(context, most_scores):
    torch.manual_seed(context)
    net, f_BTJ = network(context=context, most_scores=most_scores), torch.randn(6, 9, 8)
    with torch.no_grad():
        found = net.log_likelihood(f_BTJ, LENS_B, TARGETS_BL, TARGET_LENS_B)
        wanted = [plain_log_likelihood(net, f_BTJ[b, : LENS_B[b]], LABELS[b]) for b in range(6)]
    assert torch.allclose(found, torch.tensor(wanted), atol=1e-4)


def test_no_labels_at_all_are_a_row_of_blanks():
    net, f_BTJ = network(), torch.randn(2, 5, 8)
    with torch.no_grad():
        none = net.log_likelihood(
            f_BTJ, torch.tensor([5, 2]), torch.zeros(2, 0, dtype=torch.long), torch.zeros(2).long()
        )
        wanted = [plain_log_likelihood(net, f_BTJ[b, :n], []) for b, n in enumerate([5, 2])]
    assert torch.allclose(none, torch.tensor(wanted), atol=1e-4)


def test_in_parts_the_gradients_are_the_same_and_those_of_a_difference():
    grads = []
    for most_scores in (1, 10**9):
        torch.manual_seed(1)
        net, f_BTJ = network(most_scores=most_scores), torch.randn(6, 9, 8, requires_grad=True)
        likelihood_B = net.log_likelihood(f_BTJ, LENS_B, TARGETS_BL, TARGET_LENS_B)
        (likelihood_B[:4] * torch.tensor([1.0, 2.0, 3.0, 4.0])).sum().backward()
        grads.append([f_BTJ.grad, *(parameter.grad for parameter in net.parameters())])
    assert all(torch.allclose(one, other, atol=1e-4) for one, other in zip(*grads, strict=True))
    assert all(torch.isfinite(grad).all() and grad.abs().max() > 0 for grad in grads[0])
    assert grads[0][0][1, 3:].abs().max() == 0  # no gradient into padding
    moved = f_BTJ.detach().clone()
    moved[0, 2, 5] += 1e-2
    with torch.no_grad():
        change = net.log_likelihood(moved, LENS_B, TARGETS_BL, TARGET_LENS_B)[0] - likelihood_B[0]
    assert change.item() / 1e-2 == pytest.approx(grads[0][0][0, 2, 5].item(), abs=2e-2)


def test_all_label_sequences_of_one_frame_sum_to_one():
    """With one unit beside the blank: P(no label) + P(1) + P(1, 1) + … = 1."""
    net, f_BTJ = network(units=2, scale=1.0), torch.randn(1, 1, 8)
    many = torch.ones(60, 60).tril(-1).long()
    with torch.no_grad():
        log_p_B = net.log_likelihood(f_BTJ.expand(60, -1, -1), torch.ones(60).long(), many, torch.arange(60))
    assert log_p_B.exp().sum().item() == pytest.approx(1, abs=1e-3)
