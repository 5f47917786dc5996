"""The recipes' own run.sh, from stage 1 to 6, on a few utterances: what a new user runs."""

import subprocess
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
REAL = ROOT.parent / "shared" / "data"
AN4 = REAL / "an4"
pytestmark = pytest.mark.recipe


def test_mini_from_nothing_to_a_table_and_again(recipe):
    here, done = recipe("mini", "--limit", "40", "--epochs", "2")
    assert done.returncode == 0, done.stderr[-2000:]
    for name in ("last_layer", "weighted_sum", "fusion"):
        assert f"\n| {name} " in done.stdout
        assert (here / "exp" / name / "decode" / "test" / "score_wer" / "result.txt").read_text().startswith("%WER")
    results = (here / "exp" / "RESULTS.md").read_text()
    assert "## Environment" in results and "| fusion/test |" in results
    assert (here / "exp" / "probe_hff_tiny" / "layers.png").exists()
    assert (here / "exp" / "error_vs_cost_test.png").exists()
    for number in range(1, 7):
        assert f"stage {number}: " in done.stdout + done.stderr
    stamps = {p: p.stat().st_mtime_ns for p in here.rglob("*") if p.suffix in (".safetensors", ".wav", ".pt")}
    _, again = recipe("mini", "--limit", "40", "--epochs", "2")
    assert again.returncode == 0
    assert stamps == {p: p.stat().st_mtime_ns for p in stamps}, "a second run redid what was done"
    _, changed = recipe("mini", "--limit", "40", "--epochs", "3", "--stage", "4", "--stop-stage", "4")
    assert changed.returncode != 0 and "train.epochs was 2 and is now 3" in changed.stdout + changed.stderr


def test_hff_decode_needs_nothing_but_the_folder(recipe):
    here, done = recipe("mini", "--limit", "30", "--epochs", "1", "--methods", "hff_recommended", "--stop-stage", "4")
    assert done.returncode == 0, done.stderr[-2000:]
    advice, used = (
        here / "exp" / name for name in ("probe_hff_tiny/recommendation.yaml", "hff_recommended/config.yaml")
    )
    assert yaml.safe_load(used.read_text())["fuse"]["layers"] == yaml.safe_load(advice.read_text())["fuse"]["layers"]
    decode = ["hff-decode", "exp/hff_recommended/"]
    decoded = subprocess.run(decode, cwd=here, capture_output=True, text=True)
    assert decoded.returncode == 0, decoded.stderr
    assert decoded.stdout.startswith("%WER ")


@pytest.mark.skipif(not AN4.exists(), reason="AN4 is not beside the checkout, at ../shared/data/an4")
def test_an4_on_the_real_corpus(recipe):
    more = ["--limit", "30", "--epochs", "1", "--seeds", "1", "--methods", "weighted_sum lora", "--speeds", "1.0"]
    chosen = [
        "--choose-rates",
        "true",
        "--rates",
        "1e-3 2e-3",
        "--unit-kind",
        "char",
        "--train-config",
        "conf/small.yaml",
    ]
    here, done = recipe("an4", "--corpus", str(AN4), *more, *chosen)
    assert done.returncode == 0, done.stderr[-2000:]
    for method in ("weighted_sum", "lora"):
        best = (here / "exp" / "lr" / method / "best").resolve()
        mine = here / "exp" / method / "checkpoints" / "final.safetensors"
        assert mine.read_bytes() == (best / "checkpoints" / "final.safetensors").read_bytes()
    assert (here / "exp" / "RESULTS.md").exists()
    assert (here / "exp" / "probe_fbank" / "probe.json").exists()


@pytest.mark.skipif(
    not REAL.exists(), reason="LibriSpeech and Common Voice are not beside the checkout, in ../shared/data"
)
@pytest.mark.parametrize(
    ("name", "options", "train", "test", "beam"),
    [
        (
            "librispeech",
            ["--corpus", REAL / "LibriSpeech", "--dev-part", "dev-clean-3spk", "--test-parts", "test-other-5spk"],
            "train_clean_5",
            "test_other_5spk",
            "beam_lm",
        ),
        (
            "commonvoice",
            [
                "--corpus",
                REAL / "cv_en",
                "--lang",
                "en",
                "--hours",
                "1",
                "--dev-hours",
                "1",
                "--text",
                "case=upper",
                "--train-config",
                "conf/transducer.yaml",
                "--searches",
                "greedy beam",
            ],
            "train_en_1h",
            "test_en",
            "beam",
        ),
    ],
)
def test_a_real_corpus_from_its_own_layout_to_a_report(recipe, name, options, train, test, beam):
    more = ["--limit", "6", "--epochs", "1", "--methods", "weighted_sum", "--speeds", "0.9,1.0", "--unit-size", "60"]
    tag = "_en" if name == "commonvoice" else ""
    for stages in (["--stop-stage", "2"], ["--stage", "4"]):
        here, done = recipe(name, *map(str, options), *more, *stages)
        assert done.returncode == 0, done.stderr[-2000:]
    texts = (here / "data" / train / "text").read_text().splitlines()
    assert len(texts) == 6 and all(line.partition(" ")[2].isupper() for line in texts)
    assert len((here / "data" / f"{train}_sp0.9_1.0" / "text").read_text().splitlines()) == 12
    result = here / "exp" / f"weighted_sum{tag}" / "decode" / test / "score_wer" / "result.txt"
    assert result.read_text().startswith("%WER")
    assert (result.parents[2] / f"{test}_{beam}" / "text").exists()
    results = (here / "exp" / "RESULTS.md").read_text()
    assert all(f"| weighted_sum{tag}/{name} |" in results for name in (test, f"{test}_{beam}"))
    lm = here / "data" / f"lm_{train}" / "lm.arpa"
    assert lm.exists() == (beam == "beam_lm")


def test_a_failing_stage_stops_the_recipe_and_says_where(recipe, tmp_path):
    _, done = recipe("an4", "--corpus", str(tmp_path / "nowhere"), "--stop-stage", "1")
    assert done.returncode != 0
    assert "nowhere is not a folder" in done.stdout + done.stderr
    _, done = recipe("an4", "--no-such-option", "1")
    assert done.returncode == 1 and "no-such-option" in done.stdout + done.stderr
    _, done = recipe("an4", "--searches", "greedy lm", "--stage", "6")
    assert done.returncode == 1 and "--searches: 'lm' is not one of greedy beam beam_lm, which the task" in done.stderr
