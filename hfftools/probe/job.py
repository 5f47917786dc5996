"""Layer-wise probing, the whole of hff-probe: an upstream and transcribed speech in, what each of its layers knows out.

Into one folder: probe.json (every figure), table.txt, pictures, index.html with all of them, and recommendation.yaml, which
`hff-train --config` takes. Layers are compared on the dev set, never on a test set.
"""

import json
from pathlib import Path

import torch

from hfftools.config import compare_config, resolve, save_config
from hfftools.data.batch import plan
from hfftools.expdir import ExpDir, check_inputs, write_aside, write_json, write_text
from hfftools.log import UserError, log, progress, setup_logging
from hfftools.probe import html_page, plot
from hfftools.probe.config import Config
from hfftools.probe.heads import Probes, Question
from hfftools.probe.inputs import Material, forget_states, settle
from hfftools.probe.layer_statistics import measure_layers
from hfftools.probe.probing_tasks import PhoneFrames, Phones, Speakers, Words, held_out
from hfftools.probe.recommendation import recommend
from hfftools.probe.results import LayerResult, ProbeResults
from hfftools.train.checkpoint import read_state
from hfftools.upstream.names import parse


def configure(sources: list[Path], overrides: list[str]) -> Config:
    """Merge yaml files, then `key=value` arguments, over the defaults."""
    return resolve(Config, sources, overrides)


def probe(folder: Path | None, sources: list[Path], overrides: list[str]) -> ExpDir:
    """Probe the layers of an upstream; `folder` is exp/probe_<upstream> where not given.

    Interrupted, it goes on at the last whole epoch or part. UserError names what changed since the folder was begun.
    """
    config = configure(sources, overrides)
    exp = ExpDir(folder or Path("exp") / f"probe_{parse(config.upstream).short_name}")
    with exp.alone():
        config, assumed = settle(config, exp)
        compare_config(config, exp.config, may_differ=("device",))
        for line in assumed:
            log.info(f"assumed {line}")
        _probe(exp, config, assumed)
    return exp


def _probe(exp: ExpDir, config: Config, assumed: list[str]) -> None:
    material = Material(config)
    inputs = material.inputs()
    check_inputs(exp.inputs, inputs)
    if exp.probe.exists():
        log.info(f"{exp.probe} is there already")
        return
    material.open()
    save_config(config, exp.config)
    write_json(exp.inputs, inputs)
    setup_logging(exp.log)
    results = ProbeResults(
        material.upstream.name, material.upstream.hash, config.train, config.dev, _how(config), assumed
    )
    results.layers = [LayerResult(layer) for layer in material.layers]
    for part, run in (("probes", _train_probes), ("survey", _measure_layers)):
        if not exp.part(part).exists():
            write_json(exp.part(part), run(exp, material))
        # read back even when just made, so that a resumed probe and an uninterrupted one see the same numbers
        results.add_part(json.loads(exp.part(part).read_text()))
    errors = json.loads(exp.part("probes").read_text())["errors"]
    if errors:
        errors = {int(layer): counts for layer, counts in errors.items()}
        data = {"train": config.train, "dev": config.dev, "units": config.units}
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
    """A sentence on the settings, for who reads the result without them."""
    head = config.head if config.head == "linear" else f"{config.head} ({config.head_layers} × {config.head_dim})"
    trained = (
        f"asr by a {head} head, phones and speakers by linear ones; {config.epochs} epochs, learning rate {config.lr:g}"
    )
    return (
        f"Probes: {trained}, seed {config.seed}. Phones: {config.phones}. Similarity and geometry: of training speech."
    )


def _questions(config: Config, material: Material) -> list[Question]:
    questions: list[Question] = []
    if "asr" in config.parts:
        questions.append(Words(material.units, config.head, config.head_dim, config.head_layers, config.dropout))
    if "phone" in config.parts:
        trained = (material.aligned[u.id].phones for u in material.train.utterances if u.id in material.aligned)
        inventory = sorted({span.label for spans in trained for span in spans})
        times = {utt: aligned.phones for utt, aligned in material.aligned.items()}
        questions.append(Phones({utt: [span.label for span in spans] for utt, spans in times.items()}, inventory))
        questions.append(PhoneFrames({utt: material.frames(spans) for utt, spans in times.items()}, inventory))
    if "speaker" in config.parts:
        kept = held_out(material.train.utterances)
        if kept:
            questions.append(Speakers(material.train.utterances, kept))
        else:
            log.warning(
                f"{config.train}: no two speakers of whom one has two utterances; the speaker probe is left out"
            )
    if not questions and not {"similarity", "geometry"} & set(config.parts):
        raise UserError(f"{config.train}: nothing is left to measure; choose other parts")
    return questions


