"""Every option of a model, once: name, type, default, check and meaning.

The segmentor's configs, :meth:`clearclip.ClearCLIP.from_pretrained`, the command lines, the identity by which a run is
resumed or found again and the tables all read :class:`ModelSettings`. A new option is declared by one more line in it,
which also says whether command lines have it; what follows the option reads it there.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clearclip.checkpoint_names import (
    CHECKPOINT_BY_MODEL_NAME,
    CHECKPOINTS,
    CLIP_TYPES,
    OPTIONS_BY_CLIP_TYPE,
    VIT_TYPES,
    named_checkpoint,
)
from clearclip.utils.errors import UserError
from clearclip.utils.precisions import PRECISIONS
from clearclip.utils.validators import Check, choice, did_you_mean, of_type

# Command lines read the options below before anything heavy is loaded. What loads PyTorch is imported where it is used.
if TYPE_CHECKING:
    from clearclip.methods import Method
    from clearclip.weights import Weights
    from clearclip.windows import PostProcessing, Readout

#: What is done about windows whose sides are no multiple of the patch:
#: "padded": zeros are put around them, and their part of the map is cut off again (ClearCLIP);
#: "stretched": they are resized to the next multiple, bicubically (TIPSv2, dino.txt);
#: "cut": what lies beyond the last full patch is not seen, and the map is stretched over it (NACLIP, SC-CLIP);
#: "extended": each encoder sees black at the right and below, and the map of all that is squeezed back (LPOSS).
INCOMPLETE_WINDOWS = ("padded", "stretched", "cut", "extended")
#: What is averaged where windows overlap: the scores of words, or their softmax in each window.
WINDOWS_JOINED_BY = ("similarities", "probabilities")
#: How the patches of a whole image become pixels of the original: resized to its size at once, or to the input's size
#: first, as windows are.
WHOLE_IMAGE_RESIZES = ("once", "twice")
#: Options of methods that earlier versions took beside ``method``, too.
_METHOD_OPTIONS = ("attention", "residual", "ffn", "alpha", "guide", "guide_weights")
_flag, _optional_flag, _text = of_type(bool), of_type(bool, None), of_type(str, None)


def _model_option(default: Any, check: Check, help: str, role: str = "result", flag: str = "") -> Any:
    """A field of :class:`ModelSettings`.

    Args:
        default: its default.
        check: raises a UserError for a value that cannot be meant.
        help: what it means.
        role: how it is part of what a run is known by. "weights", "precision" and "method" have facts of their own;
            "protocol" (what tables compare) and "result" change labels, and the former are recorded also at their
            default; "effort" changes no result of an evaluation.
        flag: whether it is an option of command lines: of all that have a model ("model"), of those that show a model
            whole images ("size"), or of none.
    """
    return field(default=default, metadata={"check": check, "help": help, "role": role, "flag": flag})


def _method_name(name: str, value: Any) -> str:
    """A check: the registered name of a method."""
    from clearclip.methods.method import method_names

    return choice(*method_names())(name, of_type(str)(name, value))


def _method_description(name: str, value: Any) -> Any:
    """A check: what :func:`clearclip.methods.build_method` takes, or None."""
    from clearclip.methods import Method

    return of_type(str, Mapping, Method, None)(name, value)


def _post_description(name: str, value: Any) -> Any:
    """A check: what :func:`clearclip.windows.build_post_processing` takes, or None."""
    from clearclip.windows import POST_PROCESSINGS, PostProcessing

    if isinstance(value, str):
        return choice(*POST_PROCESSINGS)(name, value)
    return of_type(Mapping, PostProcessing, None)(name, value)


@dataclass(frozen=True)
class ModelSettings:
    """The options of a model. ``ModelSettings.help(name)`` says what each one means.

    Raises:
        UserError: a value that cannot be meant; names the option and what it may be.
    """

    # fmt: off
    clip_type: str | None = _model_option(None, choice(None, *CLIP_TYPES),
        "whose weights (default: CLIP, OpenAI's)", role="weights", flag="model")
    vit_type: str | None = _model_option(None, choice(None, *VIT_TYPES),
        "size of the image tower (default: ViT-B/16)", role="weights", flag="model")
    model_name: str | os.PathLike | None = _model_option(None, of_type(str, os.PathLike, None),
        "overrides both: a name that open_clip.create_model takes, a model's folder, or miniature",
        role="weights", flag="model")
    pretrained: str | None = _model_option(None, of_type(str, os.PathLike, None),
        "an OpenCLIP tag, a file or folder, or random (default: the model's own weights)", role="weights", flag="model")
    pretrained_tag: str | None = _model_option(None, _text,
        "of a local file: the tag whose weights it holds, as you say; tables mark such results", role="weights")
    quick_gelu: bool | None = _model_option(None, _optional_flag,
        "force the activation, which otherwise follows the tag", role="weights", flag="model")
    model_type: str = _model_option("ClearCLIP", _method_name, "the method, by its registered name", role="method")
    ignore_residual: bool = _model_option(True, _flag,
        "drop the last block's residual connection and FFN, or keep both", role="method")
    method: Any = _model_option(None, _method_description,
        "overrides both: SCLIP + ClearCLIP, or a dict with type and the method's options", role="method")
    slide_crop: int = _model_option(448, of_type(int, low=0),
        "side of the windows in pixels; 0 takes the whole image at once", role="protocol", flag="model")
    slide_stride: int = _model_option(224, of_type(int, low=0),
        "step between windows in pixels", role="protocol", flag="model")
    incomplete_windows: str = _model_option("padded", choice(*INCOMPLETE_WINDOWS),
        "windows that are no multiple of the patch are padded, stretched, cut, or extended with black")
    whole_image_resize: str = _model_option("once", choice(*WHOLE_IMAGE_RESIZES),
        "of whole images: resize patches to the original size once, or twice: to the input's size first")
    windows_joined_by: str = _model_option("similarities", choice(*WINDOWS_JOINED_BY),
        "what is averaged where windows overlap: similarities, or their softmax over words in each window")
    logit_scale: float = _model_option(50.0, of_type(int, float, low=0),
        "factor of the similarities before the softmax over words", role="protocol")
    softmax: bool = _model_option(True, _flag,
        "take probabilities of the scores, or the scores themselves in their place")
    post: Any = _model_option(None, _post_description,
        "pamr refines the similarities by the image's colours, tlp smooths them where it has no edges",
        role="protocol", flag="model")
    tlp_grid: int = _model_option(80, of_type(int, low=1), "cells of each side of the grid that tlp works on, about")
    prob_thd: float = _model_option(0.0, of_type(int, float, low=0, high=1),
        "less probable pixels get label 0 (background)", role="protocol", flag="model")
    area_thd: float = _model_option(0.0, of_type(int, float, low=0, high=1),
        "classes that cover at most this share of what is not background are dropped")
    normalization: str | None = _model_option(None, choice(None, "openai", "pretrained"),
        "mean and std: openai, or pretrained: the weights' own (default: openai for clip_type, as published)")
    templates: str | os.PathLike = _model_option("imagenet80", of_type(str, os.PathLike),
        "prompts of a word: imagenet80, tips9, talk2dino7, one, or a file with a template a line, {} for the word",
        flag="model")
    precision: str = _model_option("auto", choice(*PRECISIONS),
        "auto: fp16 on CUDA, as published, and fp32 elsewhere", role="precision", flag="model")
    short_side: int | None = _model_option(448, of_type(int, None, low=1),
        "segment() resizes images to it; None keeps their size", role="effort", flag="size")
    long_side: int = _model_option(2048, of_type(int, low=1),
        "and to a long side of at most this", role="effort", flag="size")
    device: Any = _model_option(None, of_type(object),
        "cpu, cuda, cuda:N or mps (default: the best there is)", role="effort", flag="model")
    window_batch: int | None = _model_option(None, of_type(int, None, low=1),
        "windows per batch (default: what fits)", role="effort")
    cached: bool = _model_option(True, _flag, "keep text features on disk", role="effort", flag="model")
    # fmt: on

    def __post_init__(self):
        from clearclip.methods import METHODS
        from clearclip.windows.window_grid import check_windows

        for option_field in fields(self):
            value = option_field.metadata["check"](option_field.name, getattr(self, option_field.name))
            # A frozen dataclass has no other way to keep what the check made of a value (5 becomes 5.0).
            object.__setattr__(self, option_field.name, value)
        check_windows(self.slide_crop, self.slide_stride)
        clip_type = self.clip_type or "CLIP"
        sizes = [size for type_of_size, size in CHECKPOINTS if type_of_size == clip_type]
        # A model's name overrides both.
        if self.model_name is None and self.vit_type is not None and self.vit_type not in sizes:
            raise UserError(f"{clip_type} has no vit_type {self.vit_type!r}; choose {' or '.join(sizes)}")
        # Both raise for an impossible combination.
        self.chosen_method  # noqa: B018
        self.chosen_post_processing  # noqa: B018
        if self.method is None and self.ignore_residual and METHODS[self.model_type]() == METHODS["CLIP"]():
            warnings.warn(
                f"model_type={self.model_type!r} with ignore_residual=True is no row of the paper's table (q-k "
                "attention without residual and FFN); use model_type='ClearCLIP', or ignore_residual=False for CLIP",
                stacklevel=3,
            )

    @classmethod
    def from_options(cls, options: Mapping[str, Any]) -> ModelSettings:
        """Settings from a dict, such as a config's ``model``. Some weights have windows and sizes of their own.

        Raises:
            UserError: an unknown option (says which one may have been meant), or a value that cannot be meant.
        """
        names = [option_field.name for option_field in fields(cls)]
        _refuse_method_options(options)
        for name in options:
            if name not in names:
                raise UserError(f"a model has no option {name!r}; {did_you_mean(str(name), names)}")
        # Values are checked by the class itself, so that only a known clip_type is looked up here.
        clip_type = options.get("clip_type")
        checkpoint = CHECKPOINT_BY_MODEL_NAME.get(str(options.get("model_name")))
        if checkpoint is not None:
            clip_type = checkpoint[0]
        return cls(**{**OPTIONS_BY_CLIP_TYPE.get(str(clip_type), {}), **options})

    @staticmethod
    def help(name: str) -> str:
        """What an option means, in a line."""
        help_by_name = {option_field.name: option_field.metadata["help"] for option_field in fields(ModelSettings)}
        return help_by_name[name]

    @cached_property
    def chosen_method(self) -> Method:
        """How the last blocks are computed: ``method``, or the published spelling of the authors' config."""
        from clearclip.methods import build_method

        if self.method is not None:
            return build_method(self.method)
        return _published_method(self.model_type, self.ignore_residual)

    @cached_property
    def chosen_post_processing(self) -> PostProcessing | None:
        """What follows the joining of windows. A model's option NAME_OPTION (``tlp_grid``) is OPTION of NAME."""
        from clearclip.windows import build_post_processing

        if not isinstance(self.post, str):
            return build_post_processing(self.post)
        prefix = f"{self.post}_"
        options = {name.removeprefix(prefix): getattr(self, name) for name in self._options_of(self.post)}
        return build_post_processing(self.post, **options)

    def _options_of(self, post: str) -> list[str]:
        """The options of the model that are options of a post-processing."""
        from clearclip.windows import POST_PROCESSINGS

        post_class: Any = POST_PROCESSINGS[post]
        spellings = [f"{post}_{option_field.name}" for option_field in fields(post_class)]
        return [name for name in spellings if hasattr(self, name)]

    @property
    def readout(self) -> Readout:
        """How scores become labels and probabilities."""
        from clearclip.windows import Readout

        return Readout(self.logit_scale, self.prob_thd, self.area_thd, self.softmax)

    @property
    def chosen_weights(self) -> Weights:
        """Which weights these options mean.

        Raises:
            UserError: an unknown model or tag, or a model without weights of its own, and none named.
        """
        from clearclip.weights import choose_weights

        return choose_weights(**{name: getattr(self, name) for name in WEIGHT_OPTIONS})

    @property
    def chosen_normalization(self) -> str:
        """Whose mean and std: where nothing is said, OpenAI's for the published tables' rows, which clip_type names."""
        if self.normalization is not None:
            return self.normalization
        checkpoint = named_checkpoint(self.clip_type, self.vit_type, self.model_name)
        if checkpoint is None or checkpoint[0] == "DINO":
            return "pretrained"
        return "openai"

    def facts(self) -> dict[str, Any]:
        """What of windows and labels changes a result, as plain data: the usual options, and others that are not at
        their default. Weights and method have facts of their own (:mod:`clearclip.evaluation.run_facts`).
        """
        from clearclip.windows import POST_PROCESSINGS

        values: dict[str, Any] = {}
        defaults: dict[str, Any] = {}
        for option_field in fields(self):
            if option_field.metadata["role"] in ("protocol", "result"):
                values[option_field.name] = getattr(self, option_field.name)
            if option_field.metadata["role"] == "result":
                defaults[option_field.name] = option_field.default
        if Path(self.templates).is_file():
            from clearclip.utils.fingerprint import hash_file

            # The file's content counts, and not its place.
            values["templates"] = {"file": hash_file(self.templates)}
        values["normalization"] = self.chosen_normalization
        # As published, so that records of earlier versions, which had no such option, compare equal.
        defaults["normalization"] = "openai"
        if self.post is not None and not isinstance(self.post, str):
            values["post"] = self.chosen_post_processing.settings
        for post in POST_PROCESSINGS:
            # Options of a post-processing that is not computed have no effect.
            if post != self.post:
                for name in self._options_of(post):
                    del values[name]
        return {name: value for name, value in values.items() if name not in defaults or value != defaults[name]}


