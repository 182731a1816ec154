"""Which methods are the user's own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from clearclip.methods import Method
from clearclip.utils.installed_code import is_recorded


def nested_methods(method: Method) -> Iterator[Method]:
    """A method and those that it holds, in any of its attributes, in lists and dicts as well."""
    yield method
    pending = list(vars(method).values())
    while pending:
        value = pending.pop()
        if isinstance(value, Method):
            yield from nested_methods(value)
        elif isinstance(value, Mapping):
            pending.extend(value.values())
        elif isinstance(value, list | tuple | set):
            pending.extend(value)


def is_own_method(method: Method) -> bool:
    """Whether any part of a method is not one of this package's classes as its files define it."""
    for member in nested_methods(method):
        method_class = type(member)
        if not is_recorded(method_class) or not method_class.__module__.startswith("clearclip.methods."):
            return True
        # A function as an option, or in the place of one of the class's.
        if any(callable(value) and not isinstance(value, Method) for value in vars(member).values()):
            return True
    return False
