"""Commands of wav.scp: they touch neither input nor terminal, their last words are shown, and none is left running."""

import os
import signal
import subprocess
import sys
import time
from functools import partial

import pytest

from hfftools.audio import waveform
from hfftools.log import UserError

LONG_S = 4321  # of the commands that would run on


def running():
    """The command lines of all processes that have not ended."""
    done = subprocess.run(["ps", "-eo", "stat,args"], capture_output=True, text=True, check=True)
    rows = [line.split(maxsplit=1) for line in done.stdout.splitlines()]
    return [args for stat, args in rows if not stat.startswith("Z")]


def alive(marker):
    return any(marker in args for args in running())


def wait_until(holds, limit_s=20.0):
    end = time.monotonic() + limit_s
    while time.monotonic() < end:
        if holds():
            return True
        time.sleep(0.05)
    return False


def test_a_command_does_not_read_the_callers_input(tmp_path):
    program = "from hfftools.audio import command; print(command.output('cat; tty; echo done')[0].decode())"
    done = subprocess.run(
        [sys.executable, "-c", program], input="lines for the caller\n", capture_output=True, text=True
    )
    assert done.stdout.split() == ["not", "a", "tty", "done"]


def test_the_last_line_of_its_errors_is_shown():
    with pytest.raises(UserError, match=r"failed with exit code 4: talk\.mp4: Invalid data$"):
        waveform.load("printf 'version 7\\ntalk.mp4: Invalid data\\n' >&2; exit 4 |")
    with pytest.raises(
        UserError, match="cannot be decoded .*talk.mp4: no such file"
    ):  # as where a pipe hides the failure
        waveform.load("echo 'talk.mp4: no such file' >&2; echo no audio |")


def test_nothing_is_left_running_after_a_failure():
    marker = f"sleep {LONG_S}.1"
    with pytest.raises(UserError, match="exit code 3"):
        waveform.load(f"{marker} >/dev/null 2>&1 & exit 3 |")
    assert wait_until(lambda: not alive(marker))


PROGRAM = {
    "one": "from hfftools.audio import waveform; waveform.load({source!r})",
    "threads": "from hfftools.audio import waveform; waveform.durations_s([{source!r}, '  ' + {source!r}], 'test')",
}


@pytest.mark.parametrize("how", PROGRAM)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_nothing_is_left_running_after_an_interrupt(how, number):
    marker = f"sleep {LONG_S}.{os.getpid()}{number:d}"
    program = PROGRAM[how].format(source=f"({marker} | cat); true |")
    heard = partial(
        signal.signal, signal.SIGINT, signal.SIG_DFL
    )  # a shell's background jobs ignore it, as do their children
    with subprocess.Popen([sys.executable, "-c", program], stderr=subprocess.PIPE, preexec_fn=heard) as process:
        assert wait_until(lambda: marker in running())
        process.send_signal(number)
        try:
            process.communicate(timeout=20)
        finally:
            process.kill()  # else a failed test would wait for it
    assert process.returncode != 0
    assert wait_until(lambda: not alive(marker))
