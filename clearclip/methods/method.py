"""What a method is: it computes the last blocks of a ViT, and is found by its name.

A method of your own is a class in your own file (see docs/your_own_method.md):

    @METHODS.register_module("MyMethod")
    @dataclass(frozen=True)
    class MyMethod(Method):
        sigma: float = 5.0

        def __call__(self, blocks, x, context):
            ...

From an image to its labels there are five stages. The first three are a method's, and have defaults but for the first:

1. :meth:`Method.__call__`: tokens before the last blocks to tokens after them, and by the tower's head to features;
2. :meth:`Method.scores`: features of a window to scores of the words;
3. :meth:`Method.join`: scores of all windows to a map of the image;
4. a post-processing (:mod:`clearclip.windows.post_processing`), if one is asked for;
5. the readout (:mod:`clearclip.windows.readout`): scores to labels and probabilities.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from clearclip.methods.block_parts import BlockParts
from clearclip.utils.errors import UserError
from clearclip.utils.registry import Configurable, Registry, option  # noqa: F401 (methods import it from here)
from clearclip.utils.validators import did_you_mean
from clearclip.windows.joining import ImageContext, join_windows
from clearclip.windows.score_map import ScoreMap
from clearclip.windows.window_grid import WindowGrid


@dataclass(frozen=True)
class Context:
    """What a method may look at beside the tokens.

    Attributes:
        grid_size: rows and columns of patches; N = rows × columns.
        num_prefix_tokens: P, the tokens before the patches: the class token if there is one, then registers if any.
        inputs: index of a block (from 0) → the tokens before it, (B, P + N, D), for every block that the method asked
            for in :meth:`Method.required_blocks`.
        embed: patch tokens after the last block, (B, N, D), to their embeddings in the space of the text, (B, N, E).
        text: for methods that need "text": the words' features, (words, E) float32, of length 1.
        image: for methods that need "image": the windows as the model sees them, (B, 3, H, W) float32, normalised.
        second: for methods that need "second encoder": its features of the same windows,
            (B, its rows, its columns, C), not normalised.
        feedback: a factor and what is added, (B, 1, P + N, P + N): what an :class:`AttentionMethod` makes of the
            logits of its attention, where SFR wraps it.
        shared: what methods computed in this pass; see :meth:`once`.
    """

    grid_size: tuple[int, int]
    num_prefix_tokens: int = 1
    inputs: Mapping[int, Tensor] = field(default_factory=dict)
    embed: Callable[[Tensor], Tensor] | None = None
    text: Tensor | None = None
    image: Tensor | None = None
    second: Tensor | None = None
    feedback: tuple[float, Tensor] | None = None
    shared: dict[Hashable, Any] = field(default_factory=dict)

    def once(self, key: Hashable, compute: Callable[[], Any]) -> Any:
        """What ``compute`` gives, computed by the first of the methods in a pass that asks for this key."""
        if key not in self.shared:
            self.shared[key] = compute()
        return self.shared[key]


#: What a method may need → where :class:`Context` has it.
NEEDS = {"text": "text", "image": "image", "second encoder": "second"}


#: Which features of which second encoder: name, weights, and what is taken of it.
SecondEncoderKey = tuple[str | None, str | None, str]


#: What classes of earlier versions may define → what it is called now.
_PRESENT_NAMES = {
    "keeping": "with_residual_and_ffn() and without_residual_and_ffn()",
    "guide_features": "second_encoder_features",
}


class Method(Configurable):
    """How the last blocks are computed. Subclasses are frozen dataclasses, whose fields are the method's options.

    Raises:
        UserError: a value that the check of its :func:`option` does not let through.
    """

    depth = 1  # blocks from the end that the method computes itself
    position_resize = "scale_factor"  # of positional embeddings: also "size", "size without antialias"
    # Options named after its work, since records and configs hold these names; all else calls it the second encoder.
    guide: str | None = None  # which second encoder
    guide_weights: str | None = None  # a file, or "random"; None means the published ones
    second_encoder_features = "output"  # of the second encoder: "output", or "values": those of its last block
    needs_class_token = False  # the method reads the class token, the first one
    multiple: int | None = None  # windows are padded to multiples of so many pixels; None means the patch
    incomplete_windows: str | None = None  # what is done about windows with an incomplete patch; None: the model's way
    keeps: Collection[str] = ()  # features of all windows that :meth:`join` reads: "features", "second encoder"

    def __init_subclass__(cls, **options: Any):
        super().__init_subclass__(**options)
        # Nothing reads these any more: the method would compute something else, and nobody would notice.
        for earlier_name, present_names in _PRESENT_NAMES.items():
            if earlier_name in vars(cls):
                raise UserError(f"{cls.__name__}.{earlier_name} is now {present_names}; rename it")

    @property
    def needs(self) -> Collection[str]:
        """Keys of :data:`NEEDS`. Subclasses set it, or compute it."""
        return ()

    @property
    def needs_same_tokens(self) -> bool:
        """Whether the method mixes tokens of several blocks, which must stand for the same places."""
        return False

    def __call__(self, blocks: Sequence[BlockParts], x: Tensor, context: Context) -> Tensor:
        """Compute the last ``depth`` blocks.

        Args:
            blocks: the parts of all blocks, in order.
            x: (B, P + N, D): the tokens before block ``len(blocks) - depth``.
            context: grid of patches, and tokens of earlier blocks.

        Returns:
            (B, P + N, D): the tokens after the last block; N is that of :meth:`grid_size`.
        """
        raise NotImplementedError

    def scores(self, features: Tensor, context: Context) -> Tensor:
        """How much each patch is like each word: by default their cosine similarity.

        Args:
            features: of windows, (B, h, w, E), not normalised.
            context: as for :meth:`__call__`, with ``text``, but without ``inputs``.

        Returns:
            (B, h', w', words) float32; h' and w' are those of the features unless the method has others.
        """
        return F.normalize(features.float(), dim=-1) @ context.text.T

    def join(self, windows: Tensor, grid: WindowGrid, context: ImageContext) -> ScoreMap:
        """One map of the image, after its last window: by default the mean where windows overlap.

        Args:
            windows: scores of all windows, (windows, h, w, words) float32, windows row by row.
            grid: where the windows lie.
            context: what is known of the image; ``context.features`` has what :attr:`keeps` names.
        """
        return join_windows(windows, grid, context)

    def grid_size(self, context: Context) -> tuple[int, int]:
        """Rows and columns of the patches that :meth:`__call__` returns: those that it gets, unless it has its own."""
        return context.grid_size

    def required_blocks(self, blocks: int) -> Collection[int]:
        """Which blocks' input tokens the method needs, of a model with so many blocks; counted from 0.

        Raises:
            UserError: the model has too few blocks.
        """
        return ()

    def with_residual_and_ffn(self) -> Method:
        """This method with the last block's residual connection and FFN.

        Raises:
            UserError: the method has no such variant.
        """
        raise UserError(f"{self.label} has no variant with residual connection and FFN; leave ignore_residual out")

    def without_residual_and_ffn(self) -> Method:
        """This method without the last block's residual connection and FFN: what "+ ClearCLIP" stands for.

        Raises:
            UserError: the method has no such variant.
        """
        return self

    def with_options(self, options: Mapping[str, Mapping[str, Any]]) -> Method:
        """This method, and its base if it has one, with options given by the method's name; others are left out."""
        return self._with(options, only_none=False)

    def completed(self, options: Mapping[str, Mapping[str, Any]]) -> Method:
        """The same for a model's own values: only of options that are None."""
        return self._with(options, only_none=True)

    def _with(self, options: Mapping[str, Mapping[str, Any]], only_none: bool) -> Method:
        new_values: dict[str, Any] = {}
        for name, value in options.get(self.name, {}).items():
            if getattr(self, name) is None or not only_none:
                new_values[name] = value
        base = getattr(self, "base", None)
        if isinstance(base, Method):
            new_base = base._with(options, only_none)
            if new_base != base:
                new_values["base"] = new_base
        # The object itself where nothing is new: methods of a pass are known by their identity.
        return replace(self, **new_values) if new_values else self

    @property
    def second_encoder_key(self) -> SecondEncoderKey:
        """Which features of which second encoder."""
        return self.guide, self.guide_weights, self.second_encoder_features

    @property
    def label(self) -> str:
        """The method's name in tables: its base if it has one, its registered name, and in brackets the options that
        are not the default.
        """
        options = self.options
        base = options.pop("base", None)
        # A dataclass keeps the defaults of its fields as attributes of the class.
        defaults = type(self)
        settings = [
            f"{key}={short_text(value)}" for key, value in options.items() if value != getattr(defaults, key, None)
        ]
        label = f"{self.name} ({', '.join(settings)})" if settings else self.name
        if isinstance(base, Method):
            return f"{base.label} + {label}"
        return label


