"""What may follow the joining of windows: a registry of post-processings, like that of methods.

A post-processing of your own is a class in your own file (see docs/your_own_method.md):

    @POST_PROCESSINGS.register_module("mine")
    @dataclass(frozen=True)
    class Mine(PostProcessing):
        def __call__(self, scores, context):
            ...
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from clearclip.utils.errors import UserError
from clearclip.utils.registry import Configurable, Registry
from clearclip.utils.validators import did_you_mean
from clearclip.windows.joining import ImageContext
from clearclip.windows.score_map import ScoreMap


class PostProcessing(Configurable):
    """Changes the scores of a whole image. Subclasses are frozen dataclasses, whose fields are their options."""

    def __call__(self, scores: ScoreMap, context: ImageContext) -> ScoreMap:
        """Change scores.

        Args:
            scores: of the image's words. They can be read at the size of the image that was cut into windows
                (``context.image``), at that of the original (``context.size``), or at any other.
            context: what is known of the image.

        Returns:
            The changed scores; :meth:`ScoreMap.of_cells` makes them of an array.
        """
        raise NotImplementedError


POST_PROCESSINGS: Registry[PostProcessing] = Registry()
PostProcessing.registry = POST_PROCESSINGS


def build_post_processing(
    post: str | Mapping[str, Any] | PostProcessing | None, **options: Any
) -> PostProcessing | None:
    """A post-processing from its description.

    Args:
        post: its name, a dict with the name as "type" and its options, a post-processing, or None for none.
        **options: more of its options.

    Raises:
        UserError: an unknown name or option.
    """
    if post is None or isinstance(post, PostProcessing):
        return post
    name: Any = post
    if isinstance(post, Mapping):
        name = post.get("type")
        options_of_dict = {str(option): value for option, value in post.items() if option != "type"}
        options = {**options_of_dict, **options}
    if name not in POST_PROCESSINGS:
        raise UserError(f"unknown post {name!r}; {did_you_mean(name, POST_PROCESSINGS)}")
    try:
        return POST_PROCESSINGS[name](**options)
    except TypeError as error:
        # A class says in its own words which option it does not know.
        raise UserError(f"post {name} does not take {options}: {error}") from error
