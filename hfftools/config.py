"""Merge yaml files and `key=value` arguments into one checked configuration, and find plug-ins by name."""

import importlib
import io
import pkgutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import partial
from importlib.resources import files
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigKeyError, OmegaConfBaseException

from hfftools.given import as_yaml, refuse_infinite, refuse_variables
from hfftools.log import UserError, require, suggest
from hfftools.textfile import read_lines

C = TypeVar("C")  # the dataclass of a configuration


def plugin_names(room: str) -> list[str]:
    """Return the names of the plug-ins in hfftools/<room>, without loading them."""
    package = importlib.import_module(f"hfftools.{room}")
    shared = getattr(package, "NOT_PLUGINS", ())
    return [module.name for module in pkgutil.iter_modules(package.__path__) if module.name not in shared]


def plugin(room: str, name: str) -> ModuleType:
    """Return the module hfftools/<room>/<name>.py; raise UserError with suggestions if there is none."""
    known = plugin_names(room)
    if name not in known:
        raise UserError(f"there is no {'corpus' if room == 'corpora' else room} '{name}'; {suggest(name, known)}")
    return importlib.import_module(f"hfftools.{room}.{name}")


def conf_file(kind: str, name: str) -> Path:
    """Return the path of the packaged conf/<kind>/<name>.yaml; raise UserError with suggestions if there is none."""
    folder = Path(str(files("hfftools.conf").joinpath(kind)))
    path = folder / f"{name}.yaml"
    if not path.exists():
        raise UserError(f"there is no {kind} '{name}'; {suggest(name, [p.stem for p in folder.glob('*.yaml')])}")
    return path


class OptionError(UserError):
    """Report a value out of an option's range; `resolve` adds the dotted path of the dataclass that has the option."""


def at_least(part: Any, low: float, *names: str) -> None:
    """Raise OptionError unless each option in `names` of the dataclass `part` is `low` or more, or None."""
    for name in names:
        value = getattr(part, name)
        if value is not None and not value >= low:
            raise OptionError(f"{name}: {value} is below {low}; give {low} or more")


def check_seed(part: Any) -> None:
    """Raise OptionError unless the option `seed` of the dataclass `part` is one that torch and numpy both take."""
    between(part, 0, 2**63 - 1, "seed")


def above(part: Any, low: float, *names: str) -> None:
    """Raise OptionError unless each option in `names` of the dataclass `part` is more than `low`."""
    for name in names:
        value = getattr(part, name)
        if not value > low:
            raise OptionError(f"{name}: {value} is not above {low}; give a larger number")


def between(part: Any, low: float, high: float, *names: str) -> None:
    """Raise OptionError unless each option in `names` of the dataclass `part` is from `low` to `high`, both included."""
    for name in names:
        value = getattr(part, name)
        if not low <= value <= high:
            raise OptionError(f"{name}: {value} is not from {low} to {high}")


def share_below_one(part: Any, *names: str) -> None:
    """Raise OptionError unless each option in `names`, such as a dropout, is 0 or more and below 1."""
    for name in names:
        value = getattr(part, name)
        if not 0 <= value < 1:
            raise OptionError(f"{name}: {value} is not from 0 to below 1")


def one_of(part: Any, known: Iterable[str], *names: str) -> None:
    """Raise OptionError unless the value of each option in `names` of the dataclass `part` is among `known`."""
    for name in names:
        value = getattr(part, name)
        if value not in known:
            raise OptionError(f"{name}: '{value}' is not one of {', '.join(known)}")


def resolve(
    schema: type[C], sources: Iterable[Path], overrides: Iterable[str], rooms: dict[str, str] | None = None
) -> C:
    """Merge yaml files, then `key=value` arguments, over the dataclass `schema`; return an instance of it.

    `rooms` maps a dotted key such as `fuse` to the room whose plug-in's own Config it takes, chosen by its `name`.
    Raises UserError that names an unknown key and the known ones, or a value of the wrong type or out of its range, and
    the yaml file that has it.
    """
    parts = [(str(path), load_yaml(path)) for path in sources]
    files = len(parts)
    for word in overrides:
        parts.append((word, _parse_word(word, schema)))
    merged = _node(schema)
    for key, room in (rooms or {}).items():
        named = [OmegaConf.select(part, f"{key}.name") for _, part in parts]
        name = next((n for n in reversed(named) if n), OmegaConf.select(merged, f"{key}.name"))
        with _naming_file(parts, files, f"{key}.name"):
            OmegaConf.update(merged, key, _node(plugin(room, str(name)).Config), force_add=True)
    for where, part in parts:
        _check_groups(where, merged, OmegaConf.to_container(part))
        merged = _checked(partial(OmegaConf.merge, merged, part), where)
    with _naming_file(parts, files):
        built = _build(merged)
        refuse_infinite(flat(merged))
        return built


def _parse_word(word: str, schema: type) -> DictConfig:
    """Return the option of a word `key=value`; raise UserError if its value is not one that yaml can have."""
    try:
        part = OmegaConf.from_dotlist([as_yaml(word, schema)])
    except UserError:
        raise
    except Exception as error:  # yaml and omegaconf each raise errors of their own
        reason = " ".join(str(getattr(error, "problem", None) or error).split())
        raise UserError(f"'{word}' is not yaml ({reason}); write a text as key='\"…\"'") from None
    refuse_variables(word, flat(part))
    return part


