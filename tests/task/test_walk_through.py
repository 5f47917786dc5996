"""Check CONTRIBUTING.md, "Adding a task": its module and a yaml are a task that trains, decodes, reports and compares."""

import importlib
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import hfftools.task
from hfftools.bin import decode, report, score
from hfftools.data.table import read_table, write_table
from hfftools.infer import decode_sets, export, transcribe
from hfftools.log import UserError
from hfftools.records import read_json_lines
from hfftools.report.training_curves import training_curves
from hfftools.train import job
from hfftools.train.history import summary

TEXT = (Path(__file__).parents[2] / "CONTRIBUTING.md").read_text(encoding="utf-8")


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Put the document's module into the package, and return the path of its file."""
    section = TEXT.split("## Adding a task\n")[1]
    path = tmp_path / "task" / "intent.py"
    path.parent.mkdir()
    path.write_text(re.search(r"```python\n(.*?)```", section, re.S).group(1))
    monkeypatch.setattr(hfftools.task, "__path__", [*hfftools.task.__path__, str(path.parent)])
    importlib.invalidate_caches()
    yield path
    sys.modules.pop("hfftools.task.intent", None)


@pytest.fixture
def data(corpus, tmp_path):
    """Return data directories whose file `intent` has the utterances of the corpus fixture, with two labels."""
    for name in ("train", "dev", "test"):
        shutil.copytree(corpus / name, tmp_path / "data" / name)
        intents = read_table(corpus / name / "intent")
        some = {utt: "home" if intents[utt].startswith("s") else "other" for utt in read_table(corpus / name / "text")}
        write_table(tmp_path / "data" / name / "intent", some)
    return tmp_path / "data"


@pytest.fixture
def trained(module, data, options, tmp_path):
    """Return an experiment that was trained with the task; data.units does not exist."""
    yaml = tmp_path / "intent.yaml"
    yaml.write_text("task: {name: intent}\n")
    ours = [f"data.train={data}/train", f"data.dev={data}/dev", f"data.test=[{data}/test]", "data.units=none"]
    return job.train(tmp_path / "exp" / "a", [yaml], [*(o for o in options if not o.startswith("task.")), *ours])


def run(monkeypatch, capsys, command, *words):
    monkeypatch.setattr(sys, "argv", ["hff", *map(str, words)])
    command.main()
    return capsys.readouterr().out


def test_it_trains_decodes_reports_and_compares(trained, data, tmp_path, monkeypatch, capsys):
    history = read_json_lines(trained.history)
    assert [record["metric"] for record in history] == ["accuracy", "accuracy"]
    assert re.fullmatch(r"dev accuracy \d+\.\d\d % \(higher is better\)", summary(history[-1]))
    assert [path.name for path in training_curves(trained)][:2] == ["loss.png", "accuracy.png"]
    out = run(monkeypatch, capsys, decode, trained.root, "device=cpu")
    folder = trained.decode("test")
    predicted, said = read_table(folder / "intent"), read_table(data / "test" / "intent")
    accuracy = sum(predicted[utt] == label for utt, label in said.items()) / len(said)
    assert read_table(folder / "ref") == said and not (folder / "text").exists()
    assert f"%accuracy {100 * accuracy:.2f} [ {len(said)} utterances, higher is better ]" in out
    stored = json.loads((folder / "decode.json").read_text())
    assert stored["task"] == "intent" and stored["scores"]["accuracy"]["value"] == pytest.approx(accuracy)
    assert stored["scores"]["accuracy"]["low"] <= accuracy <= stored["scores"]["accuracy"]["high"]

    out = run(monkeypatch, capsys, report, trained.root, "--out", tmp_path / "RESULTS.md")
    assert "dev accuracy (higher is better) %" in out and "test accuracy (higher is better) %" in out
    assert f" {100 * accuracy:.1f} [" in out and (tmp_path / "accuracy_vs_cost_test.png").exists()

    write_table(folder / "intent", said)  # hff-score reads what is there now
    assert "%accuracy 100.00" in run(monkeypatch, capsys, score, trained.root)
    shutil.copytree(folder, tmp_path / "wrong")
    write_table(tmp_path / "wrong" / "intent", dict.fromkeys(said, "none"))
    out = run(monkeypatch, capsys, score, folder, tmp_path / "wrong")
    assert "B - A: +100.00 points of accuracy errors" in out and f"[ 0 / {len(said)} ]" in out


def test_training_resumes_and_each_utterance_may_have_an_experiment_of_its_own(trained, data, tmp_path):
    before = trained.final.read_bytes()
    job.train(trained.root, [], [])
    assert trained.final.read_bytes() == before
    shutil.copytree(trained.root, tmp_path / "exp" / "b")
    names = [trained.root, tmp_path / "exp" / "b"]
    utts = list(read_table(data / "test" / "intent"))
    write_table(tmp_path / "table", {utt: "ab"[number % 2] for number, utt in enumerate(utts)})
    (chosen,) = decode_sets.decode_chosen(names, tmp_path / "table", [str(data / "test")], tmp_path / "chosen", [])
    (alone,) = decode_sets.decode([trained.root], [], [])
    assert read_table(chosen / "intent") == read_table(alone / "intent")
    assert decode_sets.read_scores(chosen) == decode_sets.read_scores(alone)


def test_what_it_does_not_offer_is_one_line(trained, data, tmp_path):
    with pytest.raises(UserError, match="search.name: task intent offers greedy, not beam"):
        decode_sets.decode([trained.root], [], [], decode_sets.Search("beam"))
    with pytest.raises(UserError, match="task intent does not predict text"):
        transcribe.transcribe(trained.root, ["-"], [], transcribe.Options())
    with pytest.raises(UserError, match="'intent' cannot be exported; those that can: asr_ctc"):
        export.export(trained.root, tmp_path / "a.onnx")


def test_padding_changes_nothing_and_a_label_that_training_lacks_is_named(module):
    plug_in = importlib.import_module("hfftools.task.intent")
    labels = plug_in.Labels(["off", "on", "up"])
    torch.manual_seed(0)
    task = plug_in.Task(4, labels, plug_in.Config())
    x_BTF, lens_B = torch.randn(2, 5, 4), torch.tensor([5, 3])
    alone_C = task.logits(x_BTF[1:, :3], lens_B[1:])[0]
    assert torch.allclose(task.logits(x_BTF, lens_B)[1], alone_C, atol=1e-6)
    with pytest.raises(UserError, match="'down' is not in the training set, which has off, on, up"):
        labels.encode("down")


def test_its_code_is_in_our_style(module):
    for command in (["black", "--check", "--line-length", "120"], ["flake8", "--max-line-length", "125"]):
        done = subprocess.run([sys.executable, "-m", *command, str(module)], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
