"""What a method returns is what it must return: a mistake in a method of one's own is one line that names it.

Only types and shapes are looked at: for values a GPU would be waited for.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from clearclip.methods.method import Method
from clearclip.utils.errors import UserError
from clearclip.windows.score_map import ScoreMap


def check_returned_tokens(method: Method, tokens: Any, block_input: Tensor, prefix: int, grid: tuple[int, int]) -> None:
    """Check what :meth:`Method.__call__` returned.

    Args:
        method: that was called.
        tokens: what it returned; (B, P + rows · columns, D) is right.
        block_input: the tokens that it was given, (B, P + N, D).
        prefix: P, the number of tokens before the patches.
        grid: rows and columns of the method's patches.

    Raises:
        UserError: it is no such tensor.
    """
    batch, _, width = block_input.shape
    shape = (batch, prefix + grid[0] * grid[1], width)
    if not isinstance(tokens, Tensor) or tuple(tokens.shape) != shape:
        raise UserError(
            f"{method.label} must return tokens as it is given them, a tensor of shape {shape}, "
            f"not {_in_words(tokens)}; see docs/your_own_method.md"
        )


def check_scores(method: Method, scores: Any, windows: int, words: int) -> None:
    """Check what :meth:`Method.scores` returned: (windows, rows, columns, words).

    Raises:
        UserError: it is no such tensor.
    """
    is_right = isinstance(scores, Tensor) and scores.dim() == 4 and (len(scores), scores.shape[3]) == (windows, words)
    if not is_right:
        raise UserError(
            f"scores() of {method.label} must return a tensor of shape ({windows}, rows, columns, {words} words), not "
            f"{_in_words(scores)}; see docs/your_own_method.md"
        )


def check_score_map(method: Method, score_map: Any) -> None:
    """Check what :meth:`Method.join` returned.

    Raises:
        UserError: it is no :class:`~clearclip.windows.ScoreMap`.
    """
    if not isinstance(score_map, ScoreMap):
        raise UserError(
            f"join() of {method.label} must return a ScoreMap, as join_windows() does, not {_in_words(score_map)}; "
            "see docs/your_own_method.md"
        )


def _in_words(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"one of shape {tuple(value.shape)}"
    return f"{type(value).__name__}"
