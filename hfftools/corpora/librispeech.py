"""Read LibriSpeech (part/speaker/chapter/*.trans.txt with FLAC, WAV or Opus files) as one set for each part.

Set names have underscores: train_clean_5. The transcripts are normalised already, in upper case, and stay as they are.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from hfftools.audio.waveform import durations_s
from hfftools.config import one_of
from hfftools.corpora.download import fetch
from hfftools.data.datadir import Utterance
from hfftools.log import UserError, log, suggest
from hfftools.textfile import read_lines

SUFFIXES = ("flac", "wav", "opus")
MINI = ("train-clean-5", "dev-clean-2")
WITHOUT_SOURCE = (f"parts=[{','.join(MINI)}]",)
UNIONS = {
    "train-clean-460": ["train-clean-100", "train-clean-360"],
    "train-960": ["train-clean-100", "train-clean-360", "train-other-500"],
}
# md5sum.txt of openslr.org/12 and of openslr.org/31, as PaddleSpeech holds them in dataset/librispeech/librispeech.py
# and dataset/mini_librispeech/mini_librispeech.py
MD5 = {
    "dev-clean": "42e2234ba48799c1f50f24a7926300a1",
    "dev-other": "c8d0bcc9cca99d4f8b62fcc847357931",
    "test-clean": "32fa31d27d2e1cad72775fee3f4849a9",
    "test-other": "fb5a50374b501bb3bac4815ee91d3135",
    "train-clean-100": "2a93770f6d5c6c964bc36631d331a522",
    "train-clean-360": "c0e676e450a7ff2f54aeade5171606fa",
    "train-other-500": "d1a0fd59409feb2c614ce4d30c387708",
    "train-clean-5": "5df7d4e78065366204ca6845bb08f490",
    "dev-clean-2": "6d7ab67ac6a1d2c993d050e16d61080d",
}
# md5sum.txt of openslr.org/11, as pytorch-database-prep (sdrobert) holds it: the corpus' own n-grams
LANGUAGE_MODELS = {
    "3-gram": "74cbb837e582378c26c602e1c8cbcb9c",
    "3-gram.pruned.1e-7": "9a0f1325bcaf3a0f7b7be4be10823c2a",
    "3-gram.pruned.3e-7": "8f67ec741827742eee05799ab7605b50",
    "4-gram": "6abdcd5b055bd482e4f9defe91d40408",
}
OPENSLR = "https://www.openslr.org/resources"
# Libri-Light's limited supervision (Kahn et al. 2020), its sum as in torchaudio 2.11, datasets/librilight_limited.py
LIBRILIGHT_URL = "https://dl.fbaipublicfiles.com/librilight/data/librispeech_finetuning.tgz"
LIBRILIGHT_SUM = "sha256:5d1efdc777b548194d7e09ba89126e2188026df9fd57aa57eb14408d2b2342af"
LIBRILIGHT = {"10min": ["1h/0/*"], "1h": ["1h/*/*"], "10h": ["1h/*/*", "9h/*"]}  # folders that hold speaker/chapter


@dataclass(frozen=True)
class Config:
    """Configure which parts of LibriSpeech are read."""

    # folders of the corpus, or train-clean-460 and train-960, which join several; empty: all that the source holds
    parts: list[str] = field(default_factory=list)
    librilight: str = ""  # Libri-Light's small training set 10min, 1h or 10h, as train_10min, …; empty: none

    def __post_init__(self):
        if self.librilight:
            one_of(self, LIBRILIGHT, "librilight")


def archives(config: Config) -> dict[str, str]:
    """Return {URL: checksum} of the archives that hold the parts of a config."""
    urls = {}
    for part in config.parts:
        for name in UNIONS.get(part, [part]):
            if name not in MD5:
                raise UserError(f"parts: there is no '{name}' to download; {suggest(name, [*MD5, *UNIONS])}")
            urls[f"{OPENSLR}/{31 if name in MINI else 12}/{name}.tar.gz"] = f"md5:{MD5[name]}"
    return urls | ({LIBRILIGHT_URL: LIBRILIGHT_SUM} if config.librilight else {})


def language_model(name: str, folder: Path) -> Path:
    """Return folder/<name>.arpa.gz, one of LANGUAGE_MODELS in upper case; download it if it is not there."""
    if name not in LANGUAGE_MODELS:
        raise UserError(f"LibriSpeech has no language model '{name}'; {suggest(name, LANGUAGE_MODELS)}")
    file = f"{name}.arpa.gz"
    return fetch(f"{OPENSLR}/11/{file}", folder / file, f"md5:{LANGUAGE_MODELS[name]}")


def sets(source: Path, out: Path, limit: int | None = None, config: Config | None = None) -> dict[str, list[Utterance]]:
    """Return {part with underscores: utterances}; `source` holds the parts, or LibriSpeech/ with the parts.

    Raise UserError if a part is missing, or if `source` has none.
    """
    config = config or Config()
    # a part's archive is unpacked to <part>/LibriSpeech/<part>
    places = [source, *sorted(source.glob("LibriSpeech")), *sorted(source.glob("*/LibriSpeech"))]
    there: dict[str, Path] = {}
    for place in reversed(places):  # the place nearest to the source wins
        there |= {folder.name: folder for folder in place.iterdir() if _is_part(folder)}
    parts = config.parts or sorted(there)
    if not (parts or config.librilight):
        raise UserError(f"{source} holds no LibriSpeech part (no */*/*/*.trans.txt in it)")
    made = {}
    for part in parts:
        folders = []
        for name in UNIONS.get(part, [part]):
            if name not in there:
                hint = suggest(name, there) if there else "it has none at all"
                raise UserError(f"{source} has no part '{name}'; {hint}")
            folders.append(there[name])
        made[part.replace("-", "_")] = _utterances(part, _chapters(folders), limit)
    if config.librilight:
        root = _librilight(source)
        folders = []
        for pattern in LIBRILIGHT[config.librilight]:
            folders += sorted(root.glob(pattern))
        made[f"train_{config.librilight}"] = _utterances(config.librilight, _chapters(folders), limit, all_there=False)
    return made


def _chapters(folders: Iterable[Path]) -> Iterator[Path]:
    """Yield the transcript files of the folders, sorted by speaker and chapter within each."""
    for folder in folders:
        yield from sorted(folder.glob("*/*/*.trans.txt"))


def _is_part(folder: Path) -> bool:
    return folder.is_dir() and any(folder.glob("*/*/*.trans.txt"))


def _librilight(source: Path) -> Path:
    """Return the folder of Libri-Light's limited supervision, in the source or next to it; raise UserError otherwise."""
    name = "librispeech_finetuning"
    for place in (source, source / name, source / name / name, source.parent / name):
        if (place / "1h").is_dir() and (place / "9h").is_dir():
            return place
    raise UserError(f"{source} holds no {name}/ with 1h/ and 9h/ in it; unpack {LIBRILIGHT_URL} there")


