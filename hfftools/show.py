"""Print a configuration as yaml; each option has the comment that its dataclass has where it defines the option."""

import inspect
import io
import json
import tokenize
from collections.abc import Iterator
from dataclasses import is_dataclass
from typing import Any

from hfftools.config import parse_yaml

WIDTH = 40  # column at which comments start


def show(config: Any) -> str:
    """Return all options of a configuration, a dataclass, as yaml that `--config` reads back, each with its comment."""
    return "\n".join(_lines(config, "")) + "\n"


def _lines(config: Any, indent: str) -> Iterator[str]:
    """Yield the lines of a dataclass or dictionary, those of its parts indented by two more spaces."""
    comments = _comments(type(config))
    for name, value in (config if isinstance(config, dict) else vars(config)).items():
        comment = comments.get(name, "")
        if is_dataclass(value) or isinstance(value, dict) and value:
            yield _with_comment(f"{indent}{name}:", comment)
            yield from _lines(value, indent + "  ")
        else:
            yield _with_comment(f"{indent}{name}: {_as_yaml(value)}", comment)


def _with_comment(line: str, comment: str) -> str:
    """Return a line of yaml followed by a comment in column WIDTH, if there is a comment."""
    return f"{line:<{WIDTH}}  # {comment}" if comment else line


def _as_yaml(value: Any) -> str:
    """Return a value on one line: as JSON, which yaml reads, but text without quotes if yaml reads that as text too."""
    if isinstance(value, list):
        return "[" + ", ".join(_as_yaml(item) for item in value) + "]"
    if isinstance(value, str) and value and parse_yaml(f"x: {value}\n").get("x") == value:
        return value
    return json.dumps(value, ensure_ascii=False)


def _comments(schema: type) -> dict[str, str]:
    """Return {field: comment} of a dataclass and its bases: the comment on its line, or on the lines above it."""
    comments: dict[str, str] = {}
    for owner in reversed(schema.__mro__):
        if "__annotations__" in vars(owner) and owner.__module__ != "builtins":
            comments |= _own_comments(owner)
    return comments


def _own_comments(schema: type) -> dict[str, str]:
    """Return {field: comment} of the fields that a class defines itself, from the tokens of its source."""
    # ast drops comments, so the tokens are read. A field begins with its name at one level of indentation; a comment on a
    # line of its own belongs to the next field, and one behind code to the field of this line.
    source = inspect.cleandoc("\n" + inspect.getsource(schema))
    fields = schema.__annotations__
    comments: dict[str, str] = {}
    above: list[str] = []
    name = ""
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        text = token.string.lstrip("# ")
        if token.type == tokenize.COMMENT and token.line.lstrip().startswith("#"):
            above.append(text)
        elif token.type == tokenize.COMMENT and name:
            comments[name] = " ".join([*filter(None, [comments.get(name)]), text])
        elif token.type == tokenize.NEWLINE:  # the end of a statement; line breaks inside brackets are tokens NL
            name, above = "", []
        elif token.type == tokenize.NAME and not name and token.string in fields and token.line.startswith("    "):
            if token.line.lstrip().startswith(f"{token.string}:"):
                name = token.string
                if above:
                    comments[name] = " ".join(above)
    return comments
