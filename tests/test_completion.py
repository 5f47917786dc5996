"""Completion in the shell: what bash itself offers at Tab, and that it needs no torch."""

import os
import subprocess
import sys

import pytest

argcomplete = pytest.importorskip("argcomplete", reason="pip install argcomplete")

# Bash calls the function of a command with these variables set when somebody presses Tab at the end of the line.
PRESS_TAB = """
eval "$(%s -c 'from argcomplete import shellcode; print(shellcode(["hff-train", "hff-pretrain", "hff-sweep"]))')"
COMP_WORDS=($1); COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); COMP_LINE="$1"; COMP_POINT=${#COMP_LINE}; COMP_TYPE=9
COMP_WORDBREAKS=$' \\t\\n"><=;|&(:'
_python_argcomplete "${COMP_WORDS[0]}" "${COMP_WORDS[COMP_CWORD]}"
printf '%%s\\n' "${COMPREPLY[@]}"
"""


def offered(line: str) -> list[str]:
    """Return what bash offers for the last word of a line."""
    script = ["bash", "--norc", "-c", PRESS_TAB % sys.executable, "bash", line]
    done = subprocess.run(script, capture_output=True, text=True, check=True)
    return [word.rstrip() for word in done.stdout.splitlines() if word.strip()]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("hff-train --me", ["--method"]),
        ("hff-train --method hff_", ["hff_houlsby"]),
        ("hff-pretrain --method hff_", ["hff_tiny"]),
        ("hff-train exp/x optim.fuse.l", ["optim.fuse.lr="]),
        ("hff-train exp/x --method hff tune.alp", ["tune.alpha="]),
        ("hff-train --method hff --config a.yaml exp/x device=cpu train.ep", ["train.epochs="]),
        ("hff-sweep exp/x --keys optim.head.l", ["optim.head.lr"]),
    ],
)
def test_bash_offers_options_methods_and_keys(line, words):
    assert offered(line) == words


def test_completing_needs_no_torch():
    code = "import sys; import hfftools.bin.train; assert not {'torch', 'omegaconf', 'argcomplete'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, env=os.environ)
