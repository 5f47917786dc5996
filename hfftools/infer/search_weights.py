"""Choose the weights of a language model and of the word score: those of the lowest error on the dev set.

The error is WER, or CER where the dev set is unspaced text.
"""

from dataclasses import asdict, replace
from itertools import product
from pathlib import Path

from hfftools import score
from hfftools.data import datadir
from hfftools.data.datadir import Utterance
from hfftools.data.inputs import file_digest, of_set
from hfftools.decode import lm
from hfftools.decode.search import Search
from hfftools.expdir import ExpDir, changed_inputs, write_json
from hfftools.log import UserError, log
from hfftools.model import Model
from hfftools.records import read_json
from hfftools.train import checkpoint, evaluate, experiment
from hfftools.train.config import Config

LM_WEIGHTS = (0.25, 0.5, 0.75, 1.0, 1.5, 2.0)
WORD_SCORES = (-1.0, 0.0, 1.0, 2.0)
MOST = 100  # utterances of dev that are searched, spread evenly over it: 24 pairs of weights are then 2400 searches


def resolve(search: Search, config: Config) -> Search:
    """Return the search with `lexicon` as a path or None, and with a beam size.

    A language model of words brings a lexicon unless search.lexicon says otherwise. Raises UserError for a search, or an
    option of it, that the task does not offer.
    """
    task = experiment.task_of(config)
    task.check_search(search)
    lexicon = search.lexicon
    over_units = bool(search.lm) and lm.of_units(Path(search.lm)) is not None
    if over_units and lexicon:
        raise UserError(
            f"search.lexicon: {search.lm} is over units, and a lexicon takes a model of words; leave search.lexicon out, or "
            "make a model with hff-lm without --units"
        )
    if search.lm and lexicon is None:
        lexicon = not over_units
    if lexicon is True:
        lexicon = search.lm or config.data.train
    return replace(search, lexicon=lexicon or None, beam_size=search.beam_size or max(task.beam_size, search.nbest))


def offered(training: Path) -> list[str]:
    """Return the searches, as the recipes name them, that the task of a training configuration offers."""
    task = experiment.task_of(experiment.configure([training], []))
    return [*task.searches, *(["beam_lm"] if "lm" in task.takes else [])]


def _digest(path: str) -> str:
    """Return 16 hexadecimal digits of a file's content, or of the text of a data directory."""
    file = Path(path) / "text" if Path(path).is_dir() else Path(path)
    if not file.exists():
        raise UserError(f"{file} does not exist: search.lm and search.lexicon name files that are there")
    listing = lm.list_of_words(file)
    return file_digest(file) if listing == file or not listing.exists() else file_digest(file, listing)


def facts(search: Search) -> dict:
    """Return what determines the result of a search: its options and the digests of its files, but not their paths."""
    record = {key: value for key, value in asdict(search).items() if key not in ("lm", "lexicon", "tag")}
    # an option that is off is left out, so that results of before it existed stay valid
    record = {key: value for key, value in record.items() if value is not None and value is not False}
    for key in ("lm", "lexicon"):
        path = getattr(search, key)
        if path:
            record[f"{key}_digest"] = _digest(path)
    return record


def chosen_on(config: Config, search: Search) -> dict[str, str]:
    """Return the digests of the dev set where weights are chosen on it; they are part of what a set is decoded from."""
    given = search.lm_weight is not None and search.word_score is not None
    if not search.lm or given or not Path(config.data.dev).is_dir():
        return {}
    return of_set("dev", _dev(config, experiment.task_of(config).reference))


def _dev(config: Config, reference: str) -> list[Utterance]:
    """Return the utterances of data.dev that have a reference."""
    try:
        return [utt for utt in datadir.read(config.data.dev, reference=reference) if utt.text]
    except UserError as error:
        advice = "weights are chosen on data.dev; fix that set, or give search.lm_weight and search.word_score"
        raise UserError(f"{error}; {advice}") from None


def weigh(exp: ExpDir, config: Config, search: Search, model: Model) -> Search:
    """Return the search with both weights: as given, as chosen on dev before, or as chosen now and kept in search.json."""
    if not search.lm:
        return replace(search, word_score=search.word_score or 0.0) if search.name != "greedy" else search
    if search.lm_weight is not None and search.word_score is not None:
        return search
    utterances = _dev(config, model.task.reference)
    options = facts(replace(search, nbest=1))
    digests = {"checkpoint": checkpoint.digest(exp.final), **of_set("dev", utterances)}
    kept = (
        read_json(exp.search, [{"of": dict, "chosen": {"lm_weight": int | float, "word_score": int | float}}])
        if exp.search.exists()
        else []
    )
    for record in kept:
        same = {key: value for key, value in record["of"].items() if key not in digests} == options
        if same and not changed_inputs(record["of"], digests):
            chosen = record["chosen"]
            log.info(f"{exp.search}: lm_weight {chosen['lm_weight']}, word_score {chosen['word_score']}, chosen on dev")
            return replace(search, **chosen)
    metric = model.task.metric([str(utt.text) for utt in utterances])
    grid = _try_all(config, search, model, utterances, metric)
    best = min(grid, key=lambda point: point["dev_error"])
    chosen = {key: best[key] for key in ("lm_weight", "word_score")}
    write_json(exp.search, [*kept, {"of": {**options, **digests}, "chosen": chosen, "metric": metric, "grid": grid}])
    log.info(
        f"{config.data.dev}: {metric.upper()} {100 * best['dev_error']:.2f} % with lm_weight {best['lm_weight']}, "
        f"word_score {best['word_score']}, the lowest of {len(grid)}; kept in {exp.search}"
    )
    return replace(search, **chosen)


def _try_all(config: Config, search: Search, model: Model, utterances: list[Utterance], metric: str) -> list[dict]:
    """Return the error by `metric` of each pair of weights on dev, with one pass of dev through the model."""
    few = utterances[:: -(-len(utterances) // MOST)]
    data = experiment.speech(config, config.data.dev, model.task.units, model, {utt.id for utt in few})
    pairs = list(
        product(
            LM_WEIGHTS if search.lm_weight is None else [search.lm_weight],
            WORD_SCORES if search.word_score is None else [search.word_score],
        )
    )
    searches = [replace(search, nbest=1, lm_weight=weight, word_score=bonus) for weight, bonus in pairs]
    device = next(model.parameters()).device
    what = f"choosing weights on {len(few)} of dev"
    results = evaluate.recognise(model, data, config.data.batch_seconds, device, what, searches)
    grid = []
    for (lm_weight, word_score), readings in zip(pairs, results, strict=True):
        texts = [readings[utt.id][0].text for utt in few]
        error = score.mean_error(*model.task.errors(metric, [str(utt.text) for utt in few], texts))
        grid.append({"lm_weight": lm_weight, "word_score": word_score, "dev_error": error})
    return grid
