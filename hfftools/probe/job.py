"""Measure what each layer of an upstream knows about transcribed speech; this is the whole of hff-probe.

The results are in one folder: probe.json (every figure), table.txt, pictures, index.html with all of them, and
recommendation.yaml, which `hff-train --config` reads. Layers are compared on the dev set, never on a test set.
"""

from pathlib import Path
from typing import Any

from hfftools.config import resolve
from hfftools.data.batch import plan
from hfftools.expdir import ExpDir, check_inputs, write_json, write_text
from hfftools.log import UserError, log, progress, setup_logging
from hfftools.probe import html_page, plot
from hfftools.probe.config import Config
from hfftools.probe.heads import Probes, ProbingTask
from hfftools.probe.inputs import ProbeInputs, fill_empty_paths, forget_states
from hfftools.probe.layer_statistics import measure_layers
from hfftools.probe.probing_tasks import PhoneFrames, Phones, Speakers, Words, held_out
from hfftools.probe.recommendation import recommend
from hfftools.probe.results import LayerResult, ProbeResults
from hfftools.recorded import compare_config, save_config
from hfftools.records import read_json
from hfftools.train.checkpoint import read_state, write_state
from hfftools.upstream.names import parse, pin


def configure(sources: list[Path], overrides: list[str]) -> Config:
    """Return the options: defaults, overridden by the yaml files, then by the `key=value` arguments."""
    return resolve(Config, sources, overrides)


def probe(folder: Path | None, sources: list[Path], overrides: list[str]) -> ExpDir:
    """Probe the layers of an upstream in `folder`, by default exp/probe_<upstream>; return the folder.

    An interrupted probe resumes at the last complete epoch or part. Raise UserError if options or data changed since
    the folder was made, and say which.
    """
    config = configure(sources, overrides)
    exp = ExpDir(folder or Path("exp") / f"probe_{parse(config.upstream).short_name}")
    with exp.alone():
        config, assumed = fill_empty_paths(pin(config, exp.config), exp)
        compare_config(config, exp.config, may_differ=("device", "workers"))
        for line in assumed:
            log.info(f"assumed {line}")
        _probe(exp, config, assumed)
    return exp


def _probe(exp: ExpDir, config: Config, assumed: list[str]) -> None:
    """Measure all parts and write the results, unless they are there already."""
    inputs = ProbeInputs(config)
    digests = inputs.digests()
    check_inputs(exp.inputs, digests)
    if exp.probe.exists():
        log.info(f"{exp.probe} exists already, nothing to do")
        return
    inputs.open()
    save_config(config, exp.config)
    write_json(exp.inputs, digests)
    setup_logging(exp.log)
    results = ProbeResults(inputs.upstream.name, inputs.upstream.hash, config.train, config.dev, _how(config), assumed)
    results.layers = [LayerResult(layer) for layer in inputs.layers]
    measured: dict[str, dict] = {}
    for part, run in (("probes", _train_probes), ("survey", _measure_layers)):
        if not exp.part(part).exists():
            write_json(exp.part(part), run(exp, inputs))
        # read back even if just written, so that a resumed probe and an uninterrupted one use the same numbers
        measured[part] = read_json(exp.part(part), {"layers": [dict], "facts": dict})
        results.add_part(measured[part])
    errors = measured["probes"]["errors"]
    if errors:
        errors = {int(layer): counts for layer, counts in errors.items()}
        data: dict[str, Any] = {"train": config.train, "dev": config.dev, "units": config.units}
        if Path(config.train).parent == exp.built_in:
            data["test"] = [str(exp.built_in / "test")]
        results.recommendation = recommend(errors, results.cka, {"upstream": config.upstream, "data": data})
        write_text(exp.recommendation, results.recommendation.yaml)
    plot.layer_pictures(exp, results)
    write_text(exp.table, html_page.table(results))
    write_text(exp.page, html_page.page(results, str(exp.recommendation)))
    write_json(exp.probe, results.to_json())
    forget_states(exp)


def _how(config: Config) -> str:
    """Return a sentence on the settings, for readers of the result."""
    head = config.head if config.head == "linear" else f"{config.head} ({config.head_layers} × {config.head_dim})"
    trained = (
        f"asr by a {head} head, phones and speakers by linear ones; {config.epochs} epochs, learning rate {config.lr:g}"
    )
    return (
        f"Probes: {trained}, seed {config.seed}. Phones: {config.phones}. Similarity and geometry: of training speech."
    )


