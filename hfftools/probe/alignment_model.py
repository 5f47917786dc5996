"""Train a small model on transcribed speech that scores the phones of each frame, and find the best path through them.

The model reads log-mel frames of 20 ms through convolutions, whose short context keeps a phone's score near its sound.
It is first trained by CTC with label priors, which is less peaky than plain CTC (Huang et al. 2024, arXiv:2406.02560),
then twice by cross-entropy on its own alignment, as hybrid recognisers are trained. Id 0 is CTC's blank, and silence.

Axes: B utterances, T frames of 20 ms, F features of a frame, U units (the blank and the phones), L phones of a text.
"""

from collections.abc import Iterator
from itertools import count, islice, pairwise

import numpy as np
import torch
import torch.nn.functional as F
import torchaudio
from torch import Tensor, nn

from hfftools.data.batch import Speech, pad_batch, plan
from hfftools.data.datadir import Utterance
from hfftools.log import UserError, progress
from hfftools.nn.ctc import ctc_loss
from hfftools.nn.logmel import LogMel
from hfftools.nn.mask import valid_mask
from hfftools.train.optim import Group, shape
from hfftools.train.update import NotFinite, Updater

# A change of these that moves a span raises SETTINGS in alignment.py.
CLOSURE_FRAMES = 5  # between words, silence of up to 100 ms is taken for a stop's closure, and longer for a pause
PRIOR_POWER, PRIOR_RATE = 0.5, 0.05  # exponent of the label prior; share of a batch in the prior's running mean
ROUNDS = (("ctc", 300, 3e-3), ("frames", 100, 2e-3), ("frames", 100, 2e-3))  # criterion, updates, peak learning rate
MAX_NORM = 5.0  # of the gradient
BATCH_S, BATCHES = 40.0, 8  # seconds of a batch; smaller batches where the speech would not fill this many
TRAINING_S = 4 * 3600.0  # seconds of speech to train on at most; its frames are held in memory, at 115 MB an hour


class Labels:
    """Number the phones of the pronunciations {word: phones} from 1 on, and align them with frames."""

    def __init__(self, pronunciations: dict[str, list[str]]):
        self.pronunciations = pronunciations
        self.phones = ["", *sorted(set().union(*pronunciations.values()))]  # by id; 0 is the blank
        self._ids = {phone: id for id, phone in enumerate(self.phones)}

    def encode(self, text: str) -> list[int]:
        """Return the ids [L] of the phones of a text."""
        ids = []
        for word in text.split():
            ids += [self._ids[phone] for phone in self.pronunciations[word]]
        return ids

    def frames(self, text: str, scores_TU: Tensor) -> list[tuple[int, int]]:
        """Return the first frame of each phone and the one after its last, on the path with the highest score.

        Blank frames inside a word, and up to CLOSURE_FRAMES of them between two words, are divided equally between the
        phone before and the phone after; all others are silence.
        """
        phones, ids = len(self.phones) - 1, self.encode(text)
        # every phone is two states with the same score: so it lasts two frames at least, and equal neighbours need no
        # blank between them
        states: list[int] = []
        for id in ids:
            states += [id, id + phones]
        states_1L = torch.tensor([states], dtype=torch.int32)
        scores_1TS = torch.cat([scores_TU, scores_TU[:, 1:]], dim=1)[None].cpu()
        path_1T, path_scores_1T = torchaudio.functional.forced_align(scores_1TS, states_1L, blank=0)
        visits = torchaudio.functional.merge_tokens(path_1T[0], path_scores_1T[0], blank=0)
        bounds = [[first.start, second.end] for first, second in zip(visits[::2], visits[1::2], strict=True)]
        word_of: list[int] = []  # the index of each phone's word
        for index, word in enumerate(text.split()):
            word_of += [index] * len(self.pronunciations[word])
        for (a, b), (word_a, word_b) in zip(pairwise(bounds), pairwise(word_of), strict=True):
            if word_a == word_b or b[0] - a[1] <= CLOSURE_FRAMES:
                a[1] = b[0] = (a[1] + b[0]) // 2
        return [(start, end) for start, end in bounds]

    def per_frame(self, text: str, scores_TU: Tensor) -> Tensor:
        """Return the id of each frame [T] on that path, 0 for silence."""
        ids_T = torch.zeros(len(scores_TU), dtype=torch.long)
        for id, (start, end) in zip(self.encode(text), self.frames(text, scores_TU), strict=True):
            ids_T[start:end] = id
        return ids_T