def _check_groups(where: str, node: DictConfig, given: Any, prefix: str = "") -> None:
    """Raise UserError if `given`, the options of `where`, has a value for a key that stands for several options."""
    for key, child in _parts(node).items():
        value, first = given.get(key, {}), str(next(iter(child), "name"))
        what = "a name and options" if first == "name" else "options"
        require(isinstance(value, dict), f"{where}: {prefix}{key} takes {what}, as in {prefix}{key}.{first}=…")
        _check_groups(where, child, value, f"{prefix}{key}.")


@contextmanager
def _naming_file(parts: Sequence[tuple[str, DictConfig]], files: int, key: str = "") -> Iterator[None]:
    """Add to an error about an option the yaml file, one of the first `files` parts, where that is the last to set it.

    The option is `key`, or what the message begins with, up to a colon.
    """
    try:
        yield
    except UserError as error:
        key = key or str(error).partition(":")[0]
        setting = [number for number, (_, part) in enumerate(parts) if OmegaConf.select(part, key) is not None]
        named = f"{parts[setting[-1]][0]}: " if setting and setting[-1] < files else ""
        raise UserError(f"{named}{error}") from None


def _node(schema: type) -> DictConfig:
    """Return a dataclass's options and defaults as a node that can be merged into, though the dataclass is frozen."""
    node = OmegaConf.structured(schema)
    _open(node)
    return node


def _open(node: DictConfig) -> None:
    """Remove the read-only marks that omegaconf puts on the nodes of frozen dataclasses."""
    OmegaConf.set_readonly(node, None)
    for part in _parts(node).values():
        _open(part)


def _parts(node: DictConfig) -> dict[str, DictConfig]:
    """Return {key: node} of the nested groups of options in `node`."""
    children = {str(key): node[key] for key in node if not OmegaConf.is_missing(node, key)}
    return {key: child for key, child in children.items() if isinstance(child, DictConfig)}


def _build(node: DictConfig, prefix: str = "") -> Any:
    """Return the dataclass instance of a node; a value out of its range is named by its whole dotted key.

    Inner parts are built first, so that the error comes from the part that has the option, and its prefix is the right one.
    """
    for key, part in _parts(node).items():
        _build(part, f"{prefix}{key}.")
    try:
        return OmegaConf.to_object(node)
    except OptionError as error:
        raise UserError(f"{prefix}{error}") from None


def load_yaml(path: Path) -> DictConfig:
    """Return the content of a yaml file; raise UserError unless it is readable yaml of `option: value` lines."""
    try:
        loaded = OmegaConf.load(io.StringIO("\n".join(read_lines(path))))
        if not isinstance(loaded, DictConfig):
            raise UserError(
                f"configuration {path} does not have the form `option: value`; write each option on a line of this form"
            )
        refuse_variables(str(path), flat(loaded))
        return loaded
    except UserError:
        raise
    except Exception as error:  # yaml and omegaconf each raise errors of their own
        raise UserError(f"configuration {path} is not yaml: {' '.join(str(error).split())}") from None


def _checked(merge: Callable[[], Any], where: str) -> Any:
    """Return what `merge` returns; raise UserError, which begins with `where`, in place of omegaconf's errors."""
    try:
        return merge()
    except ConfigKeyError as error:
        key = str(error.full_key or error.key)
        parent = error.parent_node
        known = [str(k) for k in parent] if parent is not None else []
        raise UserError(f"{where}: there is no option '{key}'; {suggest(key.split('.')[-1], known)}") from None
    except (OmegaConfBaseException, ValueError, TypeError) as error:
        reason = str(error).splitlines()[0]  # omegaconf adds lines with its own types and keys
        if "is not a ListConfig" in reason or isinstance(error, TypeError):
            reason = "takes a list, such as [a,b]"
        elif "ListConfig" in reason or "DictConfig" in reason:
            reason = "takes a single value, no list and no options of its own"
        full_key = getattr(error, "full_key", None)
        raise UserError(f"{where}: {f'{full_key}: ' if full_key else ''}{reason}") from None


def with_option(config: C, key: str, value: Any) -> C:
    """Return a copy of the dataclass `config` in which the option of the dotted `key` has another value."""
    name, _, rest = key.partition(".")
    changed: Any = {name: with_option(getattr(config, name), rest, value) if rest else value}
    return replace(config, **changed)  # type: ignore[type-var]  # no bound of C can require a dataclass


def to_yaml(options: Any) -> str:
    """Return the yaml, as `--config` reads it, of a dataclass or of nested dictionaries."""
    return OmegaConf.to_yaml(options)


def parse_yaml(text: str) -> dict[str, Any]:
    """Return {option: value} of yaml text, read as `--config` reads files: 1e-5 is a number."""
    return OmegaConf.to_container(OmegaConf.create(text))  # type: ignore[return-value]  # the text is a mapping


def parse_words(words: Iterable[str]) -> dict[str, Any]:
    """Return nested dictionaries of `key=value` arguments: {"optim": {"clip": 1.0}} of optim.clip=1.0."""
    return OmegaConf.to_container(OmegaConf.from_dotlist(list(words)))  # type: ignore[return-value]  # a mapping too


def flat(config: Any, prefix: str = "") -> dict[str, Any]:
    """Return {dotted key: value} of a dataclass, of nested dictionaries or of a node that was read from a file."""
    nested: Any = OmegaConf.to_container(config) if isinstance(config, DictConfig) else config
    options: dict[str, Any] = {}
    for key, value in (nested if isinstance(nested, dict) else asdict(nested)).items():
        name = f"{prefix}{key}"
        options |= flat(value, f"{name}.") if isinstance(value, dict) else {name: value}
    return options
