"""Report to the user: errors in one line, progress on the terminal, a log file for each experiment."""

import difflib
import logging
import sys
from collections.abc import Iterable
from pathlib import Path

from tqdm import tqdm

log = logging.getLogger("hff")


class UserError(Exception):
    """An error that the user can fix: one line that says what is wrong, in which file or option, and how to fix it.

    Characters that cannot be seen or printed, which a damaged file brings into a message, are spelled as in Python: \\x1b.
    """

    def __init__(self, message: object):
        super().__init__("".join(c if c.isprintable() else repr(c)[1:-1] for c in str(message)))


def require(holds: bool, message: str) -> None:
    """Raise UserError with `message` unless `holds`; the checks of ranges in config.py use it."""
    if not holds:
        raise UserError(message)


def setup_logging(file: Path | None = None) -> None:
    """Log to standard error, through tqdm so that bars survive, and to `file` as well when one is given."""
    for handler in list(log.handlers):
        log.removeHandler(handler)
        handler.close()
    form = logging.Formatter("%(asctime)s (%(module)s:%(lineno)d) %(message)s", "%Y-%m-%dT%H:%M:%S")
    handlers: list[logging.Handler] = [_TqdmHandler()]
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        handlers.append(_FileHandler(file, encoding="utf-8"))
    for handler in handlers:
        handler.setFormatter(form)
        log.addHandler(handler)
    log.setLevel(logging.INFO)
    log.propagate = False


class _TqdmHandler(logging.Handler):
    """Print messages above a progress bar, which a plain handler would break in two."""

    def emit(self, record: logging.LogRecord) -> None:
        tqdm.write(self.format(record), file=sys.stderr)


class _FileHandler(logging.FileHandler):
    """Raise the error of a full disk, where logging would print a traceback and go on."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 (logging's name)
        error = sys.exc_info()[1]
        if isinstance(error, OSError):
            raise OSError(error.errno, error.strerror, self.baseFilename) from None
        super().handleError(record)


def progress(items: Iterable | None, total: int | None, what: str, unit: str = "utt") -> tqdm:
    """Return a progress bar on standard error; if that is not a terminal, it prints a line every ten seconds."""
    interval = 0.1 if sys.stderr.isatty() else 10.0
    quiet = log.level > logging.INFO  # dist.join sets this in every process of torchrun but the first
    shown = {"mininterval": interval, "dynamic_ncols": True, "leave": False, "disable": quiet}
    return tqdm(items, total=total, desc=what, unit=unit, **shown)


def put_out(text: str) -> None:
    """Write whole lines to standard output; on a terminal that also shows a progress bar, above the bar."""
    if sys.stdout.isatty() and sys.stderr.isatty():
        tqdm.write(text, file=sys.stdout, end="")
    else:
        print(text, end="")
    sys.stdout.flush()


def suggest(name: str, known: Iterable[str]) -> str:
    """Return a clause for an error message: the most similar known names, or all names if none is similar."""
    known = sorted(known)
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.6)
    return f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(known)}"