class AlignmentModel(nn.Module):
    """Return log posteriors [B, T, U] of frames [B, T, F]; those of a frame depend on 120 ms on either side."""

    prior_U: Tensor

    def __init__(self, in_dim: int, units: int, dim: int = 128, layers: int = 3, kernel: int = 5, dropout: float = 0.1):
        super().__init__()
        dims = [in_dim] + layers * [dim]
        self.norms = nn.ModuleList(nn.LayerNorm(d) for d in dims)
        self.convs = nn.ModuleList(nn.Conv1d(a, b, kernel, padding=kernel // 2) for a, b in pairwise(dims))
        self.dropout, self.out = nn.Dropout(dropout), nn.Linear(dim, units)
        self.register_buffer("prior_U", torch.full((units,), 1 / units))  # mean posterior over recent batches

    def forward(self, x_BTF: Tensor, lens_B: Tensor) -> Tensor:
        valid_BT1 = valid_mask(lens_B, x_BTF.shape[1])[:, :, None]
        for norm, conv in zip(self.norms, self.convs, strict=False):  # the last norm is that of the output layer
            y_BFT = (norm(x_BTF) * valid_BT1).transpose(1, 2)
            x_BTF = self.dropout(conv(y_BFT).relu()).transpose(1, 2)
        return self.out(self.norms[-1](x_BTF)).log_softmax(-1)

    def scores(self, log_probs_BTU: Tensor) -> Tensor:
        """Return log posteriors minus PRIOR_POWER times the log prior, [B, T, U]."""
        return log_probs_BTU - PRIOR_POWER * self.prior_U.clamp(min=1e-5).log()

    @torch.no_grad()
    def scores_of(self, x_TF: Tensor) -> Tensor:
        """Return the scores [T, U] of one utterance, without dropout."""
        self.eval()
        return self.scores(self(x_TF[None], torch.tensor([len(x_TF)], device=x_TF.device)))[0]


def transcript(utterance: Utterance) -> str:
    """Return the text of an utterance; one without text counts as one without phones."""
    return utterance.text or ""


def log_mel_frames(speech: Speech, front: LogMel, device: torch.device) -> Iterator[tuple[str, Tensor]]:
    """Yield each utterance with its frames [T, F] of 20 ms, two neighbours of 10 ms concatenated."""
    for batch in speech.batches(plan(speech.durations_s, BATCH_S)):
        assert batch.wav_BN is not None and batch.num_samples_B is not None, "the speech has no cache of hidden states"
        log_BTM, lens_B = front(batch.wav_BN.to(device), batch.num_samples_B.to(device))
        for utt, log_TM, frames in zip(batch.ids, log_BTM, (lens_B // 2).tolist(), strict=True):
            yield utt, log_TM[: 2 * frames].reshape(frames, -1)


def train(speech: Speech, labels: Labels, front: LogMel, seed: int, device: torch.device) -> AlignmentModel:
    """Return a model trained in ROUNDS, whatever the size of the set, on at most TRAINING_S of it, drawn by the seed.

    Raise UserError if a loss or a gradient is not finite.
    """
    part = _draw(speech, labels, seed)
    by_utterance = dict(progress(log_mel_frames(part, front, device), len(part), "log-mel frames"))
    x = [by_utterance[u.id] for u in part.utterances]
    targets = [torch.tensor(ids, device=device) for ids in part.targets]
    torch.manual_seed(seed)
    model = AlignmentModel(2 * front.num_mels, len(labels.phones)).to(device)
    bar = progress((), sum(updates for _, updates, _ in ROUNDS), "training the alignment model", "batch")
    batches = _batches(part.durations_s, seed)
    for criterion, updates, lr in ROUNDS:
        if criterion == "frames":
            texts = [transcript(u) for u in part.utterances]
            ids = [labels.per_frame(text, model.scores_of(x_TF)) for text, x_TF in zip(texts, x, strict=True)]
            targets = [ids_T.to(device) for ids_T in ids]
        optimizer = torch.optim.AdamW(model.parameters(), lr)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, shape(Group(lr=lr), updates))
        updater = Updater(optimizer, schedule, MAX_NORM)
        model.train()
        for rows in islice(batches, updates):
            part.work_on(rows)
            loss, mean_U = _loss(model, criterion, [x[row] for row in rows], [targets[row] for row in rows])
            try:
                updater.step([loss])
            except NotFinite as error:
                raise UserError(f"alignment: {error}; look for audio that does not fit its transcript") from None
            model.prior_U.lerp_(mean_U, PRIOR_RATE)
            bar.update()
    bar.close()
    return model


def _draw(speech: Speech, labels: Labels, seed: int) -> Speech:
    """Return utterances in random order, up to the one that reaches TRAINING_S."""
    drawn = np.random.default_rng(seed).permutation(len(speech))
    ends_s = np.cumsum([speech.durations_s[index] for index in drawn])
    return Speech([speech.utterances[index] for index in drawn[: 1 + np.searchsorted(ends_s, TRAINING_S)]], labels)


def _loss(model: AlignmentModel, criterion: str, x: list[Tensor], targets: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Return the loss of a batch, and the mean posterior [U] of its frames.

    x: the frames [T, F] of each utterance.
    criterion: `ctc`, with the phones [L] of each utterance as targets, or `frames`, with the id of each frame [T].
    """
    x_BTF, lens_B = pad_batch(x)
    targets_BL, target_lens_B = pad_batch(targets)
    lens_B, target_lens_B = lens_B.to(x_BTF.device), target_lens_B.to(x_BTF.device)
    valid_BT = valid_mask(lens_B, x_BTF.shape[1])
    log_probs_BTU = model(x_BTF, lens_B)
    if criterion == "frames":
        loss = F.nll_loss(log_probs_BTU[valid_BT], targets_BL[valid_BT])
    else:
        losses_B = ctc_loss(model.scores(log_probs_BTU), lens_B, targets_BL, target_lens_B)
        loss = (losses_B / target_lens_B).mean()
    return loss, log_probs_BTU.detach()[valid_BT].exp().mean(0)


def _batches(durations_s: list[float], seed: int) -> Iterator[list[int]]:
    """Yield the utterance indices of one batch after another, epoch after epoch, without end."""
    batch_s = min(BATCH_S, sum(durations_s) / BATCHES)
    for epoch in count():
        yield from plan(durations_s, batch_s, seed, epoch)