METHODS: Registry[Method] = Registry()
Method.registry = METHODS


def short_text(value: Any) -> str:
    """A value in a label: different ones look different."""
    if isinstance(value, tuple | list):
        return ",".join(map(short_text, value))
    # Its text would be an address in memory, another one in each run.
    if callable(value):
        return getattr(value, "__qualname__", type(value).__name__)
    # 2 and not 2.0; but never so short that two numbers look alike.
    if isinstance(value, float) and float(f"{value:g}") == value:
        return f"{value:g}"
    return str(value)


def block_numbers(name: str, value: Any) -> tuple[int, ...] | None:
    """A check: block numbers from 0, as a tuple; or None."""
    if value is None:
        return None
    numbers = tuple(value) if isinstance(value, list | tuple) else ()
    # By the type itself: True is an instance of int.
    if not numbers or not all(type(number) is int and number >= 0 for number in numbers):
        raise UserError(f"{name} must be block numbers, counted from 0, not {value!r}")
    return numbers


def any_method(name: str, value: Any) -> Method:
    """A check: what :func:`build_method` takes, as a method."""
    return build_method(value)


def build_method(method: str | Mapping[str, Any] | Method) -> Method:
    """A method from its description.

    Args:
        method: a name as in the tables ("MaskCLIP", "MaskCLIP + ClearCLIP", "NACLIP + RCS"), a dict with the
            registered name (or the class) as "type" and its options, or a method.

    Raises:
        UserError: an unknown name or option; lists the known ones.
    """
    if isinstance(method, Method):
        return method
    if isinstance(method, str):
        text = method.strip()
        # A shell has no dicts; on a command line they are JSON.
        return _method_of_json(text) if text.startswith("{") else _method_of_name(text)
    if isinstance(method, Mapping) and "type" not in method:
        raise UserError(f"{dict(method)} has no type: which method are these options of? Such as type=ClearCLIP")
    if not isinstance(method, Mapping):
        raise UserError(
            f"a method is a name or a dict with 'type', not {method!r}; choose from {', '.join(method_names())}"
        )
    options = {str(key): value for key, value in method.items() if key != "type"}
    return _build(method["type"], options)


