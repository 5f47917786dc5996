"""Score unit sequences given encodings f [B, T, J] by an RNN transducer (Graves, arXiv:1211.3711).

B utterances, T frames, L labels, S = L + 1 positions before, between and after the labels, J width of the joiner, V units.
Unit 0 is the blank, which moves on to the next frame; any other unit stays in its frame.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from torchaudio.functional import rnnt_loss

BLANK = 0


class Transducer(nn.Module):
    """Hold a transducer's two networks after the encoder: one that predicts from the last `context` units, and a joiner.

    The prediction network has no state: an embedding and a convolution (Ghodsi et al., ICASSP 2020, "RNN-transducer with
    stateless prediction network"). It is little worse than an LSTM, cannot memorise an hour of transcripts, reads all
    labels of a batch at once, and a search has to keep only the last units.
    """

    def __init__(self, units: int, dim: int, context: int, most_scores: int):
        """Make the networks; at most `most_scores` of the B·T·S·V scores are in memory, unless one utterance has more."""
        super().__init__()
        self.context, self.most_scores = context, most_scores
        self.embed, self.conv = nn.Embedding(units, dim), nn.Conv1d(dim, dim, context)
        self.project, self.out = nn.Linear(dim, dim), nn.Linear(dim, units)

    def predict(self, ids_BN: Tensor) -> Tensor:
        """Return g [B, n, J] of unit ids [B, context - 1 + n]: one for each unit with `context - 1` others before it."""
        return self.project(F.relu(self.conv(self.embed(ids_BN).transpose(1, 2))).transpose(1, 2))

    def join(self, f: Tensor, g: Tensor) -> Tensor:
        """Return scores [..., V] before softmax of f and g [..., J], the paper's output (section 2.3) with a tanh inside."""
        # float: the loss sums thousands of cells, for which bfloat16 under autocast would be too coarse
        return self.out(torch.tanh(f + g)).float()

    def log_likelihood(self, f_BTJ: Tensor, lens_B: Tensor, targets_BL: Tensor, target_lens_B: Tensor) -> Tensor:
        """Return log P(labels | f) [B] in nats, summed over all alignments (equation 1); -inf for labels without a frame.

        A batch with more than `most_scores` scores is processed in groups of utterances; the scores of a group are not
        kept for the backward pass but computed again in it.
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
        # an utterance without frames has one outcome: no labels, with probability one
        nothing_B = torch.where(target_lens_B > 0, -torch.inf, 0.0)
        return torch.where(lens_B > 0, torch.cat(parts), nothing_B)

    def _sum_alignments(
        self, f_BTJ: Tensor, g_BSJ: Tensor, lens_B: Tensor, targets_BL: Tensor, target_lens_B: Tensor
    ) -> Tensor:
        """Return the log likelihoods of one group, by the forward recursion over the lattice (section 2.4).

        In each cell of the lattice only two probabilities count, ∅(t, u) of the blank and y(t, u) of the next label. The
        loss gets these two as if they were all units there are: it then takes a seventh of the time (120 units, CPU) and
        keeps gradients of two scores instead of V.
        """
        lens_B = lens_B.clamp(min=1).int()
        frames, labels = int(lens_B.max()), int(target_lens_B.max())  # torchaudio refuses longer tensors than these
        scores_BTSV = self.join(f_BTJ[:, :frames, None], g_BSJ[:, None, : labels + 1])
        next_BTS1 = F.pad(targets_BL[:, :labels], (0, 1))[:, None, :, None].expand(-1, frames, -1, -1)
        two_BTS2 = torch.cat([scores_BTSV[..., :1], scores_BTSV.gather(-1, next_BTS1)], -1)
        two_BTS2 = two_BTS2 - scores_BTSV.logsumexp(-1, keepdim=True)  # log softmax over all V, of the two alone
        ones_BL = torch.ones_like(targets_BL[:, :labels], dtype=torch.int32)
        return -rnnt_loss(two_BTS2, ones_BL, lens_B, target_lens_B.int(), 0, reduction="none", fused_log_softmax=False)
