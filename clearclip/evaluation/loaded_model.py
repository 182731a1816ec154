"""A model together with what it was when it was loaded, so that a later change is noticed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from clearclip.evaluation.weight_facts import weights_facts
from clearclip.model import ClearCLIP
from clearclip.model_settings import ModelSettings
from clearclip.utils.errors import UserError
from clearclip.utils.fingerprint import digest
from clearclip.utils.plain_data import plain_data


@dataclass(frozen=True)
class LoadedModel:
    """A model, and what it was when it was loaded.

    Attributes:
        model: the model.
        settings: by which it was loaded.
        tensors: the digest of each of its tensors right after loading; None where somebody else loaded it.
        facts: of its weights, see :func:`~clearclip.evaluation.weight_facts.weights_facts`.
    """

    model: ClearCLIP
    settings: ModelSettings
    tensors: Mapping[str, str] | None
    facts: dict[str, Any]

    @classmethod
    def load(cls, settings: ModelSettings) -> LoadedModel:
        """Load the model that settings describe.

        Raises:
            UserError: it cannot be loaded, or its files were written in the meantime.
        """
        # Hashed before and after, so that the hash is of what was read in between.
        facts_before = weights_facts(settings)
        model = ClearCLIP.from_settings(settings)
        tensors = tensor_digests(model)
        facts = weights_facts(settings, tensors)
        if facts_before is not None and facts_before != facts:
            raise UserError(f"the files of {model.label} changed while they were read; start again")
        return cls(model, settings, tensors, facts)

    @classmethod
    def given(cls, model: ClearCLIP, settings: ModelSettings) -> LoadedModel:
        """A model that somebody else loaded, and may have changed: it is known by what it holds now."""
        facts = weights_facts(settings, {})
        return cls(model, settings, None, {**facts, "origin": "in memory", "bytes": digest(tensor_digests(model))})

    def changed(self) -> list[str]:
        """The names of tensors that are no longer what was loaded."""
        digests = tensor_digests(self.model)
        return [name for name, loaded_digest in (self.tensors or {}).items() if digests.get(name) != loaded_digest]


def tensor_digests(model: torch.nn.Module) -> dict[str, str]:
    """The digest of every parameter and buffer, those that no file holds among them."""
    tensors = (*model.named_parameters(), *model.named_buffers())
    return {name: digest(plain_data(tensor)) for name, tensor in tensors}
