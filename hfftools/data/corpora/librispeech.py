"""LibriSpeech in its own layout (part/speaker/chapter/*.trans.txt with FLAC, WAV or Opus) -> one set a part."""

from pathlib import Path

from hfftools.data.audio import duration_s
from hfftools.data.datadir import Utterance
from hfftools.log import UserError, progress

SUFFIXES = ("flac", "wav", "opus")


def sets(source: Path, out: Path, limit: int | None = None) -> dict[str, list[Utterance]]:
    """{part with dashes as underscores: utterances} for every part found in `source`."""
    parts = sorted(p for p in source.iterdir() if p.is_dir() and any(p.glob("*/*/*.trans.txt")))
    if not parts:
        raise UserError(f"{source} holds no LibriSpeech part (no */*/*/*.trans.txt in it)")
    return {part.name.replace("-", "_"): _part(part, limit) for part in parts}


def _part(part: Path, limit: int | None) -> list[Utterance]:
    utterances = []
    for transcript in progress(sorted(part.glob("*/*/*.trans.txt")), None, part.name, "chapter"):
        for line in transcript.read_text(encoding="utf-8").splitlines():
            utt, _, text = line.partition(" ")
            speaker, chapter, _ = utt.split("-")
            found = [p for s in SUFFIXES if (p := transcript.parent / f"{utt}.{s}").exists()]
            if not found:
                raise UserError(f"{transcript}: no .flac, .wav or .opus for {utt} beside it")
            path = str(found[0].resolve())
            utterances.append(Utterance(utt, f"{speaker}-{chapter}", path, text, duration_s=duration_s(path)))
            if len(utterances) == limit:
                return utterances
    return utterances
