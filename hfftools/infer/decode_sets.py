"""Decode data directories with trained experiments into predictions and scores; experiments of one upstream share it."""

import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hfftools import score
from hfftools.config import plugin
from hfftools.data import datadir
from hfftools.data.batch import Speech
from hfftools.data.datadir import Utterance
from hfftools.data.table import read_table, write_table
from hfftools.decode.search import Search
from hfftools.expdir import ExpDir, write_json
from hfftools.infer import search_weights
from hfftools.infer.bank import Bank
from hfftools.log import UserError, log, require
from hfftools.model import Model
from hfftools.records import read_json
from hfftools.task.base import Recognition, Task
from hfftools.train import checkpoint, evaluate, experiment
from hfftools.train.config import Config


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
    nbest/. A set that is there, whole, of this checkpoint and of this search, is not decoded again. Return the folders.
    """
    bank, folders = Bank(), []
    search = search or Search()
    for exp in map(ExpDir, roots):
        config = experiment.read_config(exp, overrides)
        job = Job(exp, config, checkpoint.digest(exp.final), search_weights.resolve(search, config))
        directories = sets or list(config.data.test)
        _refuse_same_names([Path(directory).name for directory in directories], exp.decode("").parent)
        for directory in directories:
            out = exp.decode(Path(directory).name, search.label)
            folders.append(out)
            _decode_set(job, directory, out, bank)
        bank.models.pop(exp.root, None)  # the upstream stays in memory for the next experiment
    return folders


def _decode_set(job: Job, directory: str, out: Path, bank: Bank) -> None:
    utterances = datadir.read(directory, need_text=False, reference=job.task.reference)
    asked = search_weights.facts(job.search)
    made_from = {"checkpoint": job.checkpoint, "data": datadir.digest(utterances), "asked": asked}
    info = out / "decode.json"
    if info.exists() and made_from.items() <= read_json(info, dict).items():
        log.info(f"{out} is there already, from this checkpoint")
        return
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
    record = {**made_from, "task": job.config.task.name, "search": asdict(weighed)}
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
    for exp in map(ExpDir, roots):
        config = experiment.read_config(exp, overrides)
        name = exp.root.absolute().name
        require(name not in models, f"two experiments are called {name}; rename the folder of one")
        models[name] = bank.add(exp.root, config), config
    _refuse_same_names([Path(directory).name for directory in directories], out)
    first, *others = (config for _, config in models.values())
    task = experiment.task_of(first)
    for other in others:
        alike = experiment.task_of(other).reference == task.reference
        require(alike, f"tasks {first.task.name} and {other.task.name} predict different things; decode them apart")
    for directory in directories:
        utterances = datadir.read(directory, need_text=False, reference=task.reference)
        _check_choice(table, chosen, [utt.id for utt in utterances], directory, list(models))
        predictions: dict[str, Any] = {}
        start = time.monotonic()
        for name, (model, config) in models.items():
            data = Speech([utt for utt in utterances if chosen[utt.id] == name], None)
            device = next(model.parameters()).device
            predictions |= evaluate.predict(model, data, config.data.batch_seconds, device, f"decoding by {name}")[0]
        seconds = time.monotonic() - start
        folder = out / Path(directory).name
        (folder / "decode.json").unlink(missing_ok=True)
        write_table(folder / task.reference, {utt.id: predictions[utt.id] for utt in utterances})
        _keep(folder, utterances, task, None, {"task": first.task.name}, seconds)
        folders.append(folder)
    return folders


def _check_choice(table: Path, chosen: dict[str, str], utts: list[str], directory: str, names: list[str]) -> None:
    """Raise UserError that names the first utterance without one of the experiments `names`."""
    for utt in utts:
        if chosen.get(utt) not in names:
            what = f"'{chosen[utt]}' is none of {', '.join(names)}" if utt in chosen else "is missing"
            raise UserError(f"{table}: {utt}: {what}; each utterance of {directory} needs an experiment's name")


def _refuse_same_names(names: list[str], where: Path) -> None:
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise UserError(f"two data directories are called {twice[0]}, and both would be decoded to {where / twice[0]}")


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
    return read_json(folder / "decode.json", {"scores": dict}, "remove it and run hff-decode again")


def task_of_set(folder: Path) -> type[Task]:
    """Return the task that made a decoded set; recognition, where older hff or another program made it."""
    info = folder / "decode.json"
    name = _read_record(folder).get("task") if info.exists() else None
    return plugin("task", name).Task if name else Recognition


def rescore(folder: Path) -> dict[str, Any]:
    """Score a decoded set exp/<name>/decode/<set> anew, from its predictions and ref as they stand now."""
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
    return {metric: score.restore(counts) for metric, counts in stored.items()}