def method_names() -> list[str]:
    """The registered names, as a reader looks for them: whatever their capitals."""
    return sorted(METHODS, key=str.lower)


def _build(method_type: Any, options: dict[str, Any]) -> Method:
    """A method of a registered name, or of a class, with these options.

    Raises:
        UserError: an unknown name or option.
    """
    if not isinstance(method_type, str) and not callable(method_type):
        raise UserError(f"a method's type is its name, not {method_type!r}; choose from {', '.join(method_names())}")
    factory = METHODS.get(method_type) if isinstance(method_type, str) else method_type
    if factory is None:
        raise UserError(
            f"unknown method {method_type!r}; {did_you_mean(method_type, method_names())} "
            "(one of your own is known once its file is imported: --import FILE)"
        )
    # A registered method may be a class with some options set already (SCLIP).
    method_class = getattr(factory, "func", factory)
    if is_dataclass(method_class):
        names = [option_field.name for option_field in fields(method_class)]
        for name in options:
            if name not in names:
                raise UserError(f"{method_type} has no option {name!r}; {did_you_mean(name, names)}")
    try:
        return factory(**options)
    except TypeError as error:
        raise UserError(f"method {method_type} does not take {options}: {error}") from error


def _method_of_json(text: str) -> Method:
    try:
        description = json.loads(text)
    except ValueError as error:
        raise UserError(f"method {text} is not valid JSON ({error})") from error
    return build_method(description)


def _method_of_name(text: str) -> Method:
    """ "A + B": a method with an addition, which is "ClearCLIP" or a method that has another one as its base."""
    first_name, *additions = (name.strip() for name in text.split("+"))
    method = _build(first_name, {})
    # CLIP's row of the paper's table has q-q attention where ClearCLIP is added; all others keep their attention.
    if method == METHODS["CLIP"]() and additions[:1] == ["ClearCLIP"]:
        method = METHODS["ClearCLIP"]()
        additions = additions[1:]
    for name in additions:
        if name == "ClearCLIP":
            method = method.without_residual_and_ffn()
        else:
            method = _build(name, {"base": method})
    return method
