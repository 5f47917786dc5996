"""Set up the command lines of all commands, and turn errors into one line and a non-zero exit code."""

import argparse
import errno
import logging
import math
import os
import sys
from collections.abc import Callable, Iterable
from contextlib import suppress
from io import TextIOWrapper
from pathlib import Path

from hfftools import __version__, memory
from hfftools.completion import complete, packaged
from hfftools.log import UserError, log

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # no space, no more of the quota, no larger file (ulimit -f)


class _HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Keep the line breaks of the description, and print the default of every option that has one."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        """Return the help of an option, with its default unless that is empty or the text names it already."""
        shown = action.help or ""
        if (
            not action.option_strings
            or action.default in (None, False, "", [], argparse.SUPPRESS)
            or "%(default)" in shown
        ):
            return shown
        return f"{shown} (default: %(default)s)"


class _Parser(argparse.ArgumentParser):
    """A parser that answers the shell's completion before it parses."""

    def parse_args(self, *args, **kwargs):
        complete(self)
        return super().parse_args(*args, **kwargs)

    def parse_intermixed_args(self, *args, **kwargs):
        complete(self, intermixed=True)
        return super().parse_intermixed_args(*args, **kwargs)


def command_parser(name: str, description: str | None) -> argparse.ArgumentParser:
    """Return the parser of the command `name`; it has --help and --version already."""
    parser = _Parser(prog=name, description=description, formatter_class=_HelpFormatter)
    parser.add_argument("--version", action="version", version=f"{name} {__version__}")
    return parser


def add_show(parser: argparse.ArgumentParser) -> None:
    """Add --show, which prints every option of the command's configuration instead of running the command."""
    parser.add_argument(
        "--show", action="store_true", help="print all options as yaml, with their values and what they mean, and exit"
    )


def number(text: str) -> float:
    """Return the number that an option of a command line has as its value; neither `nan` nor `inf` is one."""
    value = float(text)
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"'{text}' is not a finite number")
    return value


def is_option(word: str) -> bool:
    """Return whether a word is `key=value`; a path such as exp/lr=1e-3 or ./lr=1e-3 has a slash before the equals sign."""
    key, equals, _ = word.partition("=")
    return bool(equals) and "/" not in key


def split_words(words: Iterable[str], part: str) -> tuple[list[Path], list[str], list[str]]:
    """Return the paths among the words of a command line, the options `part.…=value`, and the other options."""
    paths, of_part, others = [], [], []
    for word in words:
        if not is_option(word):
            paths.append(Path(word))
        elif word.startswith(f"{part}."):
            of_part.append(word)
        else:
            others.append(word)
    return paths, of_part, others


def packaged_names(kind: str) -> str:
    """Return the names of the yaml files in conf/<kind>, for a help text."""
    return ", ".join(packaged(kind))


def run_main(main: Callable[[], None]) -> None:
    """Run a command's `main`: a UserError or a broken file becomes one line on standard error and exit code 1."""
    name = Path(sys.argv[0]).name
    _open_streams(name)
    try:
        main()
        sys.stdout.flush()
    except UserError as error:
        _log_to_files(str(error))
        sys.exit(f"{name}: error: {error}")
    except KeyboardInterrupt:
        sys.exit(f"{name}: interrupted; run the same command again to continue")
    except BrokenPipeError:  # the reader of standard output, such as `head`, has ended: nobody reads a message
        sys.exit(1)
    except (OSError, RuntimeError, MemoryError) as error:
        message = memory.explain(error)
        if message is None and isinstance(error, OSError):  # a full disk, no write permission: the user needs the name
            message = _place_and_reason(error)
        if message is None:
            raise
        _log_to_files(message)
        sys.exit(f"{name}: error: {message}")


def _open_streams(name: str) -> None:
    """Give the command standard streams that it can use: /dev/null for those that are closed, and UTF-8 for its output.

    A file that is opened later would otherwise get the number of a closed one, and what other libraries print to it. End
    with an error where standard output is closed, for what the command prints is its result.
    """
    while (file := os.open(os.devnull, os.O_RDWR)) <= 2:  # the system gives the lowest free number
        os.set_inheritable(file, True)
    os.close(file)
    if sys.stdin is None:
        sys.stdin = open(0, encoding="utf-8")
    if sys.stderr is None:
        sys.stderr = open(2, "w", encoding="utf-8")
    if sys.stdout is None:
        sys.exit(f"{name}: error: standard output is closed; send it to a file or, if nobody needs it, to /dev/null")
    if isinstance(sys.stdout, TextIOWrapper):  # a test may have replaced it
        sys.stdout.reconfigure(encoding="utf-8")


def _place_and_reason(error: OSError) -> str:
    """Return what the system refused, and where: of the two names of a copy or renaming, the one that is written."""
    full = error.errno in _FULL
    # what is written to a file names it (disk.writing); standard output has no name
    place = error.filename2 or error.filename or ("standard output" if full else "a file")
    fix = "; make room, and run the same command again" if full else ""
    return f"{place}: {error.strerror or error}{fix}"


def _log_to_files(message: str) -> None:
    """Write the error to the log files as well; on the terminal it is the last line already."""
    for handler in log.handlers:
        if isinstance(handler, logging.FileHandler):
            with suppress(OSError):  # the error may be that the disk is full
                handler.handle(log.makeRecord(log.name, logging.ERROR, __file__, 0, message, (), None))
