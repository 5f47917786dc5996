"""Compute the hidden states of a teacher, which is any upstream, at the frames of the encoder that is pre-trained.

S is the number of the teacher's frames for each frame of the encoder.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from hfftools.data.batch import Speech, plan
from hfftools.pretrain.features import Corpus
from hfftools.upstream.base import Upstream, check_layers
from hfftools.upstream.conformer import ConformerUpstream
from hfftools.upstream.names import parse

BATCH_SECONDS = 60.0  # a few sentences of like length; more would be no faster on a processor


def nearest(teacher: Upstream, teacher_frames: int, frames: int, points: int) -> Tensor:
    """Return, for each of `frames` of the encoder, the teacher's frames [T, S] that see the same moments of the speech.

    The moments lie evenly in a frame of the encoder, one of them in its middle; the teacher's frame is the one whose
    middle is nearest, the later of two that are equally near.
    """
    offset_S = (torch.arange(points) + 0.5) / points - 0.5
    at_TS = ConformerUpstream.middle_samples + ConformerUpstream.stride_samples * (
        torch.arange(frames)[:, None] + offset_S
    )
    index_TS = torch.floor((at_TS - teacher.middle_samples) / teacher.stride_samples + 0.5).long()
    return index_TS.clamp(0, max(0, teacher_frames - 1))


class Teacher:
    """A frozen upstream with the layer that is learned from."""

    def __init__(self, name: str, layer: int, points: int, corpus: Corpus, device: torch.device):
        self.upstream = parse(name).load().eval().requires_grad_(False).to(device)
        check_layers(self.upstream, [layer])
        self.layer, self.points, self.corpus, self.device = layer, points, corpus, device

    @torch.inference_mode()
    def views(self, rows: Sequence[int]) -> Iterator[Tensor]:
        """Yield the states [T, S, D] of the utterances `rows` of the corpus, in this order; T are the encoder's frames."""
        data = Speech([self.corpus.utterances[row] for row in rows], None)
        order = plan(data.durations_s, BATCH_SECONDS)
        views: dict[int, Tensor] = {}
        for places, batch in zip(order, data.batches(order), strict=True):
            batch = batch.to(self.device)
            hidden, lens_B = self.upstream(batch.wav_BN, batch.num_samples_B, [self.layer])
            for place, state_TD, length in zip(places, hidden[self.layer].float().cpu(), lens_B.tolist(), strict=True):
                index_TS = nearest(self.upstream, length, int(self.corpus.sub_lens[rows[place]]), self.points)
                # an utterance without any frame of the teacher has a state of padding, which is never masked
                views[place] = state_TD[index_TS].clone()
        yield from (views[place] for place in range(len(rows)))
