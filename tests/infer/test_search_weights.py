"""Searching with a trained experiment: weights come from dev, results have a folder of their own and are kept."""

import gzip
import json
import shutil
import sys

import pytest

from hfftools.config import with_option
from hfftools.data import datadir
from hfftools.data.table import read_table
from hfftools.decode import ngram
from hfftools.decode.lm import BINARY
from hfftools.decode.search import Search
from hfftools.infer import decode_sets, search_weights
from hfftools.log import UserError
from hfftools.report.results import report
from hfftools.text import units
from hfftools.train import experiment, job


@pytest.fixture(scope="module")
def trained(corpus, encoder, tmp_path_factory):
    root = tmp_path_factory.mktemp("searched")
    options = [
        f"upstream={encoder}", f"data.train={corpus}/train", f"data.dev={corpus}/dev", f"data.test=[{corpus}/test]",
        f"data.units={corpus}/units", "data.batch_seconds=12", "task.head=linear", "train.epochs=2", "data.workers=0",
        "device=cpu", "optim.head.lr=0.05",
    ]  # fmt: skip
    return job.train(root / "exp", [], options)


def test_beam_has_a_folder_n_best_and_times_and_is_done_once(trained, tmp_path):
    search = Search("beam", beam_size=4, nbest=2)
    (greedy,) = decode_sets.decode([trained.root], [], [])
    (folder,) = decode_sets.decode([trained.root], [], [], search)
    assert (greedy.name, folder.name) == ("test", "test_beam")
    text = read_table(folder / "text", False)
    assert read_table(folder / "nbest" / "text.1", False) == text and (folder / "nbest" / "score.2").exists()
    stamp = (folder / "text").stat().st_mtime_ns
    decode_sets.decode([trained.root], [], [], search)
    assert (folder / "text").stat().st_mtime_ns == stamp
    decode_sets.decode([trained.root], [], [], Search("beam", beam_size=5))
    assert (folder / "text").stat().st_mtime_ns != stamp and not (folder / "nbest").exists()
    text = read_table(folder / "text", False)
    durations = {utt.id: utt.duration_s for utt in datadir.read(experiment.read_config(trained, []).data.test[0])}
    lines = [line.split() for line in (folder / "ctm").read_text().splitlines()] if text else []
    for utt, channel, start, duration, _ in lines:
        assert channel == "1" and 0 <= float(start) and float(start) + float(duration) <= durations[utt] + 0.05
    recognised = {utt: " ".join(line[4] for line in lines if line[0] == utt) for utt in text}
    assert recognised == text
    _, plots = report([trained.root], tmp_path / "RESULTS.md", "title")
    assert {"error_vs_cost_test.png", "error_vs_cost_test_beam.png"} <= {plot.path.name for plot in plots}


def test_weights_are_chosen_on_dev_never_on_test_and_kept(trained, corpus, tmp_path, monkeypatch):
    pytest.importorskip("kenlm", reason="kenlm is not there: pip install 'hff[lm]'")
    lm = ngram.make([utt.text for utt in datadir.read(corpus / "train")], 2, None, tmp_path / "lm")
    monkeypatch.setattr(search_weights, "LM_WEIGHTS", (0.3, 0.6))
    monkeypatch.setattr(search_weights, "WORD_SCORES", (0.0, 1.0))
    read, seen = experiment.speech, []

    def watched(config, directory, *rest):
        seen.append(directory)
        return read(config, directory, *rest)

    monkeypatch.setattr(experiment, "speech", watched)
    search = Search("beam", beam_size=4, lm=str(lm))
    (folder,) = decode_sets.decode([trained.root], [], [], search)
    assert seen == [f"{corpus}/dev", f"{corpus}/test"] and folder.name == "test_beam_lm"
    (record,) = json.loads(trained.search.read_text())
    assert len(record["grid"]) == 4 and record["metric"] == "wer"
    assert min(point["dev_error"] for point in record["grid"]) == next(
        p["dev_error"] for p in record["grid"] if p["lm_weight"] == record["chosen"]["lm_weight"]
    )
    used = json.loads((folder / "decode.json").read_text())["search"]
    assert {key: used[key] for key in record["chosen"]} == record["chosen"]
    seen.clear()
    decode_sets.decode([trained.root], [f"{corpus}/train"], [], search)
    assert seen == [f"{corpus}/train"]  # the weights were kept
    known = {word for utt in datadir.read(corpus / "train") for word in utt.text.split()}
    assert {word for text in read_table(folder / "text", False).values() for word in text.split()} <= known


