"""What training chooses by: WER, or CER where the dev set's words are not spaced apart; and records that say which."""

import json
import shutil
from types import SimpleNamespace

import pytest

from hfftools.data import datadir
from hfftools.data.table import read_table, write_table
from hfftools.decode.search import Search
from hfftools.expdir import ExpDir
from hfftools.infer import search_weights
from hfftools.infer.bank import Bank
from hfftools.records import read_json_lines
from hfftools.report.training_curves import training_curves
from hfftools.text import units
from hfftools.train import checkpoint, evaluate, experiment, job
from hfftools.train.history import Diverged, History, summary


def records(*errors: tuple[float, float]) -> list[dict]:
    """Of epochs with a dev error and a dev loss."""
    return [
        {"epoch": n, "dev_error": error, "metric": "cer", "dev_loss": loss} for n, (error, loss) in enumerate(errors, 1)
    ]


def test_the_lowest_dev_error_is_the_best_then_the_lowest_loss(tmp_path):
    history = History(ExpDir(tmp_path), records((0.3, 9.0), (0.2, 5.0), (0.2, 4.0), (0.4, 1.0)))
    assert history.best(3) == [3, 2, 1] and history.best(9) == [3, 2, 1, 4]
    assert history.stale(2) and not history.stale(3) and not history.stale(0)
    assert summary(history.records[0]) == "dev CER 30.00 %"


@pytest.fixture
def spoken(request, corpus, tmp_path):
    """train, dev and units of the tiny corpus, as it is (wer), or as if it were written in Chinese (cer)."""
    for name in ("train", "dev"):
        shutil.copytree(corpus / name, tmp_path / name)
        if request.param == "cer":
            texts = read_table(tmp_path / name / "text").items()
            write_table(tmp_path / name / "text", {u: "".join(map(chinese, t.replace(" ", ""))) for u, t in texts})
    units.train("char", read_table(tmp_path / "train" / "text").values(), None, tmp_path / "units")
    return [f"data.{name}={tmp_path}/{name}" for name in ("train", "dev", "units")]


def chinese(letter: str) -> str:
    return chr(0x4E00 + ord(letter))


def few_right(texts: dict[str, str]) -> dict[str, str]:
    """Half of the utterances recognised without an error, the others not at all: as many words wrong as characters."""
    return {utt: text * (place % 2) for place, (utt, text) in enumerate(texts.items())}


def nearly_right(texts: dict[str, str]) -> dict[str, str]:
    """The last character of each word recognised wrong: all words wrong, few characters."""
    return {utt: " ".join(f"{word[:-1]}?" for word in text.split()) for utt, text in texts.items()}


@pytest.mark.parametrize("spoken, best", [("wer", 0), ("cer", 1)], indirect=["spoken"])
def test_epochs_and_search_weights_are_chosen_by_what_the_dev_set_can_tell(
    options, spoken, best, tmp_path, monkeypatch
):
    metric, other = ("wer", "cer") if best == 0 else ("cer", "wer")
    texts = {u.id: u.text for u in datadir.read(tmp_path / "dev")}
    recognised = [few_right(texts), nearly_right(texts)]
    script = iter([*recognised, recognised[best]])  # two epochs, and the final model
    monkeypatch.setattr(evaluate, "predict", lambda *_, **__: (next(script), 1.0))
    exp = job.train(tmp_path / "exp", [], [*options, *spoken, "train.average=1"])
    history, used = read_json_lines(exp.history), json.loads(exp.resources.read_text())
    assert used["averaged"] == [best + 1]
    kept = checkpoint.read(exp.final)[1]
    for record in (*history, used, kept):
        assert record["metric"] == metric and not {"dev_wer", "dev_cer"} & record.keys()
    assert used["dev_error"] == kept["dev_error"] == history[best]["dev_error"] < history[1 - best]["dev_error"]
    lines = exp.log.read_text()
    assert f"dev {metric.upper()} {100 * used['dev_error']:.2f} %" in lines and other.upper() not in lines
    assert (exp.images / f"{metric}.png") in training_curves(exp) and not (exp.images / f"{other}.png").exists()

    monkeypatch.setattr(search_weights, "LM_WEIGHTS", (0.3, 0.6))
    monkeypatch.setattr(search_weights, "WORD_SCORES", (0.0,))
    read = [{utt: [SimpleNamespace(text=text)] for utt, text in hyps.items()} for hyps in recognised]
    monkeypatch.setattr(evaluate, "recognise", lambda *_: read)
    (tmp_path / "lm").write_text("no model: its readings are made up")
    search = Search("beam", beam_size=2, lm=str(tmp_path / "lm"), lexicon=None)
    config = experiment.read_config(exp, [])
    assert search_weights.weigh(exp, config, search, Bank().add(exp.root)).lm_weight == (0.3, 0.6)[best]
    (record,) = json.loads(exp.search.read_text())
    assert record["metric"] == metric and record["grid"][best]["dev_error"] == used["dev_error"]


def test_a_run_is_given_up_where_all_of_the_last_epochs_are_empty_and_not_before(tmp_path):
    history = History(
        ExpDir(tmp_path), [{"epoch": n, "empty": share} for n, share in enumerate((1.0, 0.9, 1.0, 1.0), 1)]
    )
    history.check_blank(3)
    history.check_blank(0)
    with pytest.raises(Diverged, match="empty for 2 epochs"):
        history.check_blank(2)


@pytest.mark.parametrize(("dev_error", "warns"), [(0.23, True), (0.21, False), (0.1, False)])
def test_an_average_that_is_worse_than_its_best_epoch_is_warned_of(tmp_path, caplog, dev_error, warns):
    history = History(ExpDir(tmp_path), records((0.3, 9.0), (0.2, 4.0)))
    history.report_average([2, 1], {**history.records[0], "dev_error": dev_error})
    assert "average of epochs [1, 2]: dev CER " in caplog.text
    assert ("epoch 2 alone dev CER 20.00 %" in caplog.text) == warns
