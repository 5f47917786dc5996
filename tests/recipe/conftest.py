"""A recipe copied aside and run as a user runs it."""

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def recipe(tmp_path):
    """A function that copies a recipe and runs its run.sh, after `prefix`; the folder of the copy and the process."""

    def run(name, *arguments, timeout_s=900, prefix=()):
        here = tmp_path / "egs" / name
        if not here.exists():
            shutil.copytree(ROOT / "egs" / name, here, symlinks=True, ignore=shutil.ignore_patterns("data", "exp*"))
            (tmp_path / "utils").exists() or (tmp_path / "utils").symlink_to(ROOT / "utils")
        done = subprocess.run(
            [*prefix, "./run.sh", *arguments], cwd=here, capture_output=True, text=True, timeout=timeout_s
        )
        return here, done

    return run
