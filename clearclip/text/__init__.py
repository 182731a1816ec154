"""From a list of words to text features: names files, prompts, the text tower, the cache on disk."""

import clearclip.utils.open_clip_import  # noqa: F401  (before the modules that import parts of OpenCLIP)
from clearclip.text.cache import TextCache
from clearclip.text.encoder import TextEncoder, TextFeatures
from clearclip.text.templates import TEMPLATES_BY_NAME, read_templates
from clearclip.text.words import ClassWords

__all__ = ["TEMPLATES_BY_NAME", "ClassWords", "TextCache", "TextEncoder", "TextFeatures", "read_templates"]