def _utterances(what: str, chapters: Iterable[Path], limit: int | None, all_there: bool = True) -> list[Utterance]:
    """Return at most `limit` utterances of transcript files; raise UserError for a line without audio if `all_there`."""
    lines: list[tuple[str, str, str]] = []
    lost = 0
    for chapter in chapters:
        for line in filter(str.strip, read_lines(chapter)):
            utt, *words = line.split(maxsplit=1)
            candidates = [chapter.parent / f"{utt}.{suffix}" for suffix in SUFFIXES]
            path = next((candidate for candidate in candidates if candidate.exists()), None)
            if path is None and all_there:
                raise UserError(f"{chapter}: no .flac, .wav or .opus for {utt} in its folder; unpack the part again")
            if path is None:
                lost += 1
            else:
                lines.append((utt, "".join(words).strip(), str(path.resolve())))
        if limit is not None and len(lines) >= limit:
            break
    if lost:  # Libri-Light took single utterances of a chapter
        log.info(f"librilight {what}: {lost} lines of transcripts are of utterances outside of it")
    utterances = []
    lengths = durations_s([path for _, _, path in lines[:limit]], what)
    for (utt, text, audio), seconds in zip(lines[:limit], lengths, strict=True):
        if isinstance(seconds, UserError):
            raise seconds
        # speaker and chapter, as Kaldi's recipe has it: one voice sounds different in another book
        speaker = utt.rpartition("-")[0]
        utterances.append(Utterance(utt, speaker, audio, text, duration_s=seconds))
    return utterances
