"""The commands over data directories, Kaldi's two among them: what they print and how they end."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def shell(folder, *command):
    """Run a command in `folder`, with this Python first on PATH."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, env=environment, timeout=60)


def test_kaldis_commands_validate_and_fix(folder):
    validate, fix = ROOT / "utils" / "validate_data_dir.sh", ROOT / "utils" / "fix_data_dir.sh"
    done = shell(folder.parent, validate, "--no-feats", "set")
    assert done.returncode == 0 and done.stdout.endswith("Successfully validated data-directory set\n")
    text = (folder / "text").read_text(encoding="utf-8").splitlines(keepends=True)
    (folder / "text").write_text("".join(text[1:]), encoding="utf-8")
    done = shell(folder.parent, validate, "set")
    assert done.returncode == 1 and done.stdout == ""
    assert "set/wav.scp: 1 utterances missing from text, first ann-1; run utils/fix_data_dir.sh set" in done.stderr
    done = shell(folder.parent, fix, "set")
    assert done.returncode == 0 and done.stdout == "set: kept 4 utterances out of 5\n"
    (folder / "text").unlink()
    assert shell(folder.parent, validate, "set").returncode == 1
    assert shell(folder.parent, validate, "--no-text", "set").returncode == 0
    assert shell(folder.parent, validate, "--no-wav", "set").returncode == 2


def test_units_are_made_once_and_found_where_it_says(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "text").write_text("a-1 the cat\na-2 a\u00a0 hat\n", encoding="utf-8")

    def units(*arguments):
        return shell(tmp_path, sys.executable, "-m", "hfftools.bin.units", "data", "--out", "units", *arguments)

    done = units("--kind", "char")
    # blank, unknown, space, t h e c a: the no-break space parts words, as it does when the set is read
    assert done.returncode == 0 and done.stdout == "units: 8 units (char)\n"
    assert len((tmp_path / "units" / "units.txt").read_text().splitlines()) == 8
    assert "is there already" in units("--kind", "char", "--size", "100").stderr
    assert "making it again" in units("--kind", "bpe", "--size", "12").stderr
    (tmp_path / "data" / "text").unlink()
    done = units("--kind", "char")
    assert done.returncode == 1 and done.stderr.splitlines() == ["units.py: error: data/text is missing"]


def test_text_is_normalised_by_options_that_are_known(folder):
    def normalise(*options):
        return shell(folder.parent, sys.executable, "-m", "hfftools.bin.datadir", "normalise", "set", *options)

    done = normalise("case=upper")
    assert done.returncode == 0 and done.stdout == "set: kept 5 utterances out of 5\n", done.stderr
    assert (folder / "text").read_text(encoding="utf-8").startswith("ann-1 THE CAT\n")
    done = normalise("cases=upper")
    assert done.returncode == 1 and "there is no option 'cases'; did you mean case?" in done.stderr


def test_a_corpus_takes_options_after_its_folder(tmp_path):
    command = (
        "-m",
        "hfftools.bin.prepare",
        "librispeech",
        "--source",
        ".",
        "--out",
        "data",
        "librilight=2h",
        "parts=[a]",
    )
    done = shell(tmp_path, sys.executable, *command)
    assert done.returncode == 1 and done.stderr.endswith("error: librilight: '2h' is not one of 10min, 1h, 10h\n")
