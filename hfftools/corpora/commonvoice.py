"""Read a Common Voice release (its tarball, or a folder of .tsv files and clips/) as train, dev and test.

Columns are looked up by name, so that old and new releases are read alike. Rows that cannot be used are left out, counted
and named in the log. No speaker is in two sets. With `hours`, every speaker of train contributes a part.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from hfftools.audio.waveform import durations_s
from hfftools.config import at_least
from hfftools.corpora import unpacking
from hfftools.corpora.subset import hold_out, round_robin
from hfftools.corpora.unpacking import WHERE
from hfftools.data.datadir import Utterance
from hfftools.log import UserError, log, require
from hfftools.text.normalise import Options, normalise, unspaced

HELD_OUT = 0.1  # share of the clips of train that becomes a dev or test set which the release does not have
CHUNK = 2000  # clips whose headers are read together, before asking whether there are hours enough
SHOWN = 3  # rejected rows that the log names for each reason


@dataclass(frozen=True)
class Config:
    """Configure which part of a release is taken, and how its transcripts are normalised."""

    lang: str = ""  # folder of the language in the release, such as fr or zh-CN; empty: the only one there is
    hours: float = 0.0  # hours of speech to take from train, balanced over its speakers; 0: all
    dev_hours: float = 0.0  # hours of speech to take from dev, balanced over its speakers; 0: all
    min_s: float = 0.3  # shorter clips are left out, in seconds: they hold no more than a click
    max_s: float = 30.0  # longer clips are left out, in seconds: mostly a microphone that was left on
    text: Options = field(
        default_factory=Options
    )  # how transcripts are normalised; language: empty is the release's own

    def __post_init__(self):
        at_least(self, 0, "hours", "dev_hours")  # 0 is for all
        require(0 <= self.min_s < self.max_s, f"min_s: {self.min_s} is not from 0 to below max_s, {self.max_s}")


@dataclass(frozen=True)
class Clip:
    """Describe one usable row of a table; `name` is the file in clips/, `text` is normalised."""

    speaker: str
    name: str
    text: str


class Rejected:
    """Collect the rows that cannot be used, by reason."""

    def __init__(self) -> None:
        self.names: dict[str, list[str]] = {}

    def add(self, reason: str, name: str) -> None:
        """Record the row of the clip `name`."""
        self.names.setdefault(reason, []).append(name)

    def __str__(self) -> str:
        parts = []
        for reason, names in sorted(self.names.items()):
            more = " …" if len(names) > SHOWN else ""
            parts.append(f"{len(names)} × {reason} ({', '.join(names[:SHOWN])}{more})")
        return "; ".join(parts)


def sets(source: Path, out: Path, limit: int | None = None, config: Config | None = None) -> dict[str, list[Utterance]]:
    """Return {set: utterances} of train, dev and test; a set is called train_fr_10h if `lang` and `hours` are given."""
    config = config or Config()
    folder = unpacking.language_folder(source, config.lang)
    rejected = {part: Rejected() for part in ("train", "dev", "test")}
    made: dict[str, list[Utterance]] = {}
    for part, clips in _parts(folder, config, rejected).items():
        hours = {"train": config.hours, "dev": config.dev_hours}.get(part, 0.0)
        utterances = _utterances(folder, part, clips, config, rejected[part], limit, hours)
        if rejected[part].names:
            log.info(f"{folder}/{part}.tsv: left out {rejected[part]}")
        if not utterances:
            raise UserError(f"{folder}/{part}.tsv: not one of its {len(clips)} clips can be used: {rejected[part]}")
        language = f"_{config.lang.replace('-', '_')}" if config.lang else ""
        made[f"{part}{language}_{hours:g}h" if hours else f"{part}{language}"] = utterances
    texts = []
    for utterances in made.values():
        texts += [utterance.text or "" for utterance in utterances]
    if unspaced(texts):
        log.info("the text is written without spaces: look at CER, not at WER, and say --unit-kind char --lm units")
    return made


def _utterances(
    folder: Path,
    part: str,
    clips: list[Clip],
    config: Config,
    rejected: Rejected,
    limit: int | None,
    hours: float,
) -> list[Utterance]:
    """Return the usable clips, up to `limit` and `hours`; their length is what can be decoded."""
    utterances: list[Utterance] = []
    total_s, chunk = 0.0, limit or CHUNK
    if hours:
        clips = round_robin(clips)
    for start in range(0, len(clips), chunk):
        there = [clip for clip in clips[start : start + chunk] if _is_there(folder / "clips" / clip.name, rejected)]
        places = [str(folder / "clips" / clip.name) for clip in there]
        for clip, length_s in zip(there, durations_s(places, f"Common Voice {part}"), strict=True):
            if len(utterances) == limit or (hours and total_s >= 3600 * hours):
                return utterances
            if isinstance(length_s, UserError):
                rejected.add("cannot be decoded", clip.name)
            elif not config.min_s <= length_s <= config.max_s:
                rejected.add(f"not between {config.min_s:g} and {config.max_s:g} s", clip.name)
            else:
                path = str((folder / "clips" / clip.name).resolve())
                utt = f"{clip.speaker}-{Path(clip.name).stem}"
                utterances.append(Utterance(utt, clip.speaker, path, clip.text, duration_s=length_s))
                total_s += length_s
    if total_s < 3600 * hours:
        log.info(f"{folder}/{part}.tsv: only {total_s / 3600:.2f} h of the {hours:g} h asked for are there")
    return utterances


def _is_there(path: Path, rejected: Rejected) -> bool:
    """Return whether a clip's file exists and is not empty; record it as rejected otherwise."""
    size = path.stat().st_size if path.is_file() else None
    if not size:
        rejected.add("no file in clips/" if size is None else "an empty file", path.name)
    return bool(size)


