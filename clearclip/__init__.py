"""ClearCLIP (ECCV 2024): a frozen CLIP as an open-vocabulary segmenter, by changing its last ViT block only.

``import clearclip.evaluation`` registers the segmentor, the datasets and the metric with MMSegmentation.

Names are loaded when they are asked for (PEP 562), so that a command line can answer ``--help`` without PyTorch.

Unless you have set OpenMP's environment variables yourself, they are set here so that its threads spin for a short time
only when they wait: else they keep the cores busy for milliseconds after every operation. This has an effect if PyTorch
is imported afterwards (docs/speed.md).
"""

import importlib
import importlib.util
import os
from typing import TYPE_CHECKING, Any

from clearclip.utils.collector_pause import collector_paused
from clearclip.version import __version__

if not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"} & os.environ.keys():
    os.environ.update(GOMP_SPINCOUNT="10000", KMP_BLOCKTIME="1")  # turns; milliseconds

if TYPE_CHECKING:
    from clearclip.methods import METHODS, Context, LastBlock, Method, build_method
    from clearclip.model import ClearCLIP
    from clearclip.model_settings import ModelSettings
    from clearclip.segmentation import Segmentation
    from clearclip.utils.errors import UserError

__all__ = [
    "METHODS",
    "ClearCLIP",
    "Context",
    "LastBlock",
    "Method",
    "ModelSettings",
    "Segmentation",
    "UserError",
    "__version__",
    "build_method",
]

#: In which module each public name is.
_MODULES = {
    "METHODS": "clearclip.methods",
    "ClearCLIP": "clearclip.model",
    "Context": "clearclip.methods",
    "LastBlock": "clearclip.methods",
    "Method": "clearclip.methods",
    "ModelSettings": "clearclip.model_settings",
    "Segmentation": "clearclip.segmentation",
    "UserError": "clearclip.utils.errors",
    "build_method": "clearclip.methods",
}


def __getattr__(name: str) -> Any:
    """A public name, or a module of the package such as ``clearclip.weights``; both are loaded now."""
    if name in _MODULES:
        with collector_paused():
            module = importlib.import_module(_MODULES[name])
        value = getattr(module, name)
    elif not name.startswith("_") and importlib.util.find_spec(f"{__name__}.{name}") is not None:
        value = importlib.import_module(f"{__name__}.{name}")
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value  # the next access finds it without this function
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
