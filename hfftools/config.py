"""Merge yaml files and `key=value` arguments into one checked configuration, and find plug-ins by name."""

import importlib
import pkgutil
from collections.abc import Iterable
from importlib.resources import files
from pathlib import Path
from types import ModuleType
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigKeyError, OmegaConfBaseException

from hfftools.expdir import write_text
from hfftools.log import UserError, require, suggest


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


def resolve(
    schema: type, sources: Iterable[Path], overrides: Iterable[str], rooms: dict[str, str] | None = None
) -> Any:
    """Merge yaml files, then `key=value` arguments, over the dataclass `schema`; the result is checked and read-only.

    `rooms` maps a dotted key such as `fuse` to the room whose plug-in's own Config it takes, chosen by its `name`.
    Raises UserError that names an unknown key and the known ones, or a value of the wrong type.
    """
    parts = [(str(path), _load(path)) for path in sources]
    for word in overrides:
        if "=" not in word or word.startswith("-"):
            raise UserError(f"'{word}' is not of the form key=value")
        given = f'{word}""' if word.endswith("=") else word  # nothing after the sign is an empty text
        parts.append((word, _checked(lambda given=given: OmegaConf.from_dotlist([given]), word)))
    merged = OmegaConf.structured(schema)
    for key, room in (rooms or {}).items():
        named = [OmegaConf.select(part, f"{key}.name") for _, part in parts]
        name = next((n for n in reversed(named) if n), OmegaConf.select(merged, f"{key}.name"))
        OmegaConf.update(merged, key, OmegaConf.structured(plugin(room, str(name)).Config), force_add=True)
    for where, part in parts:
        merged = _checked(lambda merged=merged, part=part: OmegaConf.merge(merged, part), where)
        for key in rooms or {}:
            require(isinstance(merged[key], DictConfig), f"{where}: {key} takes a name and options, as in {key}.name=…")
    OmegaConf.to_object(merged)  # the dataclasses check their ranges
    OmegaConf.set_readonly(merged, True)
    return merged


def _load(path: Path) -> DictConfig:
    try:
        loaded = OmegaConf.load(path)
        require(isinstance(loaded, DictConfig), f"configuration {path} is not a list of `option: value` lines")
        return loaded
    except UserError:
        raise
    except FileNotFoundError:
        raise UserError(f"configuration {path} does not exist") from None
    except Exception as error:
        raise UserError(f"configuration {path} is not yaml: {' '.join(str(error).split())}") from None


def _checked(merge: Any, where: str) -> DictConfig:
    try:
        return merge()
    except ConfigKeyError as error:
        key = str(error.full_key or error.key)
        parent = error.parent_node
        known = [str(k) for k in parent] if parent is not None else []
        raise UserError(f"{where}: there is no option '{key}'; {suggest(key.split('.')[-1], known)}") from None
    except (OmegaConfBaseException, ValueError) as error:
        reason = str(error).splitlines()[0]
        if "ListConfig" in reason:
            reason = "takes a list, such as [a,b]"
        key = getattr(error, "full_key", None)
        raise UserError(f"{where}: {f'{key}: ' if key else ''}{reason}") from None


def compare_config(config: DictConfig, path: Path, may_differ: Iterable[str] = ()) -> None:
    """Raise UserError that names every option whose value differs from the one recorded in `path`, if that file exists.

    Options in `may_differ` (dotted keys) do not change what is learned. An option that the file lacks was added to hff
    after the file was written, and counts as having had its default.
    """
    if not path.exists():
        return
    old, new = flat(OmegaConf.structured(OmegaConf.get_type(config))) | flat(_load(path)), flat(config)
    changed = [k for k in sorted(old.keys() | new.keys()) if old.get(k) != new.get(k) and k not in may_differ]
    if changed:
        words = ", ".join(f"{k} was {old.get(k)!r} and is now {new.get(k)!r}" for k in changed)
        raise UserError(
            f"{path}: this experiment started with other options: {words}; use another folder, or set them back"
        )


def with_option(config: DictConfig, key: str, value: Any) -> DictConfig:
    """Return a read-only copy of `config` in which the option of the dotted `key` has another value."""
    changed = config.copy()
    OmegaConf.set_readonly(changed, False)
    OmegaConf.update(changed, key, value)
    OmegaConf.set_readonly(changed, True)
    return changed


def recorded_option(config: DictConfig, key: str, path: Path) -> DictConfig:
    """Return `config` in which the option `key`, where it is `auto`, has the value that the file `path` recorded for it.

    A run that resumes on another machine thus keeps what was chosen when it started. Without the file nothing changes.
    """
    if OmegaConf.select(config, key) != "auto" or not path.exists():
        return config
    recorded = OmegaConf.select(_load(path), key)
    return config if recorded is None else with_option(config, key, recorded)


def save_config(config: DictConfig, path: Path) -> None:
    """Write `config` to `path`; called once everything that it names has been checked."""
    write_text(path, OmegaConf.to_yaml(config))


def flat(config: Any, prefix: str = "") -> dict[str, Any]:
    """Return {dotted key: value} of a nested configuration."""
    found: dict[str, Any] = {}
    for key, value in (OmegaConf.to_container(config) if isinstance(config, DictConfig) else config).items():
        name = f"{prefix}{key}"
        found |= flat(value, f"{name}.") if isinstance(value, dict) else {name: value}
    return found
