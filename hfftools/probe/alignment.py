"""Transcribed speech in, the span of every phone and word in seconds out, by a small model trained on that speech alone.

The model hears log-mel frames of 20 ms through convolutions, whose short sight keeps a phone's score near its sound. It
first learns by CTC with label priors, which are less peaky than CTC's own (Huang et al. 2024, arXiv:2406.02560), then
twice by cross-entropy from its own alignment, as hybrid recognisers are trained. Id 0 is CTC's blank and is silence.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count, islice, pairwise
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
import torchaudio
from torch import Tensor, nn

from hfftools.data import datadir
from hfftools.data.batch import Speech, pad_batch, plan
from hfftools.data.datadir import Utterance
from hfftools.expdir import ExpDir, check_inputs, write_json
from hfftools.log import UserError, log, progress
from hfftools.nn.ctc import ctc_loss
from hfftools.nn.logmel import HOP_SAMPLES, RATE_HZ, WINDOW_SAMPLES, LogMel
from hfftools.nn.mask import valid_mask
from hfftools.text import ctm
from hfftools.text.ctm import Span
from hfftools.text.phones import Phones
from hfftools.train.optim import Group, shape
from hfftools.train.update import NotFinite, Updater

KINDS = ("phones", "words")
SETTINGS = 2  # goes up with every change here that moves a span
FRAME_S = 2 * HOP_SAMPLES / RATE_HZ
EARLY_S = 0.007  # by which spans would start and end before eSpeak NG's own times, on clean speech of its voices
OFFSET_S = (
    WINDOW_SAMPLES - HOP_SAMPLES
) / 2 / RATE_HZ + EARLY_S  # a frame is two windows, and stands for their middle 20 ms
CLOSURE_FRAMES = 5  # between words, silence of up to 100 ms is a stop's closure, and longer a pause
PRIOR_POWER, PRIOR_RATE = 0.5, 0.05  # of the label prior that scores are divided by; of its running mean, a batch
ROUNDS = (("ctc", 300, 3e-3), ("frames", 100, 2e-3), ("frames", 100, 2e-3))  # criterion, updates, peak learning rate
MAX_NORM = 5.0  # of the gradient
BATCH_S, BATCHES = 40.0, 8  # seconds a batch, and fewer where the speech would not fill so many
HEARD_S = 4 * 3600.0  # of the training set are learned from at most, and held in memory at 115 MB an hour


@dataclass(frozen=True)
class Aligned:
    """One utterance. Phones do not overlap; what lies in no span is silence, and a word without phones has no span."""

    phones: list[Span]
    words: list[Span]


def align(
    train: str, directories: list[str], phones: Phones, folder: Path, seed: int, device: torch.device
) -> dict[str, Aligned]:
    """{utterance: its spans} over `directories`, data directories with text, by a model of the speech of `train`.

    Kept as `folder`/<set>/{phones,words}.ctm; there already and of the same inputs (inputs.json), it is read. Utterances
    with no phones, or less than 40 ms for each, are left out with a warning. UserError where `folder` was made from other
    inputs, two directories have one name, the lexicon lacks words, or nothing of a set can be aligned.
    """
    every = list(dict.fromkeys([train, *directories]))
    sets = {Path(directory).name: datadir.read(directory) for directory in every}
    if len(sets) < len(every):
        raise UserError(f"two of {', '.join(every)} have the same name, and alignments are kept by it; rename one")
    inputs = {"the name of the training set": Path(train).name, "the list of sets": " ".join(sets)}
    inputs |= {"the pronunciations": phones.digest, "the seed": str(seed), "the settings": str(SETTINGS)}
    inputs |= {f"the set {name}": datadir.digest(utterances) for name, utterances in sets.items()}
    files = {name: {kind: folder / name / f"{kind}.ctm" for kind in KINDS} for name in sets}
    begun = ExpDir(folder).inputs
    with ExpDir(folder).alone():
        check_inputs(begun, inputs)
        there = [path for kinds in files.values() for path in kinds.values() if path.exists()]
        if there and not begun.exists():
            raise UserError(f"{there[0]} was not made here, and would be overwritten; name another folder")
        if len(there) < len(files) * len(KINDS):
            made = _make(sets, Path(train).name, phones, seed, device)
            write_json(begun, inputs)
            for name, found in made.items():
                for kind, path in files[name].items():
                    ctm.write(path, {utt: getattr(aligned, kind) for utt, aligned in found.items()})
                log.info(f"{folder / name}: {len(found)} utterances aligned")
    aligned: dict[str, Aligned] = {}
    for kinds in files.values():
        words = ctm.read(kinds["words"])
        aligned |= {utt: Aligned(spans, words[utt]) for utt, spans in ctm.read(kinds["phones"]).items()}
    return aligned


class _Labels:
    """Phones as ids from 1 on."""

    def __init__(self, pronunciations: dict[str, list[str]]):
        self.pronunciations = pronunciations
        self.phones = ["", *sorted({phone for phones in pronunciations.values() for phone in phones})]
        self._ids = {phone: id for id, phone in enumerate(self.phones)}

    def encode(self, text: str) -> list[int]:
        return [self._ids[phone] for word in text.split() for phone in self.pronunciations[word]]

    def spans(self, text: str, frames: list[tuple[int, int]]) -> Aligned:
        """From each phone's first frame and the one after its last."""
        rest = iter(frames)
        phones, words = [], []
        for word in text.split():
            mine = [Span(*map(_seconds, next(rest)), phone) for phone in self.pronunciations[word]]
            phones += mine
            if mine:
                words.append(Span(mine[0].start_s, mine[-1].end_s, word))
        return Aligned(phones, words)

    def frames(self, text: str, scores_TU: Tensor) -> list[tuple[int, int]]:
        """Each phone's first frame and the one after its last, on the best path.

        Blank frames inside a word, and up to CLOSURE_FRAMES between two, go half to the phone before them and half to
        the one after; all others are silence.
        """
        phones, ids = len(self.phones) - 1, self.encode(text)
        # every phone is two states of one score: it lasts two frames, and equal neighbours need no blank between them
        states_1L = torch.tensor([[state for id in ids for state in (id, id + phones)]], dtype=torch.int32)
        scores_1TS = torch.cat([scores_TU, scores_TU[:, 1:]], dim=1)[None].cpu()
        path_1T, path_scores_1T = torchaudio.functional.forced_align(scores_1TS, states_1L, blank=0)
        states = torchaudio.functional.merge_tokens(path_1T[0], path_scores_1T[0], blank=0)
        found = [[a.start, b.end] for a, b in zip(states[::2], states[1::2], strict=True)]
        word_of = [index for index, word in enumerate(text.split()) for _ in self.pronunciations[word]]
        for (a, b), (word_a, word_b) in zip(pairwise(found), pairwise(word_of), strict=True):
            if word_a == word_b or b[0] - a[1] <= CLOSURE_FRAMES:
                a[1] = b[0] = (a[1] + b[0]) // 2
        return [(start, end) for start, end in found]

    def per_frame(self, text: str, scores_TU: Tensor) -> Tensor:
        """The id of each frame [T] by that path."""
        ids_T = torch.zeros(len(scores_TU), dtype=torch.long)
        for id, (start, end) in zip(self.encode(text), self.frames(text, scores_TU), strict=True):
            ids_T[start:end] = id
        return ids_T


