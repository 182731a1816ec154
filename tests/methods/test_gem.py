"""GEM with and without its residual, against its formula in loops."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny_reference import image_of

from clearclip import ClearCLIP

#: Fixtures: the tiny model written out with loops.
pytest_plugins = ["tiny_reference"]


@pytest.mark.parametrize("residual", [True, False])
@pytest.mark.parametrize("size", [(64, 64), (48, 72), (96, 64)])
def test_gem(tiny_name, tiny_tower, residual, size):
    model = ClearCLIP.from_pretrained(tiny_name, model_type="GEM", ignore_residual=not residual, device="cpu")
    image = image_of(*size)
    with torch.inference_mode():
        got = model.image_encoder(image[None], [model.method])[0][0].numpy()
    wanted = tiny_tower.gem_features(image.double().numpy(), residual)
    np.testing.assert_allclose(got, wanted, atol=1e-4 * np.abs(wanted).max())
