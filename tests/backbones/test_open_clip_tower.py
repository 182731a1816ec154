"""OpenCLIP's plain ViTs."""

from __future__ import annotations

import open_clip
import pytest

from clearclip import UserError
from clearclip.backbones import ImageEncoder


def test_custom_blocks_are_named():
    tower = open_clip.transformer.VisionTransformer(32, 8, 32, 2, 2, 4.0, block_type="custom", qk_norm=True)
    with pytest.raises(UserError, match="CustomResidualAttentionBlock"):
        ImageEncoder(tower)
