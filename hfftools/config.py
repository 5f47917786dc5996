"""Configuration: yaml files and `key=value` arguments in, one checked OmegaConf config out; plug-ins found by name."""

import importlib
import pkgutil
from collections.abc import Iterable
from importlib.resources import files
from pathlib import Path
from types import ModuleType
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigKeyError, OmegaConfBaseException

from hfftools.log import UserError, suggest


def plugin(room: str, name: str) -> ModuleType:
    """The module hfftools/<room>/<name>.py; UserError with suggestions where there is none."""
    package = importlib.import_module(f"hfftools.{room}")
    known = [m.name for m in pkgutil.iter_modules(package.__path__)]
    if name not in known:
        raise UserError(f"there is no {room.split('.')[-1]} '{name}'; {suggest(name, known)}")
    return importlib.import_module(f"hfftools.{room}.{name}")


def conf_file(kind: str, name: str) -> Path:
    """The packaged yaml conf/<kind>/<name>.yaml; UserError with suggestions where there is none."""
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
    given = OmegaConf.create()
    for path in sources:
        given = _checked(lambda path=path, given=given: OmegaConf.merge(given, _load(path)), str(path))
    for word in overrides:
        if "=" not in word or word.startswith("-"):
            raise UserError(f"'{word}' is not of the form key=value")
        given = _checked(lambda word=word, given=given: OmegaConf.merge(given, OmegaConf.from_dotlist([word])), word)
    config = OmegaConf.structured(schema)
    for key, room in (rooms or {}).items():
        name = OmegaConf.select(given, f"{key}.name") or OmegaConf.select(config, f"{key}.name")
        OmegaConf.update(config, key, OmegaConf.structured(plugin(room, name).Config), force_add=True)
    merged = _checked(lambda: OmegaConf.merge(config, given), "configuration")
    OmegaConf.set_readonly(merged, True)
    return merged


def _load(path: Path) -> DictConfig:
    try:
        return OmegaConf.load(path)
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
        key = getattr(error, "full_key", None)
        raise UserError(f"{where}: {f'{key}: ' if key else ''}{reason}") from None


def save_config(config: DictConfig, path: Path, may_differ: Iterable[str] = ()) -> None:
    """Freeze `config` into `path`; where one is there already, refuse every option that differs, by name.

    Options in `may_differ` (dotted keys) change nothing that is learned, and are taken over.
    """
    from hfftools.expdir import write_text

    if path.exists():
        old, new = _flat(OmegaConf.load(path)), _flat(config)
        changed = [k for k in sorted(old.keys() | new.keys()) if old.get(k) != new.get(k) and k not in may_differ]
        if changed:
            words = ", ".join(f"{k} was {old.get(k)!r} and is now {new.get(k)!r}" for k in changed)
            raise UserError(
                f"{path}: this experiment was begun with other options: {words}; use another folder or put them back"
            )
    write_text(path, OmegaConf.to_yaml(config))


def _flat(config: Any, prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in (OmegaConf.to_container(config) if isinstance(config, DictConfig) else config).items():
        name = f"{prefix}{key}"
        flat |= _flat(value, f"{name}.") if isinstance(value, dict) else {name: value}
    return flat
