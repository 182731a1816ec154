"""In processes that tests start: this source counts as a released one, as it does in the tests' own process."""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import sys
from importlib.machinery import ModuleSpec
from types import ModuleType

MODULE = "clearclip.utils.installed_code"


class ReleasedSource(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds one module as Python does, and adds the source to its released ones as soon as it is loaded."""

    loader: importlib.abc.Loader

    def find_spec(self, fullname: str, path: object = None, target: object = None) -> ModuleSpec | None:
        if fullname != MODULE:
            return None
        specification = importlib.machinery.PathFinder.find_spec(fullname, path)
        self.loader, specification.loader = specification.loader, self
        return specification

    def exec_module(self, module: ModuleType) -> None:
        self.loader.exec_module(module)
        module.NUMERICS["released"].append(module.source_digest())


sys.meta_path.insert(0, ReleasedSource())
