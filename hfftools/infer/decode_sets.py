"""Decode data directories with trained experiments into predictions and scores; experiments of one upstream share it."""

import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hfftools import score
from hfftools.config import plugin
from hfftools.data import datadir
from hfftools.data.batch import Speech
from hfftools.data.datadir import Utterance
from hfftools.data.inputs import file_digest, of_set, refuse_other_set
from hfftools.data.table import read_table, write_table
from hfftools.decode.search import Search
from hfftools.disk import alone
from hfftools.expdir import ExpDir, changed_inputs, each_once, write_json
from hfftools.infer import search_weights
from hfftools.infer.bank import Bank
from hfftools.log import UserError, log, require
from hfftools.model import Model
from hfftools.records import read_json, readable
from hfftools.task.base import Recognition, Task
from hfftools.train import checkpoint, evaluate, experiment
from hfftools.train.config import Config
from hfftools.upstream.names import parse

_FIX = "remove it and run hff-decode again"


@dataclass(frozen=True)
class Job:
    """Hold what decoding needs to know of one experiment."""

    exp: ExpDir
    config: Config
    checkpoint: str  # digest
    search: Search  # with the weights as they were given

    @property
    def task(self) -> type[Task]:
        return experiment.task_of(self.config)


def decode(roots: list[Path], sets: list[str], overrides: list[str], search: Search | None = None) -> list[Path]:
    """Decode data directories (each experiment's data.test where none is given) with final checkpoints, and score.

    Each set's folder exp/<name>/decode/<set>, or <set>_<label> where the search is not greedy, gets the task's predictions,
    ref (where there are references), scores and decode.json; of recognition ctm too and, with more than one reading,
    nbest/. A set that is there, whole, of this checkpoint, this search and these data, is not decoded again. Return the
    folders. Raise UserError where a set of the same name, but of other data, would be overwritten.
    """
    bank, folders = Bank(), []
    search = search or Search()
    for exp in map(ExpDir, each_once(roots)):
        config = experiment.read_config(exp, overrides)
        checkpoint.check_upstream(exp.final, parse(config.upstream))
        experiment.kept_targets(exp, config)  # checks that they are those of the training
        job = Job(exp, config, checkpoint.digest(exp.final), search_weights.resolve(search, config))
        for directory in datadir.of_different_names(sets or config.data.test, str(exp.decode("").parent)):
            out = exp.decode(datadir.set_name(directory), search.label)
            folders.append(out)
            with alone(out, waits=True):
                _decode_set(job, directory, out, bank)
        bank.models.pop(exp.root, None)  # the upstream stays in memory for the next experiment
    return folders


def _decode_set(job: Job, directory: str, out: Path, bank: Bank) -> None:
    utterances = datadir.read(directory, need_text=False, reference=job.task.reference)
    asked = search_weights.facts(job.search)
    data_digests = of_set("data", utterances, speakers=True)
    digests = {"checkpoint": job.checkpoint, **data_digests, **search_weights.chosen_on(job.config, job.search)}
    digests |= experiment.precision_of(job.config.data.features, [directory])
    info = out / "decode.json"
    if info.exists():
        old = read_json(info, dict)
        changed = changed_inputs(old, digests) + ["search"] * (old.get("asked") != asked)
        if "checkpoint" in old and not changed:
            log.info(f"{out} is there already, from this checkpoint")
            return
        name, fix = datadir.set_name(directory), "rename one of the two, or give search.tag=NAME"
        refuse_other_set(old, directory, data_digests, out, f"{fix}, which decodes to {name}_NAME")
        log.info(f"{out} is decoded again: its {', '.join(changed)} changed")
    model = bank.models.get(job.exp.root) or bank.add(job.exp.root, job.config)
    weighed = search_weights.weigh(job.exp, job.config, job.search, model)
    targets = experiment.kept_targets(job.exp, job.config)
    data = experiment.speech(job.config, directory, targets, model)
    start = time.monotonic()
    batch_seconds, device = job.config.data.batch_seconds, next(model.parameters()).device
    (readings,) = evaluate.recognise(model, data, batch_seconds, device, f"decoding {out.name}", [weighed])
    seconds = time.monotonic() - start
    info.unlink(missing_ok=True)  # it marks the set as whole, which it is not until _keep has written it again
    job.task.write(out, readings, weighed.nbest, model.upstream.frame_rate_hz)
    record = {
        **digests,
        "asked": asked,
        "directory": os.path.realpath(directory),
        "task": job.config.task.name,
        "search": asdict(weighed),
    }
    _keep(out, utterances, job.task, targets, record, seconds)