def _parts(folder: Path, config: Config, rejected: dict[str, Rejected]) -> dict[str, list[Clip]]:
    """Return train, dev and test by the tables alone, no speaker in two of them; make a missing set from train."""
    language = config.text.language or config.lang or unpacking.locale(folder)
    options = replace(config.text, language=language)
    parts: dict[str, list[Clip]] = {}
    seen: dict[str, str] = {}  # {clip: the table that had it first}
    elsewhere: set[str] = set()  # speakers of test, then of test and dev: test comes first, so that it stays complete
    for part in ("test", "dev", "train"):
        parts[part] = list(_clips(folder, part, options, seen, elsewhere, rejected[part]))
        elsewhere |= {clip.speaker for clip in parts[part]}
    if not parts["train"] and (folder / "validated.tsv").exists():
        parts["train"] = list(_clips(folder, "validated", options, seen, elsewhere, rejected["train"]))
        log.info(
            f"{folder}/train.tsv is missing or empty; train is the {len(parts['train'])} clips of validated.tsv "
            "whose speakers are in no other set"
        )
    if not parts["train"]:
        why = str(rejected["train"]) or "there are none"
        raise UserError(f"{folder}/train.tsv: not one of its rows can be used: {why}")
    for part in ("test", "dev"):
        if not parts[part]:
            parts["train"], parts[part] = hold_out(parts["train"], HELD_OUT, f"{folder}/{part}.tsv is missing or empty")
            speakers = len({clip.speaker for clip in parts[part]})
            log.info(
                f"{folder}/{part}.tsv is missing or empty: {len(parts[part])} clips of {speakers} speakers were taken "
                "from train for it, and these speakers are no longer in train; say so with any result"
            )
    return {part: parts[part] for part in ("train", "dev", "test")}


def _clips(
    folder: Path, part: str, options: Options, seen: dict, elsewhere: set[str], rejected: Rejected
) -> Iterator[Clip]:
    """Yield the usable clips of a table; none if there is no such table."""
    tsv = folder / f"{part}.tsv"
    for number, row in enumerate(unpacking.rows(tsv) if tsv.exists() else (), 2):
        name, speaker = row["path"] or "", (row["client_id"] or "")[:16]  # of 128 hex digits
        if not name or not speaker or row["sentence"] is None:
            rejected.add("a line cut short", f"line {number}")
            continue
        if Path(name).name != name or name.rstrip().endswith("|"):  # in wav.scp, a command
            rejected.add("not a file name", f"line {number}")
            continue
        if not Path(name).suffix:  # the first releases left it out
            name += ".mp3"
        text = normalise(row["sentence"], options)
        if name in seen:
            rejected.add("in a table before" if seen[name] != part else "twice", name)
        elif speaker in elsewhere:
            rejected.add("of a speaker of another set", name)
        elif not text:
            rejected.add("no word in its sentence", name)
        else:
            yield Clip(speaker, name, text)
        seen.setdefault(name, part)


def unpack(archive: Path, folder: Path, limit: int | None, config: Config) -> Path:
    """Unpack the tables of a tarball and the clips that are wanted below `folder`; return the folder of the language.

    Clips that an earlier call has unpacked are not unpacked again.
    """
    root = folder / archive.name.partition(".tar")[0]
    if not (root / ".tables").exists():
        unpacking.extract(archive, lambda p: root / p.parent.name / p.name if p.suffix == ".tsv" else None, "tables")
        if not root.exists():
            raise UserError(f"{archive} holds no .tsv file; is it a release of Common Voice? {WHERE}")
        (root / ".tables").touch()
    language = unpacking.language_folder(root, config.lang)
    seconds, lacking = unpacking.seconds(language), set()
    for part, clips in _parts(language, config, {part: Rejected() for part in ("train", "dev", "test")}).items():
        hours = {"train": config.hours, "dev": config.dev_hours}.get(part, 0.0)
        total_s = 0.0
        for count, clip in enumerate(round_robin(clips) if hours else clips):
            # 5 % more than asked for, since some may be rejected; all clips if the release does not list their lengths
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
