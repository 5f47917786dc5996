"""Trained experiments and data directories in, hypotheses and their scores out; experiments of one upstream share it."""

import json
import time
from dataclasses import asdict
from pathlib import Path

from hfftools import score
from hfftools.data import datadir
from hfftools.data.batch import Speech
from hfftools.data.datadir import Utterance
from hfftools.data.table import read_table, write_table
from hfftools.data.units import Units
from hfftools.data.units import load as load_units
from hfftools.expdir import ExpDir, write_json
from hfftools.log import UserError, log
from hfftools.train import checkpoint, evaluate, experiment
from hfftools.train.bank import Bank


def decode(roots: list[Path], sets: list[str], overrides: list[str]) -> list[Path]:
    """Decode data directories (each experiment's data.test where none is given) with final checkpoints, and score.

    Each set's folder exp/<name>/decode/<set> gets text, ref (where there are transcripts), scores and decode.json; a set
    that is there, whole and of this checkpoint, is not decoded again.
    """
    bank, folders = Bank(), []
    for exp in map(ExpDir, roots):
        config = experiment.read_config(exp, overrides)
        digest = checkpoint.digest(exp.final)
        units = experiment.experiment_units(exp, config)
        directories = sets or list(config.data.test)
        _refuse_twins([Path(directory).name for directory in directories], exp.decode("").parent)
        for directory in directories:
            out = exp.decode(Path(directory).name)
            folders.append(out)
            utterances = datadir.read(directory, need_text=False)
            wanted = {"checkpoint": digest, "data": datadir.digest(utterances)}
            info = out / "decode.json"
            if info.exists() and wanted.items() <= json.loads(info.read_text()).items():
                log.info(f"{out} is there already, from this checkpoint")
                continue
            model = bank.models.get(exp.root) or bank.add(exp.root, config)
            data = experiment.speech(config, directory, units, model)
            start = time.monotonic()
            device = next(model.parameters()).device
            hypotheses, _ = evaluate.transcribe(model, data, config.data.batch_seconds, device, f"decoding {out.name}")
            _keep(out, utterances, hypotheses, units, wanted, time.monotonic() - start)
        bank.models.pop(exp.root, None)  # the upstream stays for the next
    return folders


def decode_chosen(
    roots: list[Path], table: Path, directories: list[str], out: Path, overrides: list[str]
) -> list[Path]:
    """Decode each utterance with the experiment that `table` (lines `utterance experiment`) names for it, over one upstream.

    Results are in out/<set>, as of `decode`; there is no TER, since the experiments may have different units.
    """
    chosen = read_table(table)
    bank, folders = Bank(), []
    models, configs = {}, {}
    if features := [word for word in overrides if word.startswith("data.features=")]:
        raise UserError(f"{features[0]}: with a choice of experiments the upstream is run; leave it out")
    for exp in map(ExpDir, roots):
        config = experiment.read_config(exp, overrides)
        name = exp.root.absolute().name
        if name in models:
            raise UserError(f"two experiments are called {name}; rename the folder of one")
        models[name], configs[name] = bank.add(exp.root, config), config
    _refuse_twins([Path(directory).name for directory in directories], out)
    for directory in directories:
        utterances = datadir.read(directory, need_text=False)
        for utt in utterances:
            if chosen.get(utt.id) not in models:
                what = f"'{chosen[utt.id]}' is none of {', '.join(models)}" if utt.id in chosen else "is missing"
                raise UserError(f"{table}: {utt.id}: {what}; each utterance of {directory} needs an experiment's name")
        hypotheses: dict[str, str] = {}
        start = time.monotonic()
        for name, model in models.items():
            data = Speech([utt for utt in utterances if chosen[utt.id] == name], None)
            device = next(model.parameters()).device
            seconds = configs[name].data.batch_seconds
            hypotheses |= evaluate.transcribe(model, data, seconds, device, f"decoding by {name}")[0]
        folders.append(out / Path(directory).name)
        _keep(folders[-1], utterances, hypotheses, None, {}, time.monotonic() - start)
    return folders


def _refuse_twins(names: list[str], where: Path) -> None:
    if twice := [name for name in names if names.count(name) > 1]:
        raise UserError(f"two data directories are called {twice[0]}, and both would be decoded to {where / twice[0]}")


def _keep(
    out: Path, utterances: list[Utterance], hypotheses: dict[str, str], units: Units | None, info: dict, seconds: float
) -> None:
    (out / "decode.json").unlink(missing_ok=True)
    write_table(out / "text", {u.id: hypotheses[u.id] for u in utterances})
    write_table(out / "utt2spk", {u.id: u.speaker for u in utterances})
    scores = {}
    if all(u.text is not None for u in utterances):
        write_table(out / "ref", {u.id: u.text for u in utterances})
        scores = {metric: asdict(found) for metric, found in score.score_dir(out, units).items()}
    audio = sum(u.duration_s for u in utterances)
    write_json(out / "decode.json", {**info, "seconds": seconds, "audio_seconds": audio, "scores": scores})
    log.info(f"{out}: {len(hypotheses)} utterances, real-time factor {seconds / audio:.3f}")


def rescore(folder: Path) -> dict[str, score.Score]:
    """Score a decoded set exp/<name>/decode/<set> anew, from its text and ref as they stand now."""
    units = ExpDir(folder.absolute().parents[1]).units  # not there where experiments were chosen by the utterance
    scores = score.score_dir(folder, load_units(units) if units.exists() else None)
    info = folder / "decode.json"
    if info.exists():
        write_json(info, {**json.loads(info.read_text()), "scores": {m: asdict(found) for m, found in scores.items()}})
    return scores


def read_scores(folder: Path) -> dict[str, score.Score]:
    """The scores of a decoded set by metric (wer, cer, ter); none where it has no transcripts."""
    stored = json.loads((folder / "decode.json").read_text())["scores"]
    return {metric: score.Score(**counts) for metric, counts in stored.items()}
