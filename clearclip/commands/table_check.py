"""One look at what a table needs before anything is started: data, weights, and a port for several processes."""

from __future__ import annotations

import os
import socket
import warnings
from dataclasses import dataclass, field
from pathlib import Path

from mmengine.config import Config

from clearclip.evaluation.config import CONFIGS, dataset_name, explaining_errors, model_settings
from clearclip.evaluation.dataset_report import quick_check
from clearclip.model_settings import ModelSettings
from clearclip.utils.errors import UserError
from clearclip.utils.hub import cached_only
from clearclip.weights import RANDOM, Weights, find_checkpoint

#: How the names of weights begin that their own loaders fetch.
_FETCHED_BY_LOADERS = ("BLIP", "DINO")
#: The script that starts several processes; a clone has it beside its configs.
START_SCRIPT = CONFIGS.parent / "dist_test.sh"


@dataclass
class TableCheck:
    """Looks at each dataset and at each of the weights once.

    Attributes:
        gpus: through how many processes a table is computed; None: in this process.
        on_error: what is done with images that cannot be used, "stop" or "skip".
        may_fetch: whether weights that are not on this machine are fetched now, so that no process has to.
    """

    gpus: int | None
    on_error: str
    may_fetch: bool = True
    _reasons: dict[str, str] = field(default_factory=dict, repr=False)

    def check_start(self) -> None:
        """Check what no group can do without.

        Raises:
            UserError: several processes cannot be started; says why.
        """
        if self.gpus is None:
            return
        if not START_SCRIPT.is_file():
            raise UserError("--gpus needs dist_test.sh, which a clone of the repository has, not an installed package")
        port = os.environ.get("PORT")
        if port is not None:
            check_port(port)

    def missing(self, cfg: Config) -> str:
        """Why a config cannot be evaluated, in a sentence, or an empty text."""
        return self._data_reason(cfg) or self._weights_reason(model_settings(cfg))

    def _data_reason(self, cfg: Config) -> str:
        key = f"dataset {dataset_name(cfg)}"
        # Most groups share their dataset: each is looked at once, and its reason is printed once.
        if key not in self._reasons:
            self._reasons[key] = ""
            try:
                with explaining_errors(f"config {cfg.filename}"):
                    quick_check(cfg, self.on_error)
            except UserError as error:
                self._reasons[key] = str(error)
        return self._reasons[key]

    def _weights_reason(self, settings: ModelSettings) -> str:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # said when the weights are loaded
            weights = settings.chosen_weights
        key = f"weights {weights.label}"
        if key not in self._reasons:
            self._reasons[key] = ""
            try:
                self._find_weights(weights)
            except UserError as error:
                self._reasons[key] = str(error)
        return self._reasons[key]

    def _find_weights(self, weights: Weights) -> None:
        """Find the files of weights.

        Raises:
            UserError: they are not there, and cannot be fetched.
        """
        is_named_by_tag = weights.pretrained in (weights.tag, RANDOM)
        if weights.model_name.startswith(_FETCHED_BY_LOADERS):
            if not is_named_by_tag and not Path(weights.pretrained).exists():
                raise UserError(f"{weights.pretrained}: there is no such file; check model.pretrained")
        elif self.may_fetch:
            find_checkpoint(weights)
        elif not is_named_by_tag and not weights.model_name.startswith("hf-hub:"):
            with cached_only():
                find_checkpoint(weights)


def check_port(port: str) -> None:
    """Check that a port for several processes is free on this machine.

    Raises:
        UserError: it is taken, or no port.
    """
    remedy = "set PORT to a free one, or leave it out"
    if not port.isdecimal() or not 0 < int(port) < 65536:
        raise UserError(f"PORT={port} is no port (1 to 65535); {remedy}")
    with socket.socket() as listener:
        # As the processes' own store listens: a port that was closed a moment ago is free.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("", int(port)))
        except OSError as error:
            raise UserError(f"PORT={port} cannot be used ({error.strerror}); {remedy}") from error
