"""Searches with random networks: against every label sequence there is, against each other, and the times of words."""

from itertools import product

import pytest
import torch

from hfftools.decode.transducer import Path, beam, greedy, readings, word_times
from hfftools.nn.transducer import Transducer

PIECES = ["", "?", " A", "B", " ", " C", "D"]


def spell(ids) -> str:
    return " ".join("".join(PIECES[id] for id in ids).split())


def network(seed: int, units: int = 7, scale: float = 3.0, blank: float = 0.0) -> Transducer:
    torch.manual_seed(seed)
    net = Transducer(units, 8, 2, 10**9)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter *= scale
        net.out.bias[0] += blank
    return net.eval()


def random_frames(count: int = 4, longest: int = 9) -> tuple[torch.Tensor, torch.Tensor]:
    lens_B = torch.tensor([longest, 1, 0, longest // 2][:count])
    return 2 * torch.randn(count, longest, 8), lens_B


@pytest.mark.parametrize("seed", range(4))
def test_a_wide_beam_finds_the_best_of_all_label_sequences(seed):
    net = network(seed, units=3, scale=1.5, blank=3.0)
    f_BTJ, lens_B = torch.randn(1, 3, 8), torch.tensor([3])
    all_ids = [ids for length in range(4) for ids in product([1, 2], repeat=length)]
    lens = torch.tensor([len(ids) for ids in all_ids])
    targets = torch.tensor([[*ids, *[0] * (3 - len(ids))] for ids in all_ids])
    with torch.no_grad():
        log_p = net.log_likelihood(f_BTJ.expand(len(targets), -1, -1), lens_B.expand(len(targets)), targets, lens)
    assert 1 - log_p.exp().sum() < log_p.max().exp()  # so that no longer one is better
    paths = {path.ids: path for path in beam(net, f_BTJ, lens_B, 1100, 3)[0]}  # there are 1023
    for ids, wanted in zip(all_ids, log_p.tolist(), strict=True):
        assert paths[ids].score == pytest.approx(wanted, abs=1e-4)
    best = max(zip(log_p.tolist(), all_ids, strict=True))
    assert beam(net, f_BTJ, lens_B, 50, 3)[0][0].ids == best[1]
    (found,) = readings(net, f_BTJ, lens_B, 50, 1, 3, lambda ids: "".join(map(str, ids)))
    assert found[0].score == pytest.approx(best[0], abs=1e-4)


@pytest.mark.parametrize("seed", range(12))
def test_no_beam_scores_below_greedy_search(seed):
    net = network(seed, blank=float(seed % 4))
    f_BTJ, lens_B = random_frames()
    first = readings(net, f_BTJ, lens_B, 0, 1, 3, spell)
    for size in (1, 2, 5):
        wide = readings(net, f_BTJ, lens_B, size, size, 3, spell)
        for one, some in zip(first, wide, strict=True):
            assert some[0].score >= one[0].score - 1e-4
            assert [h.score for h in some] == sorted((h.score for h in some), reverse=True)
            assert 1 <= len(some) <= size and len({h.text for h in some}) == len(some)


class Sure:
    """A network that says the unit that a frame holds, once, and is nearly certain of it."""

    context = 1

    def predict(self, ids_BN: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.one_hot(ids_BN, 7).float()

    def join(self, f: torch.Tensor, g: torch.Tensor) -> torch.Tensor:
        said = (f * g).sum(-1, keepdim=True)
        return 30 * torch.where(said > 0, torch.eye(7)[0].expand_as(f), f)


@pytest.mark.parametrize("size", [1, 4])
def test_where_the_network_is_sure_a_beam_is_greedy_search(size):
    frames = torch.tensor([[0, 3, 3, 0, 3, 5, 2, 0], [1, 0, 2, 6, 6, 1, 1, 1]])
    f_BTJ, lens_B = torch.nn.functional.one_hot(frames, 7).float(), torch.tensor([8, 4])
    said = [((3, 5, 2), (1, 5, 6)), ((1, 2, 6), (0, 2, 3))]
    assert [path[:2] for path in greedy(Sure(), f_BTJ, lens_B, 3)] == said
    assert [some[0][:2] for some in beam(Sure(), f_BTJ, lens_B, size, 3)] == said


def test_a_greedy_score_is_that_of_its_one_alignment():
    net = network(3, blank=1.0)
    f_BTJ, lens_B = random_frames()
    for row, path in enumerate(greedy(net, f_BTJ, lens_B, 3)):
        ids, total, said = [0, 0], 0.0, list(zip(path.ids, path.frames, strict=True))
        for t in range(int(lens_B[row])):
            for unit in [unit for unit, frame in said if frame == t] + [0]:
                log_probs = net.join(f_BTJ[row, t], net.predict(torch.tensor([ids[-2:]]))[0, 0]).log_softmax(0)
                total += log_probs[unit].item()
                ids += [unit] if unit else []
        assert path.score == pytest.approx(total, abs=1e-4) and tuple(ids[2:]) == path.ids


@pytest.mark.parametrize("size", [0, 1, 4])
def test_a_batch_gives_what_its_utterances_give_alone(size):
    net = network(5, blank=1.0)
    f_BTJ, lens_B = random_frames()
    together = readings(net, f_BTJ, lens_B, size, max(size, 1), 3, spell)
    for row, some in enumerate(together):
        (alone,) = readings(
            net, f_BTJ[row : row + 1, : max(lens_B[row], 1)], lens_B[row : row + 1], size, max(size, 1), 3, spell
        )
        assert [(h.text, h.words) for h in alone] == [(h.text, h.words) for h in some]
        assert [h.score for h in alone] == pytest.approx([h.score for h in some], abs=1e-4)
    assert together[2][0].text == "" and together[2][0].score == 0  # no frame


@pytest.mark.parametrize("size", [0, 4])
def test_words_follow_each_other_and_lie_inside(size):
    for seed in range(6):
        net = network(seed, blank=1.0)
        f_BTJ, lens_B = random_frames()
        for some, length in zip(
            readings(net, f_BTJ, lens_B, size, max(size, 1), 3, spell), lens_B.tolist(), strict=True
        ):
            for reading in some:
                assert " ".join(word for word, _, _ in reading.words) == reading.text
                assert all(0 <= first < end <= length for _, first, end in reading.words)
                for (_, first, end), (_, later, last) in zip(reading.words, reading.words[1:], strict=False):
                    assert first <= later and end <= last and later >= end - 1  # a frame may say both


def test_words_are_parted_where_units_say_so():
    said = [(2, 1), (3, 2), (4, 2), (3, 3), (5, 5), (4, 6), (4, 7), (1, 8), (6, 8)]
    path = Path(tuple(unit for unit, _ in said), tuple(t for _, t in said))
    assert word_times(path, spell) == (("AB", 1, 3), ("B", 3, 4), ("C", 5, 6), ("?D", 8, 9))
    assert spell(path.ids) == "AB B C ?D" and word_times(Path(), spell) == ()


def test_no_utterance_gives_no_reading():
    assert readings(network(0), torch.zeros(0, 3, 8), torch.zeros(0).long(), 2, 1, 3, spell) == []


@pytest.mark.parametrize("size", [0, 2])
def test_a_score_is_the_likelihood_over_all_alignments_whichever_the_search(size):
    net = network(1, blank=1.0)
    f_BTJ, lens_B = random_frames(1, 6)
    (found,) = readings(net, f_BTJ, lens_B, size, 1, 3, lambda ids: " ".join(map(str, ids)))
    ids = [int(word) for word in found[0].text.split()]
    assert ids, "something comes out"
    with torch.no_grad():
        wanted = net.log_likelihood(f_BTJ, lens_B, torch.tensor([ids]), torch.tensor([len(ids)])).item()
    assert found[0].score == pytest.approx(wanted, abs=1e-4)
    assert greedy(net, f_BTJ, lens_B, 3)[0].score < wanted - 1e-3, "one alignment has less"
