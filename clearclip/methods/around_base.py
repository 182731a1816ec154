"""Methods that change what another one computes: their ``base``."""

from __future__ import annotations

from dataclasses import replace

from clearclip.methods.method import Method


class MethodAroundBase(Method):
    """A method with an option ``base``, another method: residual connection and FFN are the base's."""

    base: Method

    def with_residual_and_ffn(self) -> Method:
        return replace(self, base=self.base.with_residual_and_ffn())

    def without_residual_and_ffn(self) -> Method:
        return replace(self, base=self.base.without_residual_and_ffn())
