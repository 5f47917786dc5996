"""Jobs with logs, on this machine and through Slurm."""

import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

UTILS = Path(__file__).parents[2] / "utils"
STAMP = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d"


def shell(folder, *command, **environment):
    """Run a command of utils/ in `folder`."""
    environment = {**os.environ, **environment}
    command = [str(UTILS / command[0]), *map(str, command[1:])]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, env=environment, timeout=30)


def test_a_job_log_opens_with_its_command_and_closes_with_its_end(tmp_path):
    done = shell(
        tmp_path, "run.sh", "JOB=3:4", "log/x.JOB.log", "bash", "-c", 'echo "$@"; echo err >&2', "JOB", "a  b", "JOB"
    )
    assert done.returncode == 0 and done.stdout == done.stderr == ""
    assert sorted(p.name for p in (tmp_path / "log").iterdir()) == ["x.3.log", "x.4.log"]
    lines = (tmp_path / "log" / "x.3.log").read_text().splitlines()
    assert lines[0] == "# bash -c 'echo \"$@\"; echo err >&2' 3 'a  b' 3"
    assert re.match(rf"# Started at {STAMP}", lines[1])
    assert lines[3:5] == ["a  b 3", "err"]
    assert re.fullmatch(rf"# Ended \(code 0\) at {STAMP}, elapsed time \d+ seconds", lines[-1])


def test_without_a_range_nothing_is_replaced(tmp_path):
    done = shell(tmp_path, "run.sh", "JOB.log", "echo", "JOB")
    assert done.returncode == 0 and (tmp_path / "JOB.log").read_text().splitlines()[3] == "JOB"


def test_all_jobs_run_where_one_fails_and_its_code_is_logged(tmp_path):
    done = shell(tmp_path, "run.sh", "--max-jobs", "1", "JOB=1:3", "x.JOB.log", "bash", "-c", "exit $((JOB % 2 * 7))")
    assert done.returncode == 1
    codes = [(tmp_path / f"x.{n}.log").read_text().splitlines()[-1].split(")")[0] for n in (1, 2, 3)]
    assert codes == ["# Ended (code 7", "# Ended (code 0", "# Ended (code 7"]
    assert "2 of 3 jobs failed; the log x.1.log ends with" in done.stderr and "Ended (code 7)" in done.stderr


def test_jobs_run_at_the_same_time_up_to_the_limit(tmp_path):
    script = "touch on.JOB; for i in 1 2 3 4 5 6; do ls on.* | wc -l; sleep 0.05; done; rm on.JOB"
    for limit in (1, 3):
        done = shell(tmp_path, "run.sh", "--max-jobs", limit, "JOB=1:3", "x.JOB.log", "bash", "-c", script)
        assert done.returncode == 0
        counts = [int(line) for n in (1, 2, 3) for line in (tmp_path / f"x.{n}.log").read_text().splitlines()[3:-1]]
        assert max(counts) == limit


def test_a_job_that_is_killed_has_failed_whatever_an_older_log_says(tmp_path):
    arguments = ("run.sh", "JOB=1:1", "x.JOB.log", "bash", "-c")
    assert shell(tmp_path, *arguments, "true").returncode == 0
    done = shell(tmp_path, *arguments, "kill -9 $PPID; sleep 5")
    assert done.returncode == 1 and "x.1.log ends with" in done.stderr


def test_ending_the_runner_ends_its_jobs(tmp_path):
    script = 'trap "echo told >>told.JOB; exit 3" TERM; touch up.JOB; while true; do sleep 0.05; done'
    command = [UTILS / "run.sh", "--max-jobs", "2", "JOB=1:2", "x.JOB.log", "bash", "-c", script]
    runner = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 10
    while not all((tmp_path / f"up.{n}").exists() for n in (1, 2)) and time.monotonic() < deadline:
        time.sleep(0.02)
    runner.send_signal(signal.SIGTERM)
    assert runner.wait(timeout=10) == 143
    for n in (1, 2):
        assert (tmp_path / f"told.{n}").read_text() == "told\n"
        assert re.search(r"# Ended \(code [1-9]\d*\)", (tmp_path / f"x.{n}.log").read_text())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["JOB=1:3", "x.log", "true"], "needs JOB in its name"),
        (["JOB=3:1", "x.JOB.log", "true"], "empty range"),
        (["JOB=a:b", "x.JOB.log", "true"], "not JOB=first:last"),
        (["x.log"], "usage"),
        (["--mem", "4G", "x.log", "true"], "no option --mem"),
        (["--max-jobs", "0", "x.log", "true"], "--max-jobs takes a number above 0"),
    ],
)
def test_wrong_calls_of_the_runner_are_refused(tmp_path, arguments, words):
    done = shell(tmp_path, "run.sh", *arguments)
    assert done.returncode == 1 and words in done.stderr and not list(tmp_path.iterdir())


