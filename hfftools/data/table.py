"""Read and write Kaldi tables: text files with one `key value` pair per line, sorted as in the C locale.

Python sorts strings by code point, which is the same order as sorting UTF-8 bytes (`LC_ALL=C sort`).
"""

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from hfftools.expdir import write_text
from hfftools.log import UserError, log
from hfftools.textfile import read_lines

_GAP = re.compile("[ \t]+")  # the only separators of key and value: a path may contain a no-break space


def listed(folder: Path, name: str) -> bool:
    """Return whether a folder has a file of that name, even as a link whose target is gone, which reading then names."""
    return os.path.lexists(folder / name)


def read_table(path: Path, value_required: bool = True) -> dict[str, str]:
    """Return {key: value} of a table file, in file order; raise UserError with the line number of an invalid line.

    Byte-order marks, CRLF line ends and tabs are accepted.
    """
    table: dict[str, str] = {}
    # a data directory has a repair command; any other table has to be edited by hand
    fix = f"run utils/fix_data_dir.sh {path.parent}" if (path.parent / "wav.scp").exists() else "correct that line"
    for number, key, value in _rows(path):
        if not key:
            raise UserError(f"{path}:{number} is an empty line; {fix}")
        if value_required and not value:
            raise UserError(f"{path}:{number}: '{key}' has no value; {fix}")
        if key in table:
            raise UserError(f"{path}:{number}: '{key}' is there twice; {fix}")
        table[key] = value
    return table


def read_loosely(path: Path) -> dict[str, str]:
    """Read a table like `read_table`, but skip empty lines and keep the first line of a duplicated key."""
    table: dict[str, str] = {}
    for number, key, value in _rows(path):
        if key in table and table[key] != value:
            log.info(f"{path}:{number}: '{key}' is there twice; the first line is kept")
        if key:
            table.setdefault(key, value)
    return table


def _rows(path: Path) -> Iterator[tuple[int, str, str]]:
    """Yield (line number, key, value) of each line; key and value are empty for an empty line."""
    for number, line in enumerate(read_lines(path), 1):
        key, *value = _GAP.split(line.strip(" \t\r"), maxsplit=1)
        yield number, key, value[0] if value else ""


def format_table(table: Mapping[str, str]) -> str:
    """Return the table as the text of its file."""
    return "".join(f"{key} {table[key]}".rstrip(" ") + "\n" for key in sorted(table))


def write_table(path: Path, table: Mapping[str, str]) -> None:
    """Write a table file atomically."""
    write_text(path, format_table(table))