def _train_probes(exp: ExpDir, material: Material) -> dict:
    """Train and score all probes: {"layers": rows, "errors": {layer: character errors of each utterance}, "facts"}."""
    config, train = material.config, material.train
    questions = _questions(config, material)
    orders = [plan(train.durations_s, config.batch_seconds, config.seed, epoch) for epoch in range(config.epochs)]
    dims = {layer: material.upstream.dims[layer] for layer in material.layers}
    steps = sum(map(len, orders))
    probes = [Probes(question, dims, config, steps, material.device) for question in questions]
    first = 0
    if exp.state.exists():
        state = read_state(exp.state)
        for one, saved in zip(probes, state["probes"], strict=True):
            one.load_state_dict(saved)
        first = state["epoch"]
        log.info(f"resuming at epoch {first + 1}")
    bar = progress(None, steps, f"probing {len(dims)} layers of {material.upstream.name}", "batch")
    bar.update(sum(map(len, orders[:first])))
    for epoch in range(first, config.epochs if questions else 0):
        for batch in train.batches(orders[epoch], workers=1):
            batch = batch.to(material.device)
            hidden, lens_B = material.hidden(batch)
            losses = [one.step(hidden, lens_B, batch) for one in probes]
            bar.update()
            best = (f"{one.question.name} {min(loss.values()):.2f}" for one, loss in zip(probes, losses) if loss)
            bar.set_postfix_str(f"best losses: {', '.join(best)}", refresh=False)
        if all(one.all_diverged for one in probes):
            raise UserError(f"{exp.root}: every layer's probe diverged; lower lr (now {config.lr}) in a fresh folder")
        with write_aside(exp.state) as aside:
            torch.save({"epoch": epoch + 1, "probes": [one.state_dict() for one in probes]}, aside)
    bar.close()
    return _score_probes(material, probes)


def _score_probes(material: Material, probes: list[Probes]) -> dict:
    answers = {(one, layer): {} for one in probes for layer in one.probes}
    held = held_out(material.train.utterances)
    for where, batches in (("dev", material.dev_batches), ("held_out", lambda: material.train_batches(held))):
        asked = [one for one in probes if one.question.evaluate_on == where]
        for batch in batches() if asked else ():
            batch = batch.to(material.device)
            hidden, lens_B = material.hidden(batch)
            for one in asked:
                for layer, found in one.read(hidden, lens_B, batch).items():
                    answers[one, layer] |= found
    rows, errors = {layer: {"diverged": []} for layer in material.layers}, {}
    for (one, layer), found in answers.items():
        row, counts = one.question.score(found)
        if layer in one.diverged:
            rows[layer]["diverged"].append(one.question.name)
            row = dict.fromkeys(row)
        elif "cer_errors" in counts:
            errors[layer] = counts["cer_errors"]
        rows[layer] |= row
    facts = {"dev_utterances": len(material.dev), "train_utterances": len(material.train)}
    for one in probes:
        facts |= one.question.facts
    return {"layers": list(rows.values()), "errors": errors, "facts": facts}


def _measure_layers(exp: ExpDir, material: Material) -> dict:
    """Return similarity and geometry: {"layers": rows, "facts", and "cka" where it was asked for}."""
    config = material.config
    groups = {"similarity", "geometry"} & set(config.parts)
    if not groups:
        return {"layers": [{} for _ in material.layers], "facts": {}}
    aligned = material.aligned if "similarity" in groups else None  # made here if need be, before any pass
    rows, facts = measure_layers(
        lambda: material.state_batches(config.frames, aligned),
        material.layers,
        groups,
        clusters=config.clusters,
        seed=config.seed,
    )
    cka = {"cka": facts.pop("cka")} if "cka" in facts else {}
    return {"layers": rows, "facts": facts, **cka}