# sbatch as far as slurm.sh asks for it: the script is run once a task of the array, one after another
SBATCH = r"""#!/usr/bin/env bash
echo "$@" >>sbatch.calls
code=0
for word in "$@"; do
    case "$word" in --array=*) range=${word#--array=} ;; esac
done
for ((task = ${range%-*}; task <= ${range#*-}; task++)); do
    SLURM_ARRAY_TASK_ID=$task bash "${@: -1}" || code=1
done
exit $code
"""


def test_slurm_jobs_leave_the_same_logs_as_local_ones(tmp_path):
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "sbatch").write_text(SBATCH)
    (tmp_path / "bin" / "sbatch").chmod(0o755)
    path = f"{tmp_path}/bin:{os.environ['PATH']}"
    arguments = ("JOB=2:3", "log/x.JOB.log", "bash", "-c", 'echo "$0"; [ "$0" != "$FAIL" ]', "a  JOB")
    done = shell(tmp_path, "slurm.sh", "--partition=gpu", "--mem=4G", *arguments, PATH=path, FAIL="")
    assert done.returncode == 0, done.stderr
    call = (tmp_path / "sbatch.calls").read_text()
    assert all(word in call.split() for word in ("--wait", "--array=2-3", "--partition=gpu", "--mem=4G"))
    slurm = [(tmp_path / "log" / f"x.{n}.log").read_text().splitlines() for n in (2, 3)]
    assert shell(tmp_path, "run.sh", *arguments, FAIL="").returncode == 0
    local = [(tmp_path / "log" / f"x.{n}.log").read_text().splitlines() for n in (2, 3)]
    assert [lines[0] for lines in slurm] == [lines[0] for lines in local]
    assert [lines[3] for lines in slurm] == [lines[3] for lines in local] == ["a  2", "a  3"]
    done = shell(tmp_path, "slurm.sh", *arguments, PATH=path, FAIL="a  3")
    assert done.returncode == 1 and "1 of 2 jobs failed" in done.stderr and "log/x.3.log ends with" in done.stderr


def test_an_interrupted_caller_takes_its_slurm_jobs_along(tmp_path):
    (tmp_path / "bin").mkdir()
    for name, does in (("sbatch", "touch submitted; exec sleep 20"), ("scancel", ":")):
        (tmp_path / "bin" / name).write_text(f'#!/bin/sh\necho "$@" >{name}.call\n{does}\n')
        (tmp_path / "bin" / name).chmod(0o755)
    environment = {**os.environ, "PATH": f"{tmp_path}/bin:{os.environ['PATH']}"}
    caller = subprocess.Popen([UTILS / "slurm.sh", "x.log", "true"], cwd=tmp_path, env=environment)
    while not (tmp_path / "submitted").exists():
        time.sleep(0.02)
    caller.send_signal(signal.SIGTERM)
    assert caller.wait(timeout=10) == 143
    submitted, cancelled = ((tmp_path / f"{name}.call").read_text().split() for name in ("sbatch", "scancel"))
    (name,) = [word.partition("=")[2] for word in submitted if word.startswith("--job-name=")]
    assert f"--name={name}" in cancelled and name.startswith("x.")


@pytest.mark.skipif(shutil.which("sbatch") is not None, reason="this machine has Slurm")
def test_without_slurm_the_message_says_how_to_fix_it(tmp_path):
    done = shell(tmp_path, "slurm.sh", "x.log", "true")
    assert done.returncode == 1 and "set cmd_backend=local in cmd.sh" in done.stderr
