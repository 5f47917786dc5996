"""Align transcribed speech: return the span of every phone and word, in seconds, from a model of that speech alone."""

from dataclasses import dataclass
from pathlib import Path

import torch

from hfftools.data import datadir
from hfftools.data.batch import Speech
from hfftools.data.datadir import Utterance
from hfftools.data.inputs import of_set
from hfftools.expdir import ExpDir, check_inputs, write_json
from hfftools.log import UserError, log, progress
from hfftools.nn.logmel import HOP_SAMPLES, RATE_HZ, WINDOW_SAMPLES, LogMel
from hfftools.probe.alignment_model import Labels, log_mel_frames, train, transcript
from hfftools.text import ctm
from hfftools.text.ctm import Span
from hfftools.text.phones import Phones

KINDS = ("phones", "words")
SETTINGS = 2  # goes up with every change, here or in alignment_model.py, that moves a span
FRAME_S = 2 * HOP_SAMPLES / RATE_HZ
# measured on clean speech of eSpeak NG's voices: without it, spans would start and end this much before its own times
EARLY_S = 0.007
# a frame covers two windows, and stands for the 20 ms in their middle
OFFSET_S = (WINDOW_SAMPLES - HOP_SAMPLES) / 2 / RATE_HZ + EARLY_S


@dataclass(frozen=True)
class Aligned:
    """Hold the spans of one utterance, by time.

    Phones do not overlap; what lies in no span is silence, and a word without phones has no span.
    """

    phones: list[Span]
    words: list[Span]


def align(
    training_set: str, directories: list[str], phones: Phones, folder: Path, seed: int, device: torch.device
) -> dict[str, Aligned]:
    """Return {utterance: its spans} over data directories with text, by a model of the speech of `training_set`.

    The spans are written to `folder`/<set>/{phones,words}.ctm; if they are there already, made from the same inputs
    (inputs.json), they are read. Utterances without phones, or with less than 40 ms for each, are left out with a
    warning. Raise UserError if `folder` was made from other inputs, two directories have one name, the lexicon lacks
    words, or no utterance of a set can be aligned.
    """
    every = list(dict.fromkeys([training_set, *directories]))
    sets = {datadir.set_name(directory): datadir.read(directory) for directory in every}
    if len(sets) < len(every):
        raise UserError(f"two of {', '.join(every)} have the same name, and alignments are kept by it; rename one")
    inputs = {"the name of the training set": datadir.set_name(training_set), "the list of sets": " ".join(sets)}
    inputs |= {"the pronunciations": phones.digest, "the seed": str(seed), "the settings": str(SETTINGS)}
    for name, utterances in sets.items():
        inputs |= of_set(f"the set {name}", utterances)
    files = {name: {kind: folder / name / f"{kind}.ctm" for kind in KINDS} for name in sets}
    exp = ExpDir(folder)
    with exp.alone():
        check_inputs(exp.inputs, inputs)
        existing: list[Path] = []
        for kinds in files.values():
            existing += [path for path in kinds.values() if path.exists()]
        if existing and not exp.inputs.exists():
            raise UserError(f"{existing[0]} was not made by hff, and would be overwritten; name another folder")
        if len(existing) < len(files) * len(KINDS):
            new = _align_sets(sets, datadir.set_name(training_set), phones, seed, device)
            write_json(exp.inputs, inputs)  # first, so that what an interrupted run leaves is known as its own
            for name, spans in new.items():
                for kind, path in files[name].items():
                    ctm.write(path, {utt: getattr(aligned, kind) for utt, aligned in spans.items()})
                log.info(f"{folder / name}: {len(spans)} utterances aligned")
    aligned: dict[str, Aligned] = {}
    for kinds in files.values():
        spoken, words = ctm.read(kinds["phones"]), ctm.read(kinds["words"])
        if not spoken or spoken.keys() != words.keys():  # an utterance that is aligned has spans of both kinds
            raise UserError(f"{kinds['phones']} or {kinds['words']} is cut short; remove {folder}, and run again")
        aligned |= {utt: Aligned(spans, words[utt]) for utt, spans in spoken.items()}
    return aligned


def _align_sets(
    sets: dict[str, list[Utterance]], training_set: str, phones: Phones, seed: int, device: torch.device
) -> dict[str, dict[str, Aligned]]:
    """Return {set: {utterance: its spans}} by a model trained on one of `sets`."""
    vocabulary: set[str] = set()
    for utterances in sets.values():
        vocabulary.update(*(transcript(u).split() for u in utterances))
    labels = Labels(
        dict(phones(" ".join(sorted(vocabulary))))
    )  # all at once, so that one error names all missing words
    front = LogMel().to(device)
    speech = {name: Speech(_alignable(name, us, labels, front), labels) for name, us in sets.items()}
    for name, part in speech.items():
        if not len(part):
            raise UserError(
                f"{name}: no utterance can be aligned; check that its text and pronunciations fit its audio"
            )
    model = train(speech[training_set], labels, front, seed, device)
    aligned: dict[str, dict[str, Aligned]] = {}
    for name, part in speech.items():
        texts, aligned[name] = {u.id: transcript(u) for u in part.utterances}, {}
        for utt, x_TF in progress(log_mel_frames(part, front, device), len(part), f"aligning {name}"):
            frames = labels.frames(texts[utt], model.scores_of(x_TF))
            aligned[name][utt] = _spans(texts[utt], labels.pronunciations, frames)
    return aligned


def _alignable(name: str, utterances: list[Utterance], labels: Labels, front: LogMel) -> list[Utterance]:
    """Return the utterances with phones, and at least two frames for each of them; warn of the others."""
    frames = front.out_lens(torch.tensor([round(u.duration_s * RATE_HZ) for u in utterances])) // 2
    needed = [2 * len(labels.encode(transcript(u))) for u in utterances]
    fits = [0 < n <= most for n, most in zip(needed, frames.tolist(), strict=True)]
    if not all(fits):
        log.warning(
            f"{name}: {fits.count(False)} of {len(fits)} utterances have no phones, or less than 40 ms for each, and "
            f"are left out, first {utterances[fits.index(False)].id}"
        )
    return [u for u, fit in zip(utterances, fits, strict=True) if fit]


def _spans(text: str, pronunciations: dict[str, list[str]], frames: list[tuple[int, int]]) -> Aligned:
    """Return spans in seconds, given the first frame of each phone of `text` and the one after its last."""
    remaining = iter(frames)
    phones, words = [], []
    for word in text.split():
        spans = []
        for phone in pronunciations[word]:
            start, end = next(remaining)
            spans.append(Span(_seconds(start), _seconds(end), phone))
        phones += spans
        if spans:
            words.append(Span(spans[0].start_s, spans[-1].end_s, word))
    return Aligned(phones, words)


def _seconds(frame: int) -> float:
    """Return the time at which a frame starts, in s, to the millisecond as CTM files have it."""
    return round(OFFSET_S + frame * FRAME_S, 3)
