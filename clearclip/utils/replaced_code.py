"""Whether functions, classes and constants in memory were replaced since they were imported."""

from __future__ import annotations

import sys
import sysconfig
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any

import torch

from clearclip.utils.installed_code import COMPARED_PACKAGES, installed_files, recorded_files

_PACKAGES = ("clearclip", *COMPARED_PACKAGES.values())
_WATCHED_MODULES = ("torch", "torch.nn.functional", "torch.nn.modules.module", "numpy", "cv2", "PIL.Image")
_FUNCTIONS_OF_CLASSES = (property, staticmethod, classmethod)
_CONSTANT_TYPES = (str, int, float, tuple, dict, list, set)
_STANDARD_LIBRARY = sysconfig.get_paths()["stdlib"]
_PYTORCH = f"{Path(torch.__file__).parent}/"


class ImportedCode:
    """What the watched modules, and the classes in them, held when this object was made.

    Of modules that are imported later only functions of no installed file are noticed: whether somebody has changed
    defaults or constants there in the meantime cannot be known.
    """

    def __init__(self) -> None:
        self._namespaces = {name: dict(namespace) for name, namespace in _namespaces()}
        self._functions: list[tuple[str, FunctionType, tuple]] = []
        self._constants: dict[str, Any] = {}
        for name, namespace in self._namespaces.items():
            for member_name, member in namespace.items():
                if isinstance(member, FunctionType):
                    self._functions.append((f"{name}.{member_name}", member, _identities(member)))
            self._constants.update(_constants(name, namespace))

    def replaced(self) -> list[str]:
        """The names of what is another one since, and of functions that no installed file defines."""
        names = set()
        for name, function, identities in self._functions:
            if _identities(function) != identities:
                names.add(name)
        for name, namespace in _namespaces():
            imported_members = self._namespaces.get(name, {})
            for member_name, member in list(namespace.items()):
                imported = imported_members.get(member_name)
                if imported is not member and _is_replaced(imported, member):
                    names.add(f"{name}.{member_name}")
            for constant, value in _constants(name, namespace).items():
                if self._constants.get(constant, value) != value:
                    names.add(constant)
        return sorted(names)


def _identities(function: FunctionType) -> tuple:
    """What of a function may be replaced in place; defaults count by their identity."""
    keyword_defaults = function.__kwdefaults__ or {}
    identities = tuple((name, id(value)) for name, value in keyword_defaults.items())
    return function.__code__, id(function.__defaults__), identities


def _namespaces() -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The members of all watched modules, and of the classes that they define."""
    for name, module in list(sys.modules.items()):
        if isinstance(module, ModuleType) and (name.startswith(_PACKAGES) or name in _WATCHED_MODULES):
            yield name, vars(module)
            yield from _class_namespaces(name, vars(module), name)


def _class_namespaces(name: str, members: Mapping[str, Any], module: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for member_name, member in list(members.items()):
        # What a module imports is looked at where it is defined.
        if isinstance(member, type) and member.__module__ == module:
            yield f"{name}.{member_name}", vars(member)
            yield from _class_namespaces(f"{name}.{member_name}", vars(member), module)


def _constants(name: str, namespace: Mapping[str, Any]) -> dict[str, Any]:
    """The constants of one of this package's modules by their names; a container that is empty may be a cache."""
    if not name.startswith("clearclip") or name not in sys.modules:
        return {}
    constants = {}
    for member_name, member in list(namespace.items()):
        if type(member) in _CONSTANT_TYPES and member and "__" not in member_name:
            constants[f"{name}.{member_name}"] = _frozen(member)
    return constants


def _frozen(value: Any) -> Any:
    """What a constant holds; objects in it count by their identity."""
    if type(value) is dict:
        return tuple((_frozen(key), _frozen(member)) for key, member in value.items())
    if type(value) in (tuple, list, set):
        return tuple(_frozen(member) for member in value)
    return value if isinstance(value, str | int | float) else id(value)


def _is_replaced(imported: Any, member: Any) -> bool:
    """Whether a member is code in the place of other code or of nothing, where that is nobody's that we know."""
    if callable(imported) or isinstance(imported, _FUNCTIONS_OF_CLASSES):
        # PyTorch wraps some of its functions when they are first used.
        return not (isinstance(member, FunctionType) and member.__code__.co_filename.startswith(_PYTORCH))
    return _is_foreign(member)


def _is_foreign(member: Any) -> bool:
    """Whether something is a function of no installed file."""
    if not isinstance(member, FunctionType):
        return False
    file = member.__code__.co_filename
    # Python makes some functions itself, of dataclasses for example, and has modules frozen into it.
    if file == "<string>" or file.startswith((_STANDARD_LIBRARY, "<frozen ")):
        return False
    return file not in recorded_files() and file not in installed_files()
