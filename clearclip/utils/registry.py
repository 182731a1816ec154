"""What methods and post-processings have in common: frozen dataclasses with checked options, found by their names."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import field, fields, is_dataclass
from typing import Any, Generic, TypeVar

from clearclip.utils.validators import Check

Plugin = TypeVar("Plugin", bound="Configurable")


def option(default: Any, check: Check, **metadata: Any) -> Any:
    """A field of a dataclass that is an option: its default, the check of its values, and what else is said of it.

    Args:
        default: the option's default.
        check: of :mod:`clearclip.utils.validators`; raises a UserError for a value that cannot be meant.
        **metadata: kept in the field's ``metadata``.
    """
    return field(default=default, metadata={"check": check, **metadata})


class Registry(dict[str, Callable[..., Plugin]], Generic[Plugin]):
    """Classes by the names under which users ask for them."""

    def register_module(self, name: str | None = None, module: Callable[..., Plugin] | None = None) -> Callable:
        """Register a class (as a decorator, or given as ``module``) under ``name``, by default its own name.

        Raises:
            KeyError: the name is taken.
        """

        def register(module: Callable[..., Plugin]) -> Callable[..., Plugin]:
            key = name or module.__name__
            # Silently replaced, a method's name in an old config would mean another method.
            if key in self:
                raise KeyError(f"{key} is already registered")
            self[key] = module
            return module

        return register if module is None else register(module)


class Configurable:
    """A frozen dataclass whose fields are options.

    Subclasses set ``registry``, where their names are found.

    Raises:
        UserError: a value that the check of its :func:`option` does not let through.
    """

    registry: Registry

    def __post_init__(self):
        for option_field in fields(self):
            check = option_field.metadata.get("check")
            if check is not None:
                value = check(f"{option_field.name} of {self.name}", getattr(self, option_field.name))
                # The way around the frozen dataclass, which would refuse a value that the check has converted.
                object.__setattr__(self, option_field.name, value)

    @property
    def options(self) -> dict[str, Any]:
        """The options by name."""
        if is_dataclass(self):
            return {option_field.name: getattr(self, option_field.name) for option_field in fields(self)}
        # A user's own class with an __init__ of its own.
        return dict(vars(self))

    @property
    def name(self) -> str:
        """The name that the class is registered under; its own where it is not registered."""
        for name, registered in self.registry.items():
            if registered is type(self):
                return name
        return type(self).__name__

    @property
    def settings(self) -> dict[str, Any]:
        """The registered name as "type", and every option, as plain data that a config can hold."""
        values = {name: _as_config_value(value) for name, value in self.options.items()}
        return {"type": self.name, **values}


def _as_config_value(value: Any) -> Any:
    if isinstance(value, Configurable):
        return value.settings
    if isinstance(value, tuple):
        return list(value)
    return value
