"""Read the records that hff writes; a file that is empty, cut or of another form becomes a UserError that names it.

`fix`, the end of that error, says what the user is to do with the file.
"""

import errno
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import UnionType
from typing import Any

from hfftools import memory
from hfftools.log import UserError

AGAIN = "remove it and run the same command again"

# What a value must be: of a type; {key: form} for a table with at least these keys, where a key that ends in ? may be
# missing, and {...: form} is for the values of all keys; or [form] for a list of such values.
Form = type | UnionType | dict[Any, Any] | list[Any]


@contextmanager
def readable(path: Path, fix: str = AGAIN) -> Iterator[None]:
    """Raise UserError in place of what a reader raises on the damaged file `path`; missing files are left to the caller."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # torch, numpy, zipfile and safetensors each raise errors of their own
        # an error number is the system's reason, and the file is not to blame; torch seeks before the start of a cut file
        if memory.ran_out(error) or (isinstance(error, OSError) and error.errno not in (None, errno.EINVAL)):
            raise
        reason = " ".join(str(error).split("\n")[0].split()) or type(error).__name__
        raise UserError(
            f"{path} is empty; {fix}" if path.stat().st_size == 0 else f"{path} is damaged ({reason}); {fix}"
        ) from None


def read_json(path: Path, form: Form, fix: str = AGAIN) -> Any:
    """Return the value of a JSON file; raise UserError unless it has the form."""
    with readable(path, fix):
        return check(_parse(path.read_bytes()), form)


def _parse(content: bytes) -> Any:
    """Return the value of JSON in UTF-8; raise ValueError for half a character too, which could not be printed."""
    value = json.loads(content.decode("utf-8"))
    if b"\\ud" in content.lower():
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    return value


def read_json_lines(path: Path, form: Form = dict) -> list[dict]:
    """Return the records of a .jsonl file that have the form, so without lines that a killed process left unfinished."""
    records = []
    for line in path.read_bytes().split(b"\n") if path.exists() else ():
        try:
            records.append(check(_parse(line), form))
        except (ValueError, RecursionError):
            continue
    return records


def check(value: Any, form: Form, name: str = "it") -> Any:
    """Return `value`; raise ValueError, which says where it does not have the form."""
    if isinstance(form, dict):
        check(value, dict, name)
        for key, inner in form.items():
            wanted = key.removesuffix("?") if key is not ... else ""
            if wanted not in value and key == wanted:
                raise ValueError(f"{name} has no '{key}'")
            for here in value.keys() if key is ... else value.keys() & {wanted}:
                check(value[here], inner, f"'{here}'")
    elif isinstance(form, list):
        for item in check(value, list, name):
            check(item, form[0], f"an entry of {name}")
    elif not isinstance(value, form):
        raise ValueError(f"{name} is of type {type(value).__name__}")
    return value


def check_finite(tensors: dict[str, Any]) -> None:
    """Raise ValueError, for `readable`, that names a tensor with values that are not finite numbers."""
    for key, tensor in tensors.items():
        if not tensor.isfinite().all():
            raise ValueError(f"'{key}' has values that are not finite numbers")
