"""``KEY=VALUE`` options of a command line, such as ``--cfg-options model.prob_thd=0.1``."""

from __future__ import annotations

import argparse
import ast
from collections.abc import Sequence
from typing import Any


class KeyValues(argparse.Action):
    """Collects ``key=value`` words in a dict. Values are Python literals, MMEngine's lists, or text as it stands."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        words: Sequence[str] = values
        options = dict(getattr(namespace, self.dest, None) or {})
        for word in words:
            key, equals, text = word.partition("=")
            if not equals:
                parser.error(f"{option_string}: {word!r} is not key=value, such as model.model_type=SCLIP")
            options[key] = parse_value(text)
        setattr(namespace, self.dest, options)


def parse_value(text: str) -> Any:
    """The value that a word of a command line stands for: ``0.1``, ``[1, 2]``, ``True`` or the text itself."""
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        pass
    looks_like_list = "," in text or text[:1] in ("[", "(")
    if " " in text or not looks_like_list:
        return text
    # Only lists of bare words need MMEngine's grammar, and loading MMEngine takes a while.
    from mmengine.config import DictAction

    try:
        return DictAction._parse_iterable(text)
    except AssertionError:  # unbalanced brackets
        return text
