"""Complete options, names and `key=value` keys in the shell, by argcomplete where it is installed.

The shell runs the command itself at each press of Tab, so that a list of keys must not need torch: utils/options_page.py
writes the keys of each command's dataclasses to conf/options/, and tests/test_show.py fails while they are out of date.
"""

import argparse
import os
from importlib.resources import files

# Commands that take the options of another one.
_SAME_OPTIONS = {"hff-sweep": "hff-train", "hff-account": "hff-train", "hff-bench": "hff-train"}


def packaged(kind: str) -> list[str]:
    """Return the names of the yaml files in conf/<kind>, sorted."""
    names = (entry.name for entry in files("hfftools.conf").joinpath(kind).iterdir())
    return sorted(name.removesuffix(".yaml") for name in names if name.endswith(".yaml"))


def option_keys(command: str) -> list[str]:
    """Return the dotted keys that `command` takes as `key=value`; none where it has no list of them."""
    page = files("hfftools.conf").joinpath("options").joinpath(f"{_SAME_OPTIONS.get(command, command)}.txt")
    return page.read_text(encoding="utf-8").split() if page.is_file() else []


def _without_options(parser: argparse.ArgumentParser, line: str) -> str:
    """Return a command line without its options and their values; as it is where its last word belongs to an option.

    argcomplete reads the line as parse_args does, which takes no positional argument after an option that follows one.
    """
    takes_value: list[str] = []
    for action in parser._actions:
        takes_value += action.option_strings if action.nargs != 0 else []
    words = line.split(" ")
    follows_option = [False, *(word in takes_value for word in words)]
    belongs = [word.startswith("-") or follows for word, follows in zip(words, follows_option)]
    if belongs[-1]:
        return line
    return " ".join(word for word, option in zip(words, belongs) if not option)


def complete(parser: argparse.ArgumentParser, intermixed: bool = False) -> None:
    """Print the completions and exit where the shell asks for them (argcomplete sets _ARGCOMPLETE); else do nothing.

    `intermixed` says that the command takes positional arguments after its options too.
    """
    if "_ARGCOMPLETE" not in os.environ:
        return
    import argcomplete

    # argcomplete reads an attribute `completer` of each action, which the class in argparse does not declare
    keys = option_keys(parser.prog)
    for action in parser._actions:
        if "key=value" in str(action.metavar):
            # argcomplete adds no space after "=": the value can be typed at once
            action.completer = lambda keys=[f"{key}=" for key in keys], **_: keys  # type: ignore[attr-defined]
        elif action.dest == "keys":
            action.completer = lambda **_: keys  # type: ignore[attr-defined]
        elif action.dest in ("method", "methods"):
            kind = "pretrain" if parser.prog == "hff-pretrain" else "method"
            action.completer = lambda kind=kind, **_: packaged(kind)  # type: ignore[attr-defined]
    if intermixed:
        typed = os.environ["COMP_LINE"][: int(os.environ["COMP_POINT"])]
        line = _without_options(parser, typed)
        os.environ |= {"COMP_LINE": line, "COMP_POINT": str(len(line))}
    argcomplete.autocomplete(parser)
