"""Read and write Kaldi tables: text files with one `key value` pair per line, sorted as in the C locale.

Python sorts strings by code point, which is the same order as sorting UTF-8 bytes (`LC_ALL=C sort`).
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from hfftools.expdir import write_text
from hfftools.log import UserError, log

_GAP = re.compile("[ \t]+")  # the only separators of key and value: a path may contain a no-break space


def read_table(path: Path, value_required: bool = True) -> dict[str, str]:
    """Return {key: value} of a table file, in file order; raise UserError with the line number of an invalid line.

    A byte order mark, CRLF line ends and tabs are accepted.
    """
    table: dict[str, str] = {}
    # a data directory has a repair command; any other table has to be edited by hand
    fix = f"run utils/fix_data_dir.sh {path.parent}" if (path.parent / "wav.scp").exists() else "correct that line"
    for number, key, value, last in _lines(path):
        if not key:
            if last:
                continue
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
    for number, key, value, _ in _lines(path):
        if key in table and table[key] != value:
            log.info(f"{path}:{number}: '{key}' is there twice; the first line is kept")
        if key:
            table.setdefault(key, value)
    return table


def _lines(path: Path) -> Iterator[tuple[int, str, str, bool]]:
    """Yield (line number, key, value, whether it is the last line); key and value are empty for an empty line."""
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
    """Return the table as the text of its file."""
    return "".join(f"{key} {table[key]}".rstrip(" ") + "\n" for key in sorted(table))


def write_table(path: Path, table: Mapping[str, str]) -> None:
    """Write a table file atomically."""
    write_text(path, format_table(table))
