"""Record the options that a run started with, and compare those of a later call with them."""

from collections.abc import Iterable
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from hfftools.config import C, flat, load_yaml, to_yaml, with_option
from hfftools.expdir import write_text
from hfftools.log import UserError, require


def compare_config(config: Any, path: Path, may_differ: Iterable[str] = ()) -> None:
    """Raise UserError that names every option whose value differs from the one recorded in `path`, if that file exists.

    Options in `may_differ` (dotted keys) do not change what is learned. An option that the file lacks was added to hff
    after the file was written, and counts as having had its default.
    """
    if not path.exists():
        return
    old, new = _defaults(config) | flat(read_recorded(path)), flat(config)
    changed = [k for k in sorted(old.keys() | new.keys()) if old.get(k) != new.get(k) and k not in may_differ]
    if changed:
        words = ", ".join(f"{k} was {old.get(k)!r} and is now {new.get(k)!r}" for k in changed)
        raise UserError(
            f"{path}: this experiment started with other options: {words}; use another folder, or set them back"
        )


def _defaults(config: Any) -> dict[str, Any]:
    """Return the defaults of the options of `config`, by dotted key; those of its plug-ins are in the plug-ins' classes."""
    options: dict[str, Any] = {}
    default = type(config)()
    for part in fields(config):
        chosen, usual = getattr(config, part.name), getattr(default, part.name)
        plugged_in = is_dataclass(chosen) and type(chosen) is not type(usual)
        usual = type(chosen)() if plugged_in else usual
        options |= flat(usual, f"{part.name}.") if is_dataclass(usual) else {part.name: usual}
    return options


def recorded_option(config: C, key: str, path: Path) -> C:
    """Return `config` in which the option `key`, where it is `auto`, has the value that the file `path` recorded for it.

    A run that resumes on another machine thus keeps what was chosen when it started. Without the file nothing changes.
    """
    if flat(config)[key] != "auto" or not path.exists():
        return config
    recorded = flat(read_recorded(path)).get(key)
    return config if recorded is None else with_option(config, key, recorded)


def read_recorded(path: Path) -> Any:
    """Return the options that `save_config` wrote; raise UserError where there are none, as in a file that was cut."""
    options = load_yaml(path)
    advice = f"remove it, and run the command that began {path.parent} again, with all its options"
    require(bool(options), f"{path} is empty; {advice}")
    return options


def save_config(config: Any, path: Path) -> None:
    """Write `config` to `path`; called once everything that it names has been checked."""
    write_text(path, to_yaml(config))