def _options_with_role(role: str) -> tuple[str, ...]:
    return tuple(option_field.name for option_field in fields(ModelSettings) if option_field.metadata["role"] == role)


def options_with_flag(flag: str) -> tuple[str, ...]:
    """The options that command lines have, in their order; see :func:`_model_option`."""
    return tuple(option_field.name for option_field in fields(ModelSettings) if option_field.metadata["flag"] == flag)


#: The options that say which weights.
WEIGHT_OPTIONS = _options_with_role("weights")


def _refuse_method_options(options: Mapping[str, Any]) -> None:
    """Refuse ``attention=…`` and its like among the options of a model.

    Raises:
        UserError: one is there; has the spelling that takes its place.
    """
    moved = {name: options[name] for name in _METHOD_OPTIONS if options.get(name) is not None}
    if not moved:
        return
    from clearclip.methods import METHODS, build_method

    if options.get("method") is not None:
        method = build_method(options["method"])
    else:
        model_type = options.get("model_type", ModelSettings.model_type)
        method = _published_method(model_type, options.get("ignore_residual", ModelSettings.ignore_residual))
    # LastBlock is registered as ClearCLIP, too, which is the name that users know.
    *_, method_type = (name for name, registered in METHODS.items() if registered is type(method))
    # The class's own defaults need not be written; those of SCLIP without residual and FFN have to be.
    class_defaults = type(method)
    description: dict[str, Any] = {}
    for name, value in {**method.settings, **moved, "type": method_type}.items():
        if name in moved or value != getattr(class_defaults, name, None):
            description[name] = value
    build_method(description)  # raises where the method has no such option, so that what is proposed works
    spelling = ", ".join(f"{name}={value!r}" for name, value in description.items())
    overrides = " ".join(f"model.method.{name}={value}" for name, value in description.items())
    raise UserError(
        f"{' and '.join(moved)} cannot be set beside the method any more; write method=dict({spelling}), or on a "
        f"command line {overrides}"
    )


def _published_method(model_type: str, ignore_residual: bool) -> Method:
    """The method that the authors' config means by these two.

    Raises:
        UserError: an unknown ``model_type``, or a method that has no such variant.
    """
    from clearclip.methods import METHODS

    method = METHODS[_method_name("model_type", model_type)]()
    if ignore_residual:
        return method.without_residual_and_ffn()
    return method.with_residual_and_ffn()
