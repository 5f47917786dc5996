"""Check options as they are given, before they are merged: the words key=value of a command line, the values of a file."""

import json
import math
import unicodedata
from collections.abc import Mapping
from dataclasses import is_dataclass
from typing import Any, get_type_hints

from hfftools.log import require


def as_yaml(word: str, schema: type) -> str:
    """Return a word `key=value` whose value yaml reads as it is meant by an option of the dataclass `schema`.

    The value of an option that takes text is that text: 1e3, yes and `a #b` name a folder as well as any other word.
    Raises UserError for a word of another form, and for characters that cannot be seen, which yaml refuses or takes for
    spaces.
    """
    require("=" in word and not word.startswith("-"), f"'{word}' is not of the form key=value")
    key, _, value = word.partition("=")
    unseen = any(unicodedata.category(c) in ("Cc", "Zl", "Zp") and c != "\t" for c in value)
    require(not unseen, f"'{word}' has a line break, or another character that cannot be seen; rename what it names")
    written = value[:1] in ("'", '"') or value == "null"
    if not value or (_takes_text(schema, key) and not written):
        # omegaconf takes `key=` for null, where we mean an empty text
        return f"{key}={json.dumps(value, ensure_ascii=False)}"
    return word


def _takes_text(schema: type | None, key: str) -> bool:
    """Return whether the option `key` of a dataclass is of the type str."""
    for name in key.split("."):
        schema = get_type_hints(schema).get(name) if is_dataclass(schema) else None
    return schema is str


def refuse_variables(where: str, options: Mapping[str, Any]) -> None:
    """Raise UserError for values, {dotted key: value}, that omegaconf would replace: `${…}`, and `???` by the default."""
    for key, value in options.items():
        for text in value if isinstance(value, list) else [value]:
            plain = not isinstance(text, str) or ("${" not in text and text != "???")
            require(plain, f"{where}: {key}: hff fills nothing in for '{text}'; write the value itself")


def refuse_infinite(options: Mapping[str, Any]) -> None:
    """Raise UserError for values, {dotted key: value}, that are infinite or no numbers; the message begins with the key."""
    for key, value in options.items():
        for number in value if isinstance(value, list) else [value]:
            finite = not isinstance(number, float) or math.isfinite(number)
            require(finite, f"{key}: {number} is not a finite number; give one")
