"""Trained experiments and data directories in, hypotheses and their scores out; experiments of one upstream share it."""

import json
import shutil
import time
from dataclasses import asdict
from pathlib import Path

from hfftools import score
from hfftools.data import datadir
from hfftools.data.batch import Speech
from hfftools.data.datadir import Utterance
from hfftools.data.table import read_table, write_table
from hfftools.decode.hypothesis import Hypothesis
from hfftools.decode.search import Search
from hfftools.expdir import ExpDir, write_json, write_text
from hfftools.infer import search_weights
from hfftools.infer.bank import Bank
from hfftools.log import UserError, log
from hfftools.text.units import Units
from hfftools.text.units import load as load_units
from hfftools.train import checkpoint, evaluate, experiment


def decode(roots: list[Path], sets: list[str], overrides: list[str], search: Search | None = None) -> list[Path]:
    """Decode data directories (each experiment's data.test where none is given) with final checkpoints, and score.

    Each set's folder exp/<name>/decode/<set>, or <set>_<label> where the search is not greedy, gets text, ref (where there
    are transcripts), ctm, scores, decode.json and, with more than one reading, nbest/; a set that is there, whole, of this
    checkpoint and found by this search, is not decoded again.
    """
    bank, folders = Bank(), []
    for exp in map(ExpDir, roots):
        config = experiment.read_config(exp, overrides)
        digest = checkpoint.digest(exp.final)
        units = experiment.experiment_units(exp, config)
        directories = sets or list(config.data.test)
        label = (search or Search()).label
        _refuse_twins([Path(directory).name for directory in directories], exp.decode("").parent)
        wanted_search = search_weights.resolve(search or Search(), config)
        asked = search_weights.facts(wanted_search)
        for directory in directories:
            out = exp.decode(Path(directory).name, label)
            folders.append(out)
            utterances = datadir.read(directory, need_text=False)
            wanted = {"checkpoint": digest, "data": datadir.digest(utterances), "asked": asked}
            info = out / "decode.json"
            if info.exists() and wanted.items() <= json.loads(info.read_text()).items():
                log.info(f"{out} is there already, from this checkpoint")
                continue
            model = bank.models.get(exp.root) or bank.add(exp.root, config)
            weighed = search_weights.weigh(exp, config, wanted_search, model)
            data = experiment.speech(config, directory, units, model)
            start = time.monotonic()
            device = next(model.parameters()).device
            (found,) = evaluate.recognise(
                model, data, config.data.batch_seconds, device, f"decoding {out.name}", [weighed]
            )
            seconds = time.monotonic() - start
            info.unlink(missing_ok=True)
            _keep_readings(out, found, weighed.nbest, model.upstream.frame_rate_hz)
            best = {utt: readings[0].text for utt, readings in found.items()}
            _keep(out, utterances, best, units, {**wanted, "search": asdict(weighed)}, seconds)
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


def _keep_readings(out: Path, found: dict[str, list[Hypothesis]], nbest: int, rate_hz: float) -> None:
    """ctm (`utterance 1 start duration word`, in seconds) where times are known, and nbest/text.N and score.N."""
    lines = []
    for utt in sorted(found):
        for word, first, end in found[utt][0].words:
            lines.append(f"{utt} 1 {first / rate_hz:.3f} {(end - first) / rate_hz:.3f} {word}\n")
    (out / "ctm").unlink(missing_ok=True)
    if lines:
        write_text(out / "ctm", "".join(lines))
    shutil.rmtree(out / "nbest", ignore_errors=True)
    for n in range(nbest if nbest > 1 else 0):
        ranked = {utt: readings[n] for utt, readings in found.items() if n < len(readings)}
        write_table(out / "nbest" / f"text.{n + 1}", {utt: reading.text for utt, reading in ranked.items()})
        write_table(out / "nbest" / f"score.{n + 1}", {utt: f"{reading.score:.4f}" for utt, reading in ranked.items()})


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
