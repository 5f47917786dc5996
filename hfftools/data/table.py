"""Kaldi tables, one `key value` a line: text files in, {key: value} out, and back again, sorted as in the C locale.

Sorting by code point, as Python does, is sorting by UTF-8 byte, as `LC_ALL=C sort` does.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from hfftools.expdir import write_text
from hfftools.log import UserError, log

_GAP = re.compile("[ \t]+")  # only these part a key from its value: a no-break space may belong to a path


def read_table(path: Path, value_required: bool = True) -> dict[str, str]:
    """A file of `key value` lines -> {key: value}, in its order; UserError names the line that is not one.

    A byte order mark, CRLF line ends and tabs are taken as they come.
    """
    table: dict[str, str] = {}
    # on a data directory the mend is a command; elsewhere the user knows best
    mend = f"run utils/fix_data_dir.sh {path.parent}" if (path.parent / "wav.scp").exists() else "mend that line"
    for number, key, value, last in _lines(path):
        if not key:
            if last:
                continue
            raise UserError(f"{path}:{number} is an empty line; {mend}")
        if value_required and not value:
            raise UserError(f"{path}:{number}: '{key}' has no value; {mend}")
        if key in table:
            raise UserError(f"{path}:{number}: '{key}' is there twice; {mend}")
        table[key] = value
    return table


def read_loosely(path: Path) -> dict[str, str]:
    """As `read_table`, but empty lines are passed over, and of two lines with one key the first is kept."""
    table: dict[str, str] = {}
    for number, key, value, _ in _lines(path):
        if key in table and table[key] != value:
            log.info(f"{path}:{number}: '{key}' is there twice; the first line is kept")
        if key:
            table.setdefault(key, value)
    return table


def _lines(path: Path) -> Iterator[tuple[int, str, str, bool]]:
    """(line number, key, value, whether it is the last line); key and value are empty on an empty line."""
    try:
        lines = path.read_bytes().decode("utf-8-sig").split("\n")
    except FileNotFoundError:
        raise UserError(f"{path} is missing") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 (byte {error.start}); convert it with iconv") from None
    for number, line in enumerate(lines, 1):
        key, *value = _GAP.split(line.strip(" \t\r"), maxsplit=1)
        yield number, key, value[0] if value else "", number == len(lines)


def format_table(table: Mapping[str, str]) -> str:
    """The text of a table's file."""
    return "".join(f"{key} {table[key]}".rstrip(" ") + "\n" for key in sorted(table))


def write_table(path: Path, table: Mapping[str, str]) -> None:
    """Write a table's file, whole or not at all."""
    write_text(path, format_table(table))
