"""Commands with standard streams that are closed, or of another encoding, end with a result or with one line."""

import subprocess
import sys

import pytest

CODE = """
import os, sys
from hfftools.cli import run_main
def main():
    assert sys.stdin.read() == "" and min(os.open(os.devnull, os.O_RDONLY) for _ in range(3)) > 2
    print("caf\\u00e9")
    sys.stderr.write("done\\n")
run_main(main)
"""


def run(streams, **options):
    words = ["sh", "-c", f'"$0" -c "$1" {streams}', sys.executable, CODE]
    return subprocess.run(words, capture_output=True, stdin=subprocess.DEVNULL, **options)


@pytest.mark.parametrize("streams", ["", "<&-", "2>&-", "<&- 2>&-"])
def test_streams_that_are_closed_have_a_stand_in(streams):
    done = run(streams)
    assert (done.returncode, done.stdout) == (0, "café\n".encode()), done.stderr
    assert done.stderr == (b"" if "2>&-" in streams else b"done\n")


def test_a_closed_output_is_refused():
    done = run(">&-", text=True)
    assert done.returncode == 1 and done.stderr.startswith("-c: error: standard output is closed; ")


def test_output_is_utf_8_in_any_locale():
    done = run("", env={"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"})
    assert (done.returncode, done.stdout) == (0, "café\n".encode()), done.stderr
