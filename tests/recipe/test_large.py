"""The real corpora's recipes with wav2vec2_large, by name: all but its weights' values. By hand: -m slow."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from hfftools.upstream import s3prl
from hfftools.upstream.checkpoint_files import cache_file

ROOT = Path(__file__).parents[2]
REAL = ROOT.parent / "shared" / "data"
NAME, PARAMETERS = "wav2vec2_large", 315_438_720 - 1024  # the published total, but for the mask embedding
TIMEOUT_S = 3600
# Run a command and print the peak memory of its largest process: that of this test's own process counts earlier tests too.
MEASURED = [
    sys.executable,
    "-c",
    """
import resource, subprocess, sys
status = subprocess.call(sys.argv[1:])
print("peak KiB", resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
sys.exit(status)""",
]


@pytest.fixture
def cache(saved, tmp_path, monkeypatch):
    """A cache that holds random weights where s3prl's name would have brought its checkpoint, and no way to the network."""
    monkeypatch.setenv("HFF_CACHE", str(tmp_path / "cache"))
    for proxy in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(proxy, "http://127.0.0.1:9")
    path = cache_file(s3prl.url_of(s3prl.ALIASES[NAME], "wav2vec2"))
    path.parent.mkdir()
    path.symlink_to(saved("wav2vec2_lv60"))
    return path


def accounted(config, method):
    """The trainable encoder parameters that hff-account tells beforehand."""
    step = ["--config", config, "--seconds", "1", "--batch", "1"]
    done = subprocess.run(
        ["hff-account", "--upstream", NAME, "--method", method, *step], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    titles, _, row = (line.strip("| ").split("|") for line in done.stdout.splitlines() if line.startswith("|"))
    cells = {title.strip(): cell.strip().replace(",", "") for title, cell in zip(titles, row, strict=True)}
    return sum(int(cells[part]) for part in ("upstream", "inserted", "fusion"))


@pytest.mark.slow
@pytest.mark.timeout(TIMEOUT_S)
@pytest.mark.skipif(
    not REAL.exists(), reason="LibriSpeech and Common Voice are not beside the checkout, in ../shared/data"
)
@pytest.mark.parametrize(
    ("name", "options", "tag", "test"),
    [
        (
            "librispeech",
            ["--corpus", REAL / "LibriSpeech", "--dev-part", "dev-clean-3spk", "--test-parts", "test-other-5spk"],
            "",
            "test_other_5spk",
        ),
        ("commonvoice", ["--corpus", REAL / "cv_en", "--lang", "en"], "_en", "test_en"),
    ],
)
def test_a_recipe_with_a_large_upstream(recipe, cache, name, options, tag, test):
    few = ["--limit", "4", "--epochs", "1", "--unit-size", "40", "--methods", "last_layer hff"]
    here, done = recipe(name, "--upstream", NAME, *map(str, options), *few, timeout_s=TIMEOUT_S, prefix=MEASURED)
    log = done.stdout + done.stderr
    assert done.returncode == 0, log[-3000:]
    assert f"upstream {NAME} is s3prl's {s3prl.ALIASES[NAME]}" in log
    assert f"{NAME}: states 0..24, width 1024, 50 frames/s, {PARAMETERS:,} parameters" in log
    assert "padding changes" not in log
    exp = here / f"exp_{NAME}"
    results = (exp / "RESULTS.md").read_text()
    for method in ("last_layer", "fusion"):
        assert f"| {method}{tag}/{test} |" in results
    assert len(json.loads((exp / f"probe_{NAME}{tag}" / "probe.json").read_text())["layers"]) == 25
    trained = {
        method: json.loads((exp / f"{method}{tag}" / "resources.json").read_text())["parameters"]["trainable_encoder"]
        for method in ("last_layer", "fusion")
    }
    assert trained == {"last_layer": 0, "fusion": accounted(here / "conf" / "train.yaml", "hff")}
    assert re.search(rf"\| fusion{tag} .*{trained['fusion']:,}", results)
    kept = {path.name for path in cache.parent.iterdir()}
    assert kept == {cache.name, "digests.sqlite"}  # nothing was downloaded
    cached_bytes = sum(path.stat().st_size for path in (exp / "feats").rglob("*") if path.is_file())
    peak_bytes = 1024 * int(re.findall(r"^peak KiB (\d+)$", log, re.MULTILINE)[-1])
    print(f"{name}: {peak_bytes / 2**30:.2f} GiB in the largest process, {cached_bytes / 2**20:.0f} MiB of states")
    assert peak_bytes < 6 * 2**30