def _seconds(frame: int) -> float:
    return round(OFFSET_S + frame * FRAME_S, 3)


class _Model(nn.Module):
    """Frames [B, T, F] and lengths in, log posteriors [B, T, U] out; a frame's follow from 120 ms on either side."""

    def __init__(self, in_dim: int, units: int, dim: int = 128, layers: int = 3, kernel: int = 5, dropout: float = 0.1):
        super().__init__()
        dims = [in_dim] + layers * [dim]
        self.norms = nn.ModuleList(nn.LayerNorm(d) for d in dims)
        self.convs = nn.ModuleList(nn.Conv1d(a, b, kernel, padding=kernel // 2) for a, b in pairwise(dims))
        self.dropout, self.out = nn.Dropout(dropout), nn.Linear(dim, units)
        self.register_buffer("prior_U", torch.full((units,), 1 / units))  # mean posterior over recent batches

    def forward(self, x_BTF: Tensor, lens_B: Tensor) -> Tensor:
        valid_BT1 = valid_mask(lens_B, x_BTF.shape[1])[:, :, None]
        for norm, conv in zip(self.norms, self.convs, strict=False):
            y_BFT = (norm(x_BTF) * valid_BT1).transpose(1, 2)
            x_BTF = self.dropout(conv(y_BFT).relu()).transpose(1, 2)
        return self.out(self.norms[-1](x_BTF)).log_softmax(-1)

    def scores(self, log_probs_BTU: Tensor) -> Tensor:
        """Log posteriors less a share of the log prior."""
        return log_probs_BTU - PRIOR_POWER * self.prior_U.clamp(min=1e-5).log()

    @torch.no_grad()
    def hear(self, x_TF: Tensor) -> Tensor:
        """Scores [T, U] of one utterance."""
        return self.eval().scores(self(x_TF[None], torch.tensor([len(x_TF)], device=x_TF.device)))[0]


def _make(sets: dict[str, list[Utterance]], train: str, phones: Phones, seed: int, device: torch.device) -> dict:
    """{set: {utterance: its spans}} by a model trained on one of `sets`."""
    words = sorted({word for utterances in sets.values() for u in utterances for word in u.text.split()})
    labels = _Labels(dict(phones(" ".join(words))))  # all at once, so that a lexicon names all that it lacks
    front = LogMel().to(device)
    speech = {name: Speech(_alignable(name, us, labels, front), labels) for name, us in sets.items()}
    for name, part in speech.items():
        if not len(part):
            raise UserError(f"{name}: no utterance can be aligned; do its text and its pronunciations fit the audio?")
    model = _train(speech[train], labels, front, seed, device)
    made: dict[str, dict[str, Aligned]] = {}
    for name, part in speech.items():
        texts, made[name] = {u.id: u.text for u in part.utterances}, {}
        for utt, x_TF in progress(_frames(part, front, device), len(part), f"aligning {name}"):
            made[name][utt] = labels.spans(texts[utt], labels.frames(texts[utt], model.hear(x_TF)))
    return made


def _alignable(name: str, utterances: list[Utterance], labels: _Labels, front: LogMel) -> list[Utterance]:
    """Without those that have no phones, or less than two frames for each."""
    frames = front.out_lens(torch.tensor([round(u.duration_s * RATE_HZ) for u in utterances])) // 2
    needed = [2 * len(labels.encode(u.text)) for u in utterances]
    fits = [0 < n <= most for n, most in zip(needed, frames.tolist(), strict=True)]
    if not all(fits):
        log.warning(
            f"{name}: {fits.count(False)} of {len(fits)} utterances have no phones, or less than 40 ms for each, and "
            f"are left out, first {utterances[fits.index(False)].id}"
        )
    return [u for u, fit in zip(utterances, fits, strict=True) if fit]


def _frames(speech: Speech, front: LogMel, device: torch.device) -> Iterator[tuple[str, Tensor]]:
    """(utterance, its frames [T, 2M])."""
    for batch in speech.batches(plan(speech.durations_s, BATCH_S)):
        log_BTM, lens_B = front(batch.wav_BN.to(device), batch.num_samples_B.to(device))
        for utt, log_TM, frames in zip(batch.ids, log_BTM, (lens_B // 2).tolist(), strict=True):
            yield utt, log_TM[: 2 * frames].reshape(frames, -1)


def _train(speech: Speech, labels: _Labels, front: LogMel, seed: int, device: torch.device) -> _Model:
    """A model of at most HEARD_S of the speech, drawn by the seed; ROUNDS are its lessons, whatever the corpus' size."""
    drawn = np.random.default_rng(seed).permutation(len(speech))
    ends_s = np.cumsum([speech.durations_s[index] for index in drawn])
    part = Speech([speech.utterances[index] for index in drawn[: 1 + np.searchsorted(ends_s, HEARD_S)]], labels)
    heard = dict(progress(_frames(part, front, device), len(part), "listening"))
    x = [heard[u.id] for u in part.utterances]
    targets = [torch.tensor(ids, device=device) for ids in part.targets]
    torch.manual_seed(seed)
    model = _Model(2 * front.num_mels, len(labels.phones)).to(device)
    bar = progress(None, sum(updates for _, updates, _ in ROUNDS), "learning to align", "batch")
    batches = _batches(part.durations_s, seed)
    for criterion, updates, lr in ROUNDS:
        if criterion == "frames":
            targets = [
                labels.per_frame(u.text, model.hear(x_TF)).to(device)
                for u, x_TF in zip(part.utterances, x, strict=True)
            ]
        optimizer = torch.optim.AdamW(model.parameters(), lr)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, shape(Group(lr=lr), updates))
        updater = Updater(optimizer, schedule, MAX_NORM)
        model.train()
        for rows in islice(batches, updates):
            x_BTF, lens_B = pad_batch([x[row] for row in rows])
            targets_BL, target_lens_B = pad_batch([targets[row] for row in rows])
            lens_B, valid_BT = lens_B.to(device), valid_mask(lens_B, x_BTF.shape[1]).to(device)
            log_probs_BTU = model(x_BTF, lens_B)
            if criterion == "frames":
                loss = F.nll_loss(log_probs_BTU[valid_BT], targets_BL[valid_BT])
            else:
                losses_B = ctc_loss(model.scores(log_probs_BTU), lens_B, targets_BL, target_lens_B.to(device))
                loss = (losses_B / target_lens_B.to(device)).mean()
            try:
                updater.step([loss])
            except NotFinite as error:
                raise UserError(f"alignment: {error}; look for audio that does not fit its transcript") from None
            model.prior_U.lerp_(log_probs_BTU.detach()[valid_BT].exp().mean(0), PRIOR_RATE)
            bar.update()
    bar.close()
    return model


def _batches(durations_s: list[float], seed: int) -> Iterator[list[int]]:
    """Without end, epoch after epoch."""
    batch_s = min(BATCH_S, sum(durations_s) / BATCHES)
    for epoch in count():
        yield from plan(durations_s, batch_s, seed, epoch)
