"""The options of :class:`~clearclip.ModelSettings` that ``demo.py``, its page and ``analyze.py`` have, too."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any, get_args, get_type_hints

from clearclip.model_settings import ModelSettings, options_with_flag

#: The options of a model that all command lines with a model have.
MODEL_FLAGS = options_with_flag("model")
#: The options of how much of an image the model sees, which the demo has.
SIZE_FLAGS = options_with_flag("size")
WORDS = 'what to look for: "sky, hill | mountain, tree" (, between classes, | between the words of one)'
_METAVARS = {int: "N", float: "X", str: "NAME"}


def add_model_options(group: argparse._ArgumentGroup, names: Sequence[str] = MODEL_FLAGS) -> None:
    """Add options of :class:`ModelSettings` to a command line. Those not given are not in its namespace."""
    hints = get_type_hints(ModelSettings)
    for name in names:
        flags = [f"--{name.replace('_', '-')}"]
        if name == "model_name":
            flags.append("--model")
        value_type = _value_type(hints[name])
        keywords: dict[str, Any] = {"type": value_type, "metavar": _METAVARS.get(value_type)}
        if value_type is bool:
            keywords = {"action": argparse.BooleanOptionalAction}
        # argparse fills in what follows a % sign.
        help_text = ModelSettings.help(name).replace("%", "%%")
        # Options that are not given are absent, so that a config's value or the model's own stays.
        group.add_argument(*flags, dest=name, default=argparse.SUPPRESS, help=help_text, **keywords)


def _value_type(hint: Any) -> type:
    """What a flag's text is converted to, for an option annotated ``int | None`` and the like."""
    # bool comes first: True is a whole number to Python.
    for value_type in (bool, int, float):
        if value_type in (hint, *get_args(hint)):
            return value_type
    return str


def model_options(args: argparse.Namespace) -> dict[str, Any]:
    """The options of the model that were given."""
    return {name: value for name, value in vars(args).items() if name in (*MODEL_FLAGS, *SIZE_FLAGS)}
