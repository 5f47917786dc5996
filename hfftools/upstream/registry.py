"""Find the modules of this folder that define something: what a new module brings is known without a list of modules."""

import importlib
import pkgutil
from types import ModuleType

import hfftools.upstream


def modules_with(attribute: str) -> list[ModuleType]:
    """Return the modules of hfftools/upstream that have a top-level `attribute`, in the order of their file names."""
    names = [module.name for module in pkgutil.iter_modules(hfftools.upstream.__path__)]
    modules = [importlib.import_module(f"hfftools.upstream.{name}") for name in names]
    return [module for module in modules if attribute in vars(module)]