def decode_chosen(
    roots: list[Path], table: Path, directories: list[str], out: Path, overrides: list[str]
) -> list[Path]:
    """Decode each utterance with the experiment that `table` (lines `utterance experiment`) names for it, over one upstream.

    Results are in out/<set>, as of `decode`; there is no TER, since the experiments may have different units. Return the
    folders. Raise UserError where an utterance has no experiment, or where the tasks of the experiments do not agree.
    """
    chosen = read_table(table)
    bank, folders = Bank(), []
    features = [word for word in overrides if word.startswith("data.features=")]
    require(not features, f"{''.join(features)}: with a choice of experiments the upstream is run; leave it out")
    models: dict[str, tuple[Model, Config]] = {}
    made_by = {os.path.realpath(table): file_digest(table)}
    for exp in map(ExpDir, each_once(roots)):
        config = experiment.read_config(exp, overrides)
        name = exp.root.absolute().name
        require(name not in models, f"two experiments are called {name}; rename the folder of one")
        models[name] = bank.add(exp.root, config), config
        made_by[os.path.realpath(exp.final)] = checkpoint.digest(exp.final)
    directories = datadir.of_different_names(directories, str(out))
    first, *others = (config for _, config in models.values())
    task = experiment.task_of(first)
    for other in others:
        alike = experiment.task_of(other).reference == task.reference
        require(alike, f"tasks {first.task.name} and {other.task.name} predict different things; decode them apart")
    for directory in directories:
        utterances = datadir.read(directory, need_text=False, reference=task.reference)
        _check_choice(table, chosen, [utt.id for utt in utterances], directory, list(models))
        folder, digests = out / datadir.set_name(directory), of_set("data", utterances, speakers=True)
        if (folder / "decode.json").exists():
            old = _read_record(folder)
            refuse_other_set(old, directory, digests, folder, "give another --out")
        predictions: dict[str, Any] = {}
        start = time.monotonic()
        for name, (model, config) in models.items():
            data = Speech([utt for utt in utterances if chosen[utt.id] == name], None)
            device = next(model.parameters()).device
            predictions |= evaluate.predict(model, data, config.data.batch_seconds, device, f"decoding by {name}")[0]
        seconds = time.monotonic() - start
        (folder / "decode.json").unlink(missing_ok=True)
        write_table(folder / task.reference, {utt.id: predictions[utt.id] for utt in utterances})
        made = {"directory": os.path.realpath(directory), "task": first.task.name, "made_by": made_by}
        _keep(folder, utterances, task, None, {**digests, **made}, seconds)
        folders.append(folder)
    return folders


def _check_choice(table: Path, chosen: dict[str, str], utts: list[str], directory: str, names: list[str]) -> None:
    """Raise UserError that names the first utterance without one of the experiments `names`."""
    for utt in utts:
        if chosen.get(utt) not in names:
            what = f"'{chosen[utt]}' is none of {', '.join(names)}" if utt in chosen else "is missing"
            raise UserError(f"{table}: {utt}: {what}; each utterance of {directory} needs an experiment's name")


def _keep(
    out: Path, utterances: list[Utterance], task: type[Task], targets: Any, record: dict[str, Any], seconds: float
) -> None:
    """Score the predictions that are in `out`, and write decode.json, which marks the set as whole."""
    write_table(out / "utt2spk", {u.id: u.speaker for u in utterances})
    references = {u.id: u.text for u in utterances if u.text is not None}
    scores = {}
    if len(references) == len(utterances):
        write_table(out / "ref", references)
        scores = {metric: asdict(counts) for metric, counts in task.score(out, targets).items()}
    audio = sum(u.duration_s for u in utterances)
    write_json(out / "decode.json", {**record, "seconds": seconds, "audio_seconds": audio, "scores": scores})
    log.info(f"{out}: {len(utterances)} utterances, real-time factor {seconds / audio:.3f}")


def _read_record(folder: Path) -> dict:
    """Return the decode.json of a decoded set; raise UserError where it is damaged."""
    return read_json(folder / "decode.json", {"scores": {...: dict}, "task?": str, "made_by?": {...: str}}, _FIX)


def stale(folder: Path) -> list[str]:
    """Return what has changed since a set was decoded: checkpoints, parts of its data; what is gone has not changed."""
    record = _read_record(folder) if (folder / "decode.json").exists() else {}
    final, now = ExpDir(folder.absolute().parents[1]).final, {}
    if final.exists():  # it is not where experiments were chosen by the utterance
        now["checkpoint"] = checkpoint.digest(final)
    if "directory" in record and Path(record["directory"]).is_dir():
        reference = task_of_set(folder).reference
        now |= of_set("data", datadir.read(record["directory"], need_text=False, reference=reference), speakers=True)
    files = {path: digest for path, digest in record.get("made_by", {}).items() if Path(path).exists()}
    return changed_inputs(record, now) + [path for path, digest in files.items() if file_digest(Path(path)) != digest]


def refuse_stale(folder: Path) -> None:
    """Raise UserError where a set was decoded by another checkpoint, or from other data, than there are now."""
    if changed := stale(folder):
        raise UserError(
            f"{folder}: the content of {', '.join(changed)} has changed since it was decoded; run hff-decode again, or "
            "remove the folder"
        )


def task_of_set(folder: Path) -> type[Task]:
    """Return the task that made a decoded set; recognition, where older hff or another program made it."""
    info = folder / "decode.json"
    name = _read_record(folder).get("task") if info.exists() else None
    if not name:
        return Recognition
    try:
        return plugin("task", name).Task
    except UserError as error:
        raise UserError(f"{info}: {error}") from None


def rescore(folder: Path) -> dict[str, Any]:
    """Score a decoded set exp/<name>/decode/<set> anew, from its predictions and ref as they stand now."""
    refuse_stale(folder)
    task = task_of_set(folder)
    kept = ExpDir(folder.absolute().parents[1]).units  # not there where experiments were chosen by the utterance
    scores = task.score(folder, task.load_targets(kept) if kept.exists() else None)
    info = folder / "decode.json"
    if info.exists():
        stored = {metric: asdict(counts) for metric, counts in scores.items()}
        write_json(info, {**_read_record(folder), "scores": stored})
    return scores


def read_scores(folder: Path) -> dict[str, score.Score | score.Figure]:
    """Return the scores of a decoded set by metric, such as wer, cer and ter; none where it has no references."""
    stored = _read_record(folder)["scores"]
    with readable(folder / "decode.json", _FIX):
        return {metric: score.restore(counts) for metric, counts in stored.items()}