def _probing_tasks(config: Config, inputs: ProbeInputs) -> list[ProbingTask]:
    """Return the tasks of the chosen parts; raise UserError if nothing is left to measure."""
    tasks: list[ProbingTask] = []
    if inputs.units is not None:
        tasks.append(Words(inputs.units, config.head, config.head_dim, config.head_layers, config.dropout))
    if "phone" in config.parts:
        # the phones of the training set only: a probe cannot answer what it never learned
        known: set[str] = set()
        for utt in inputs.train.utterances:
            if utt.id in inputs.aligned:
                known.update(span.label for span in inputs.aligned[utt.id].phones)
        inventory = sorted(known)
        times = {utt: aligned.phones for utt, aligned in inputs.aligned.items()}
        tasks.append(Phones({utt: [span.label for span in spans] for utt, spans in times.items()}, inventory))
        tasks.append(PhoneFrames({utt: inputs.frames(spans) for utt, spans in times.items()}, inventory))
    if "speaker" in config.parts:
        kept = held_out(inputs.train.utterances)
        if kept:
            tasks.append(Speakers(inputs.train.utterances, kept))
        else:
            log.warning(
                f"{config.train}: the speaker probe is skipped; it needs two speakers, one of them with two utterances"
            )
    if not tasks and not {"similarity", "geometry"} & set(config.parts):
        raise UserError(f"{config.train}: nothing is left to measure; choose other parts")
    return tasks


def _train_probes(exp: ExpDir, inputs: ProbeInputs) -> dict:
    """Train and score all probes: return {"layers": rows, "errors": {layer: character errors [U]}, "facts"}."""
    config, train = inputs.config, inputs.train
    tasks = _probing_tasks(config, inputs)
    orders = [plan(train.durations_s, config.batch_seconds, config.seed, epoch) for epoch in range(config.epochs)]
    dims = {layer: inputs.upstream.dims[layer] for layer in inputs.layers}
    steps = sum(map(len, orders))
    probes = [Probes(task, dims, config, steps, inputs.device) for task in tasks]
    first = 0
    if exp.state.exists():
        state = read_state(exp.state, {"epoch": int, "probes": [dict]})
        for one, saved in zip(probes, state["probes"], strict=True):
            one.load_state_dict(saved)
        first = state["epoch"]
        log.info(f"resuming at epoch {first + 1}")
    bar = progress((), steps, f"probing {len(dims)} layers of {inputs.upstream.name}", "batch")
    bar.update(sum(map(len, orders[:first])))
    for epoch in range(first, config.epochs if tasks else 0):
        for batch in train.batches(orders[epoch], config.workers):
            batch = batch.to(inputs.device)
            hidden, lens_B = inputs.hidden(batch)
            losses = [one.step(hidden, lens_B, batch) for one in probes]
            bar.update()
            best = (f"{one.task.name} {min(loss.values()):.2f}" for one, loss in zip(probes, losses) if loss)
            bar.set_postfix_str(f"best losses: {', '.join(best)}", refresh=False)
        if all(one.all_diverged for one in probes):
            raise UserError(
                f"{exp.root}: the probes of all layers diverged; choose a lower lr (now {config.lr}) and a new folder"
            )
        write_state(exp.state, {"epoch": epoch + 1, "probes": [one.state_dict() for one in probes]})
    bar.close()
    return _score_probes(inputs, probes)


def _score_probes(inputs: ProbeInputs, probes: list[Probes]) -> dict:
    """Return what `_train_probes` returns, from the trained probes' answers; a diverged probe's figures are None."""
    answers: dict[tuple[Probes, int], dict[str, Any]] = {}
    for one in probes:
        answers |= {(one, layer): {} for layer in one.probes}
    held = held_out(inputs.train.utterances)
    for where, batches in (("dev", inputs.dev_batches), ("held_out", lambda: inputs.train_batches(held))):
        evaluated = [one for one in probes if one.task.evaluate_on == where]
        for batch in batches() if evaluated else ():
            batch = batch.to(inputs.device)
            hidden, lens_B = inputs.hidden(batch)
            for one in evaluated:
                for layer, of_batch in one.read(hidden, lens_B, batch).items():
                    answers[one, layer] |= of_batch
    rows: dict[int, dict[str, Any]] = {layer: {"diverged": []} for layer in inputs.layers}
    errors: dict[int, list[int]] = {}
    for (one, layer), of_set in answers.items():
        measures, counts = one.task.score(of_set)
        if layer in one.diverged:
            rows[layer]["diverged"].append(one.task.name)
            rows[layer] |= dict.fromkeys(measures)  # None for each
            continue
        rows[layer] |= measures
        if "cer_errors" in counts:
            errors[layer] = counts["cer_errors"]
    facts = {"dev_utterances": len(inputs.dev), "train_utterances": len(inputs.train)}
    for one in probes:
        facts |= one.task.facts
    return {"layers": list(rows.values()), "errors": errors, "facts": facts}


def _measure_layers(exp: ExpDir, inputs: ProbeInputs) -> dict:
    """Return similarity and geometry: {"layers": rows, "facts", and "cka" with the part similarity}."""
    config = inputs.config
    groups = {"similarity", "geometry"} & set(config.parts)
    if not groups:
        return {"layers": [{} for _ in inputs.layers], "facts": {}}
    # alignments are computed here if needed, not in the middle of a pass over the states
    aligned = inputs.aligned if "similarity" in groups else None
    rows, facts = measure_layers(
        lambda: inputs.state_batches(config.frames, aligned),
        inputs.layers,
        groups,
        clusters=config.clusters,
        seed=config.seed,
    )
    cka = {"cka": facts.pop("cka")} if "cka" in facts else {}
    return {"layers": rows, "facts": facts, **cka}
