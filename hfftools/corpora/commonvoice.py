"""A Common Voice release (its tarball, or a folder of .tsv files and clips/) -> train, dev, test, texts normalised.

Columns are found by name, so that old and new releases are read alike. Rows that cannot be used are left out, counted and
named in the log. A speaker is in one set only. With `hours`, some of every speaker of train are taken.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from hfftools.audio.waveform import durations_s
from hfftools.corpora import unpacking
from hfftools.corpora.subset import hold_out, round_robin
from hfftools.corpora.unpacking import WHERE
from hfftools.data.datadir import Utterance
from hfftools.log import UserError, log, require
from hfftools.text.normalise import Options, normalise, unspaced

HELD_OUT = 0.1  # of the clips of train, for a dev or test set that the release does not have
CHUNK = 2000  # clips looked at together
SHOWN = 3  # odd rows named in the log


@dataclass
class Config:
    lang: str = ""  # the language's folder in the release, such as fr or zh-CN; may be left out where there is but one
    hours: float = 0.0  # of train, some of every speaker; 0 for all
    dev_hours: float = 0.0  # of dev, likewise
    min_s: float = 0.3  # shorter and longer clips are odd: a click, a microphone left open
    max_s: float = 30.0
    text: Options = field(default_factory=Options)  # its language is that of the release where none is given

    def __post_init__(self):
        require(self.hours >= 0 and self.dev_hours >= 0, "hours and dev_hours are 0, for all, or above")
        require(0 <= self.min_s < self.max_s, "min_s lies between 0 and max_s")


@dataclass(frozen=True)
class Clip:
    speaker: str
    name: str  # of the file in clips/
    text: str


class Odd:
    """Rows that cannot be used, by reason."""

    def __init__(self):
        self.names: dict[str, list[str]] = {}

    def add(self, reason: str, name: str) -> None:
        self.names.setdefault(reason, []).append(name)

    def __str__(self) -> str:
        return "; ".join(
            f"{len(names)} × {reason} ({', '.join(names[:SHOWN])}{' …' if len(names) > SHOWN else ''})"
            for reason, names in sorted(self.names.items())
        )


def sets(source: Path, out: Path, limit: int | None = None, config: Config | None = None) -> dict[str, list[Utterance]]:
    """The utterances of train, dev and test, named train_fr_10h where `lang` and `hours` are given."""
    config = config or Config()
    folder = unpacking.language_folder(source, config.lang)
    odd = {part: Odd() for part in ("train", "dev", "test")}
    seconds, made = unpacking.seconds(folder), {}
    for part, clips in _parts(folder, config, odd).items():
        hours = {"train": config.hours, "dev": config.dev_hours}.get(part, 0.0)
        utterances = _utterances(folder, part, clips, seconds, config, odd[part], limit, hours)
        if odd[part].names:
            log.info(f"{folder}/{part}.tsv: left out {odd[part]}")
        if not utterances:
            raise UserError(f"{folder}/{part}.tsv: not one of its {len(clips)} clips can be used: {odd[part]}")
        of = f"_{config.lang.replace('-', '_')}" if config.lang else ""
        made[f"{part}{of}_{hours:g}h" if hours else f"{part}{of}"] = utterances
    if unspaced(u.text for utterances in made.values() for u in utterances):
        log.info("the text is written without spaces: look at CER, not at WER, and say --unit-kind char --lm units")
    return made


def _utterances(
    folder: Path, part: str, clips: list[Clip], seconds: dict, config: Config, odd: Odd, limit: int | None, hours: float
) -> list[Utterance]:
    """The usable ones of `clips`, up to `limit` and `hours`; no clip is opened that clip_durations.tsv knows."""
    utterances, total_s, chunk = [], 0.0, limit or CHUNK
    if hours:
        clips = round_robin(clips)
    for start in range(0, len(clips), chunk):
        there = [clip for clip in clips[start : start + chunk] if _is_there(folder / "clips" / clip.name, odd)]
        unknown = [clip.name for clip in there if clip.name not in seconds]
        places = [str(folder / "clips" / name) for name in unknown]
        opened = dict(zip(unknown, durations_s(places, f"Common Voice {part}") if unknown else [], strict=True))
        for clip in there:
            if len(utterances) == limit or (hours and total_s >= 3600 * hours):
                return utterances
            length_s = opened[clip.name] if clip.name in opened else seconds[clip.name]
            if isinstance(length_s, UserError):
                odd.add("cannot be decoded", clip.name)
            elif not config.min_s <= length_s <= config.max_s:
                odd.add(f"not between {config.min_s:g} and {config.max_s:g} s", clip.name)
            else:
                path = str((folder / "clips" / clip.name).resolve())
                utt = f"{clip.speaker}-{Path(clip.name).stem}"
                utterances.append(Utterance(utt, clip.speaker, path, clip.text, duration_s=length_s))
                total_s += length_s
    if total_s < 3600 * hours:
        log.info(f"{folder}/{part}.tsv: {total_s / 3600:.2f} h are all there is of the {hours:g} asked for")
    return utterances


def _is_there(path: Path, odd: Odd) -> bool:
    size = path.stat().st_size if path.is_file() else None
    if not size:
        odd.add("no file in clips/" if size is None else "an empty file", path.name)
    return bool(size)


def _parts(folder: Path, config: Config, odd: dict[str, Odd]) -> dict[str, list[Clip]]:
    """train, dev and test by the tables alone, no speaker in two of them; a set that is not there is made from train."""
    language = config.text.language or config.lang or unpacking.locale(folder)
    options = replace(config.text, language=language)
    parts: dict[str, list[Clip]] = {}
    seen: dict[str, str] = {}  # clip: where
    elsewhere: set[str] = set()  # speakers of test, then of test and dev
    for part in ("test", "dev", "train"):
        parts[part] = list(_clips(folder, part, options, seen, elsewhere, odd[part]))
        elsewhere |= {clip.speaker for clip in parts[part]}
    if not parts["train"] and (folder / "validated.tsv").exists():
        parts["train"] = list(_clips(folder, "validated", options, seen, elsewhere, odd["train"]))
        log.info(
            f"{folder}/train.tsv is missing or empty; train is the {len(parts['train'])} clips of validated.tsv "
            "whose speakers are in no other set"
        )
    if not parts["train"]:
        raise UserError(f"{folder}/train.tsv: not one of its rows can be used: {str(odd['train']) or 'there are none'}")
    for part in ("test", "dev"):
        if not parts[part]:
            parts["train"], parts[part] = hold_out(parts["train"], HELD_OUT, f"{folder}/{part}.tsv is missing or empty")
            speakers = len({clip.speaker for clip in parts[part]})
            log.info(
                f"{folder}/{part}.tsv is missing or empty: {len(parts[part])} clips of {speakers} speakers were taken "
                "from train for it, and these speakers are no longer in train; say so beside any result"
            )
    return {part: parts[part] for part in ("train", "dev", "test")}


def _clips(folder: Path, part: str, options: Options, seen: dict, elsewhere: set[str], odd: Odd) -> Iterator[Clip]:
    """The clips of a table that its rows allow; none where there is no such table."""
    tsv = folder / f"{part}.tsv"
    for number, row in enumerate(unpacking.rows(tsv) if tsv.exists() else (), 2):
        name, speaker = row["path"] or "", (row["client_id"] or "")[:16]
        if not name or not speaker or row["sentence"] is None:
            odd.add("a line cut short", f"line {number}")
            continue
        if not Path(name).suffix:  # the first releases left it out
            name += ".mp3"
        text = normalise(row["sentence"], options)
        if name in seen:
            odd.add("in a table before" if seen[name] != part else "twice", name)
        elif speaker in elsewhere:
            odd.add("of a speaker of another set", name)
        elif not text:
            odd.add("no word in its sentence", name)
        else:
            yield Clip(speaker, name, text)
        seen.setdefault(name, part)


def unpack(archive: Path, folder: Path, limit: int | None, config: Config) -> Path:
    """The tables of a tarball, and of its clips only those that are wanted, unpacked below `folder`; again, what lacks."""
    root = folder / archive.name.partition(".tar")[0]
    if not (root / ".tables").exists():
        unpacking.extract(archive, lambda p: root / p.parent.name / p.name if p.suffix == ".tsv" else None, "tables")
        if not root.exists():
            raise UserError(f"{archive} holds no .tsv file; is it a release of Common Voice? {WHERE}")
        (root / ".tables").touch()
    language = unpacking.language_folder(root, config.lang)
    seconds, lacking = unpacking.seconds(language), set()
    for part, clips in _parts(language, config, {part: Odd() for part in ("train", "dev", "test")}).items():
        hours = {"train": config.hours, "dev": config.dev_hours}.get(part, 0.0)
        total_s = 0.0
        for count, clip in enumerate(round_robin(clips) if hours else clips):
            # a little more than asked for, as some may turn out odd; all, where the release does not tell their lengths
            if (hours and total_s > 1.05 * 3600 * hours) or (limit is not None and count > 1.05 * limit + 10):
                break
            total_s += seconds.get(clip.name, 0.0)
            lacking.add(clip.name)
    lacking = {name for name in lacking if not (language / "clips" / name).exists()}
    if lacking:
        log.info(f"unpacking {len(lacking)} clips of {archive}")
        inside = (language.name, "clips")
        unpacking.extract(
            archive,
            lambda p: language / "clips" / p.name if p.parts[-3:-1] == inside and p.name in lacking else None,
            "clips",
        )
    return language
