"""The shell pieces of a recipe: its options and its stages."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
STAMP = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d"
RECIPE = r"""#!/usr/bin/env bash
set -euo pipefail
cmd=utils/run.sh
hidden() { local not_an_option=1; }
stage=1; stop_stage=3
train_set=train
use_cache=false
nj=2
help_message="usage: ./run.sh, a recipe"
. utils/parse_options.sh
. utils/stage.sh
after=1
train() { [ "${FAIL:-}" != train ]; }
echo "train_set=<$train_set> use_cache=$use_cache nj=$nj rest=<$*>"
if stage 1 "data and units"; then
    ${cmd} JOB=1:${nj} log/a.JOB.log bash -c 'echo "job $0"; [ "$0" != "${FAIL:-}" ]' JOB
fi
if stage 2 "training" log/train.log; then
    echo "loss 1.5" >log/train.log
    train
    echo trained
fi
if stage 3 "unbound"; then
    echo "${NOT_SET?}" >/dev/null
fi
recipe_done
"""


@pytest.fixture
def recipe(tmp_path):
    (tmp_path / "utils").symlink_to(ROOT / "utils")
    (tmp_path / "log").mkdir()
    (tmp_path / "run.sh").write_text(RECIPE)
    (tmp_path / "run.sh").chmod(0o755)

    def run(*arguments, **environment):
        environment = {**os.environ, "NOT_SET": "set", **environment}
        command = ["./run.sh", *arguments]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=environment, timeout=30)

    run.folder = tmp_path
    return run


def test_options_set_the_variables_at_the_top(recipe):
    done = recipe("--train-set", "dev other", "--use_cache", "true", "--nj", "3", "--stage", "2", "--", "x", "--nj")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == "train_set=<dev other> use_cache=true nj=3 rest=<x --nj>"
    assert recipe("--train-set", "", "--stage", "2", "a").stdout.startswith(
        "train_set=<> use_cache=false nj=2 rest=<a>"
    )


def test_a_config_file_is_read_before_all_options(recipe):
    (recipe.folder / "my.conf").write_text("train_set='from file; nj=9'\nuse_cache=true\nstage=2; nj=7\n")
    done = recipe("--use-cache", "false", "--config", "my.conf")
    assert done.stdout.startswith("train_set=<from file; nj=9> use_cache=false nj=7 rest=<>"), done.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--trainset", "dev"], ["no option --trainset", "did you mean --train-set?", "--stop-stage"]),
        (["--after", "1"], ["no option --after"]),
        (["--not-an-option", "1"], ["no option --not-an-option"]),
        (["--home", "x"], ["no option --home"]),
        (["-x"], ["no option -x"]),
        (["--nj"], ["--nj needs a value"]),
        (["--train-set", "--nj", "3"], ["--train-set needs a value"]),
        (["--nj=3"], ["write --nj 3"]),
        (["--use-cache", "yes"], ["--use-cache takes true or false, not 'yes'"]),
        (["--use-cache", "True"], ["takes true or false"]),
        (["--config", "none.conf"], ["there is no file 'none.conf'"]),
        (["--config"], ["there is no file ''"]),
        (["--stage", "one"], ["--stage takes a number, not 'one'"]),
        (["--stage", "99999999999999999999"], ["--stage takes a number, not '99999999999999999999'"]),
        (["--stop-stage", "-1"], ["--stop-stage takes a number, not '-1'"]),
    ],
)
def test_wrong_options_are_refused_before_anything_runs(recipe, arguments, words):
    done = recipe(*arguments, after="2")
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith("run.sh: error: ") and done.stderr.count("\n") == 1
    assert all(word in done.stderr for word in words), done.stderr


@pytest.mark.parametrize(
    ("content", "words"),
    [("trainset=x\n", "my.conf: there is no option 'trainset'"), ("use_cache=1\n", "true or false")],
)
def test_wrong_config_files_are_refused(recipe, content, words):
    (recipe.folder / "my.conf").write_text(content)
    done = recipe("--config", "my.conf")
    assert done.returncode == 1 and words in done.stderr and done.stdout == ""


def test_help_prints_the_message_and_every_option(recipe):
    done = recipe("--stage", "2", "--help")
    assert done.returncode == 0
    assert done.stdout.startswith("usage: ./run.sh, a recipe\n")
    assert re.findall(r"^  (--\S+)", done.stdout, re.M) == [
        "--config", "--cmd", "--stage", "--stop-stage", "--train-set", "--use-cache", "--nj"
    ]  # fmt: skip


def test_stages_are_run_between_the_bounds_and_announced(recipe):
    done = recipe("--stage", "2")
    lines = done.stdout.splitlines()[1:]
    assert done.returncode == 0 and len(lines) == 4
    number = {text: n for n, text in enumerate(RECIPE.splitlines(), 1)}
    line = number['if stage 2 "training" log/train.log; then']
    assert re.fullmatch(rf"{STAMP} \(run\.sh:{line}:main\) stage 2: training", lines[0])
    assert lines[1] == "trained" and "stage 3: unbound" in lines[2]
    assert re.fullmatch(rf"{STAMP} \(run\.sh:\d+:main\) done, elapsed time \d+ seconds \(0:00:\d\d\)", lines[3])
    done = recipe("--stop-stage", "1")
    assert "stage 1: data and units" in done.stdout and "stage 2" not in done.stdout
    assert "done, elapsed" in done.stdout.splitlines()[-1]


def test_bounds_that_hold_no_stage_are_a_failure(recipe):
    done = recipe("--stage", "4", "--stop-stage", "9")
    assert done.returncode == 1 and "nothing was run" in done.stderr and "done" not in done.stdout


def test_a_failing_stage_stops_the_recipe_and_shows_its_log(recipe):
    done = recipe(FAIL="train")
    assert done.returncode == 1
    assert "trained" not in done.stdout and "stage 3" not in done.stdout and "done, elapsed" not in done.stdout
    assert re.search(
        r'stage 2: training failed with exit code 1, at run.sh:\d+: \[ "\$\{FAIL:-\}" != train \]', done.stderr
    )
    assert "the log log/train.log ends with" in done.stderr and "loss 1.5" in done.stderr
    assert "./run.sh --stage 2" in done.stderr


def test_a_failing_job_stops_the_recipe_and_shows_its_log(recipe):
    done = recipe(FAIL="2")
    assert done.returncode == 1 and "stage 2" not in done.stdout
    assert "1 of 2 jobs failed; the log log/a.2.log ends with" in done.stderr and "job 2" in done.stderr
    assert "stage 1: data and units failed" in done.stderr


def test_an_unbound_variable_is_a_failure_too(recipe):
    environment = {name: value for name, value in os.environ.items() if name != "NOT_SET"}
    command = ["./run.sh", "--stage", "3"]
    done = subprocess.run(command, cwd=recipe.folder, capture_output=True, text=True, env=environment)
    assert done.returncode != 0 and "stage 3: unbound failed" in done.stderr and "done, elapsed" not in done.stdout


STAGES = r"""
set -euo pipefail
. utils/parse_options.sh
. utils/stage.sh
. utils/asr.sh
${what}
"""

# --searches prints what the stand-in of a training configuration says
DECODE = """#!/bin/sh
if [ "$1" = --searches ]; then sed 's/^offers //' "$2"; else echo "$0" "$@"; fi
"""


@pytest.fixture
def stages(tmp_path):
    """A function of utils/asr.sh for two methods, with stand-ins for the commands, which say what they were given."""
    (tmp_path / "utils").symlink_to(ROOT / "utils")
    (tmp_path / "bin").mkdir()
    for name in ("hff-train", "torchrun", "hff-lm", "hff-decode"):
        (tmp_path / "bin" / name).write_text('#!/bin/sh\necho "$0" "$@"\n[ "$3" != bad ] || exit 3\n')
        (tmp_path / "bin" / name).chmod(0o755)
    (tmp_path / "bin" / "hff-decode").write_text(DECODE)

    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "train.yaml").write_text("offers greedy beam beam_lm")

    def run(backend, processes="1", methods="lora hff", what="train_methods", **more):
        variables = {
            "upstream": "hff_tiny", "methods": methods, "seeds": "1 2", "train_set": "train", "dev_set": "dev",
            "test_sets": "a b", "units": "my units", "train_config": "conf/train.yaml", "cache": "false", "epochs": "",
            "probe_set": "train", "searches": "greedy", "lm": "words", "tag": "", "stage": "1", "stop_stage": "6",
            "cmd_backend": backend, "train_procs": processes,
            "train_cmd": "utils/run.sh --max-jobs 2", "cmd": "utils/run.sh", "what": what,
            "PATH": f"{tmp_path}/bin:{os.environ['PATH']}", **more,
        }  # fmt: skip
        environment = {**os.environ, **variables}
        (tmp_path / "run.sh").write_text(STAGES)
        return subprocess.run(["bash", "run.sh"], cwd=tmp_path, capture_output=True, text=True, env=environment)

    run.folder = tmp_path
    return run


def test_trainings_are_one_array_of_jobs_and_here_one_after_another(stages):
    done = stages("local")
    here = [line.partition("hff-train ")[2] for line in done.stdout.splitlines()]
    assert done.returncode == 0 and len(here) == 4, done.stderr
    assert here[0].startswith("exp/lora --method lora ") and here[3].startswith("exp/fusion_seed2 --method hff ")
    assert "data.units=my units data.features=" in here[0]
    assert stages("elsewhere").returncode == 0
    logs = [(stages.folder / "exp" / "log" / f"train.{n}.log").read_text().splitlines() for n in (1, 2, 3, 4)]
    assert [log[-2].partition("hff-train ")[2] for log in logs] == here
    assert all(log[3].startswith("# hff-train exp/") and log[-1].startswith("# Ended (code 0)") for log in logs)


def test_a_training_that_fails_is_named_and_the_others_are_done(stages):
    done = stages("elsewhere", methods="bad hff")
    assert done.returncode == 1 and "2 of 4 jobs failed; the log exp/log/train.1.log ends with" in done.stderr
    assert "Ended (code 3)" in (stages.folder / "exp" / "log" / "train.2.log").read_text()
    assert "Ended (code 0)" in (stages.folder / "exp" / "log" / "train.4.log").read_text()
    assert stages("local", methods="bad hff").returncode == 3


def commands_of(done, command):
    assert done.returncode == 0, done.stderr
    return [line.partition(f"{command} ")[2] for line in done.stdout.splitlines()]


def test_each_search_has_its_decodes_with_the_test_sets_of_now(stages):
    options = {"searches": "greedy beam beam_lm", "seeds": "1", "what": "decode_methods"}
    here = commands_of(stages("local", **options), "hff-decode")
    sets, lm = "--data data/a --data data/b", "search.lm=data/lm_train/lm.arpa"
    assert here == [f"exp/lora exp/fusion {sets}{how}" for how in ("", " search.name=beam", f" search.name=beam {lm}")]
    assert stages("elsewhere", **options).returncode == 0
    jobs = (stages.folder / "exp" / "log" / "decode.list").read_text().splitlines()
    assert len(jobs) == 6 and jobs[5].split() == ["hff-decode", "exp/fusion", *sets.split(), "search.name=beam", lm]
    (mine := stages.folder / "mine.arpa").touch()
    (other,) = commands_of(stages("local", **{**options, "searches": "beam_lm", "lm": str(mine)}), "hff-decode")
    assert other.endswith(f"search.lm={mine} search.tag=beam_lm_mine")


@pytest.mark.parametrize(
    ("lm", "command"),
    [
        ("words", "data/train --out data/lm_train --held-out data/dev"),
        ("units", "data/train --units my_units --order 6 --out data/lm_my_units --held-out data/dev"),
        ("3-gram", "--model 3-gram --out data/lm --held-out data/dev"),
    ],
)
def test_a_language_model_is_made_where_a_search_needs_it(stages, lm, command):
    options = {"what": "make_lm", "lm": lm, "lm_names": "3-gram 4-gram", "units": "my_units"}
    assert commands_of(stages("local", searches="greedy beam_lm", **options), "hff-lm") == [command]
    assert commands_of(stages("local", searches="greedy beam", **options), "hff-lm") == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"methods": " "}, "--methods: name a method"),
        ({"seeds": ""}, "--seeds: give a number"),
        ({"seeds": "1 x"}, "--seeds: 'x' is not a whole number"),
        ({"tag": "a b"}, "--tag: 'a b' is a part of folders' names"),
        ({"tag": "a/b"}, "--tag: 'a/b' is a part of folders' names"),
        ({"tag": "*"}, "--tag: '*' is a part of folders' names"),
        ({"searches": ""}, "--searches: '' is not one of greedy beam beam_lm, which"),
        (
            {"lm": "5-gram", "lm_names": "3-gram 4-gram"},
            "no file '5-gram'; give a file, words, units, or one of 3-gram 4-gram",
        ),
        ({"lm": "3-gram"}, "--lm: there is no file '3-gram'; give a file, words, units"),
        ({"searches": "beam_lm", "stage": "4"}, "--lm words: data/lm_train/lm.arpa is missing; run stage 1"),
        (
            {"searches": "beam_lm", "train_config": "conf/rnnt.yaml"},
            "'beam_lm' is not one of greedy beam, which the task of conf/rnnt",
        ),
    ],
)
def test_what_would_fail_in_stage_5_is_refused_at_once(stages, options, message):
    (stages.folder / "conf" / "rnnt.yaml").write_text("offers greedy beam")
    done = stages("local", **options)
    assert done.returncode == 1 and message in done.stderr and not done.stdout


@pytest.mark.parametrize("corpus", ["an4", "commonvoice", "hff_tiny", "librispeech", "mini"])
def test_a_recipe_that_is_run_elsewhere_says_so(corpus, tmp_path):
    done = subprocess.run([ROOT / "egs" / corpus / "run.sh"], cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (1, "run.sh: error: run it in its own folder, as ./run.sh\n")


def test_several_processes_train_through_torchrun(stages):
    first = stages("local", processes="2").stdout.splitlines()[0]
    assert "torchrun --standalone --nproc-per-node 2 --no-python hff-train exp/lora --method lora" in first


@pytest.mark.parametrize("file", ["cmd.sh", "path.sh", "db.sh"])
def test_settings_with_the_line_ends_of_windows_are_refused(file, tmp_path):
    for name in ("cmd.sh", "path.sh", "db.sh"):
        (tmp_path / name).write_text(f"# the settings\n{name[:-3]}=read\n")
    script = f"set -euo pipefail; cd '{tmp_path}'; . {ROOT}/utils/settings.sh; echo ${{cmd}} ${{path}} ${{db}}"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "read read read\n"), done.stderr
    (tmp_path / file).write_bytes(b"# the settings\nCORPUS=/data\r\n")
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True)
    assert done.returncode == 1 and not done.stdout
    assert done.stderr == f"{file}: line 2 ends in CR LF; run: sed -i 's/\\r$//' {file}\n"
    subprocess.run(["bash", "-c", done.stderr.partition("run: ")[2]], cwd=tmp_path, check=True)
    assert (tmp_path / file).read_bytes() == b"# the settings\nCORPUS=/data\n"


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="shellcheck is not installed")
def test_shellcheck_has_no_complaint():
    scripts = [*(ROOT / "utils").glob("*.sh"), *(ROOT / "tests" / "utils").glob("*.sh")]
    done = subprocess.run(["shellcheck", "-x", *sorted(scripts)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