def test_a_set_is_decoded_again_when_the_dev_set_of_its_weights_has_changed(trained, corpus, tmp_path, monkeypatch):
    shutil.copytree(corpus / "dev", tmp_path / "dev")
    config = with_option(experiment.read_config(trained, []), "data.dev", str(tmp_path / "dev"))
    chosen, given = Search("beam", lm="lm.arpa"), Search("beam", lm="lm.arpa", lm_weight=1.0, word_score=0.0)
    first = search_weights.chosen_on(config, chosen)
    lines = (tmp_path / "dev" / "text").read_text().splitlines()
    (tmp_path / "dev" / "text").write_text("\n".join([f"{lines[0]}s", *lines[1:]]) + "\n")
    second = search_weights.chosen_on(config, chosen)
    assert first != second and search_weights.chosen_on(config, given) == {}
    assert search_weights.chosen_on(with_option(config, "data.dev", "/nowhere"), chosen) == {}
    search, stamps = Search("beam", tag="again"), []
    for record in (first, first, second):
        monkeypatch.setattr(search_weights, "chosen_on", lambda *_, record=record: record)
        (folder,) = decode_sets.decode([trained.root], [], [], search)
        stamps.append((folder / "text").stat().st_mtime_ns)
    assert stamps[0] == stamps[1] != stamps[2]


def test_a_model_of_units_takes_no_lexicon(trained, corpus, tmp_path):
    config, texts = experiment.read_config(trained, []), [utt.text for utt in datadir.read(corpus / "train")]
    made = ngram.make(texts, 2, units.load(corpus / "units"), tmp_path)
    packed = tmp_path / "lm.arpa.gz"
    packed.write_bytes(gzip.compress(made.read_bytes()))
    for path in (made, packed):
        for lexicon in (True, str(corpus / "train")):
            with pytest.raises(UserError, match="is over units, and a lexicon takes a model of words"):
                search_weights.resolve(Search("beam", lm=str(path), lexicon=lexicon), config)
        for lexicon in (None, False):
            assert search_weights.resolve(Search("beam", lm=str(path), lexicon=lexicon), config).lexicon is None


def test_the_words_of_a_binary_model_are_part_of_a_search(tmp_path):
    (tmp_path / "lm.bin").write_bytes(BINARY + bytes(100))
    search, facts = Search("beam", lm=str(tmp_path / "lm.bin"), lexicon=str(tmp_path / "lm.bin")), []
    for content in ("go\n", "go\nhome\n"):
        (tmp_path / "words.txt").write_text(content)
        facts.append(search_weights.facts(search))
    assert facts[0] != facts[1]


def test_a_package_that_is_missing_is_named_with_its_extra(trained, corpus, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "kenlm", None)
    lm = ngram.make(["turn the light on"], 2, None, tmp_path / "lm")
    with pytest.raises(UserError, match=r"pip install 'hff\[lm\]'"):
        decode_sets.decode([trained.root], [], [], Search("beam", lm=str(lm), lm_weight=1.0, word_score=0.0))


def test_the_command_takes_a_search(trained, corpus, tmp_path, capsys, monkeypatch):
    from hfftools.bin.decode import main

    (tmp_path / "search.yaml").write_text("search: {name: beam, beam_size: 3}\n")
    command = ["hff-decode", str(trained.root), "--config", str(tmp_path / "search.yaml"), "search.lexicon=true"]
    monkeypatch.setattr(sys, "argv", [*command, "device=cpu"])
    main()
    assert "test_beam_lexicon" in capsys.readouterr().out
    named = tmp_path / "lr=1e-3"  # a name with an equals sign is no option
    named.symlink_to(trained.root)
    for name in (str(named), "./lr=1e-3"):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", ["hff-decode", name, *command[2:], "device=cpu"])
        main()
        assert "lr=1e-3/decode/test_beam_lexicon" in capsys.readouterr().out
    monkeypatch.setattr(sys, "argv", [*command, "task.head=blstm"])
    with pytest.raises(UserError, match="after training only"):
        main()
