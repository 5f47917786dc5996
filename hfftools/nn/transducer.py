"""RNN transducers (Graves, arXiv:1211.3711): encodings f [B, T, J] and unit ids in, scores or log likelihoods out.

B utterances, T frames, L labels, S = L + 1 places before, between and after them, J width of the joiner, V units; id 0 is
the blank, which moves on by a frame, while any other unit stays in it.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from torchaudio.functional import rnnt_loss

BLANK = 0


class Transducer(nn.Module):
    """The two networks beside the encoder: a prediction network that sees the last `context` units, and a joiner.

    The prediction network has no state (Ghodsi et al., ICASSP 2020, "RNN-transducer with stateless prediction network"):
    an embedding and a convolution. It does little worse than an LSTM, has nothing to learn by heart from an hour of
    transcripts, sees all labels of a batch at once, and a search keeps nothing of it but the last units.
    """

    def __init__(self, units: int, dim: int, context: int, most_scores: int):
        """`most_scores`: how many of the B·T·S·V scores may be in memory at once, unless one utterance has more."""
        super().__init__()
        self.context, self.most_scores = context, most_scores
        self.embed, self.conv = nn.Embedding(units, dim), nn.Conv1d(dim, dim, context)
        self.project, self.out = nn.Linear(dim, dim), nn.Linear(dim, units)

    def predict(self, ids_BN: Tensor) -> Tensor:
        """Unit ids [B, context - 1 + n] -> g [B, n, J], one for each unit that has `context - 1` others before it."""
        return self.project(F.relu(self.conv(self.embed(ids_BN).transpose(1, 2))).transpose(1, 2))

    def join(self, f: Tensor, g: Tensor) -> Tensor:
        """Scores [..., V], no probabilities yet, of f and g [..., J]; in single precision whatever the autocast."""
        return self.out(torch.tanh(f + g)).float()

    def log_likelihood(self, f_BTJ: Tensor, lens_B: Tensor, targets_BL: Tensor, target_lens_B: Tensor) -> Tensor:
        """log P(labels | f) [B] in nats, summed over all alignments; minus infinity for labels without a frame.

        A batch of more than `most_scores` goes through in groups of utterances, whose scores are not kept but computed
        anew in the backward pass.
        """
        batch, longest = len(lens_B), int(lens_B.max().clamp(min=1))
        g_BSJ = self.predict(F.pad(targets_BL, (self.context, 0), value=BLANK))
        count = max(1, self.most_scores // (longest * g_BSJ.shape[1] * self.out.out_features))
        parts = []
        for part in zip(*(x.split(count) for x in (f_BTJ, g_BSJ, lens_B, targets_BL, target_lens_B)), strict=True):
            if count < batch:
                parts.append(checkpoint(self._sum_alignments, *part, use_reentrant=False, preserve_rng_state=False))
            else:
                parts.append(self._sum_alignments(*part))
        nothing_B = torch.where(target_lens_B > 0, -torch.inf, 0.0)
        return torch.where(lens_B > 0, torch.cat(parts), nothing_B)

    def _sum_alignments(
        self, f_BTJ: Tensor, g_BSJ: Tensor, lens_B: Tensor, targets_BL: Tensor, target_lens_B: Tensor
    ) -> Tensor:
        """The log likelihoods of one group; torchaudio's loss wants tensors that are as long as its longest utterance.

        In each cell of the lattice only the blank and the label that comes next count. Given those two as if they were all
        the units, the loss takes a seventh of the time (120 units, CPU) and keeps gradients for two scores instead of V.
        """
        lens_B = lens_B.clamp(min=1).int()
        frames, labels = int(lens_B.max()), int(target_lens_B.max())
        scores_BTSV = self.join(f_BTJ[:, :frames, None], g_BSJ[:, None, : labels + 1])
        next_BTS1 = F.pad(targets_BL[:, :labels], (0, 1))[:, None, :, None].expand(-1, frames, -1, -1)
        two_BTS2 = torch.cat([scores_BTSV[..., :1], scores_BTSV.gather(-1, next_BTS1)], -1)
        two_BTS2 = two_BTS2 - scores_BTSV.logsumexp(-1, keepdim=True)
        ones_BL = torch.ones_like(targets_BL[:, :labels], dtype=torch.int32)
        return -rnnt_loss(two_BTS2, ones_BL, lens_B, target_lens_B.int(), 0, reduction="none", fused_log_softmax=False)
