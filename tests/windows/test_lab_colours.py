"""Lab colours against those that LPOSS+'s release computes."""

import numpy as np
import torch
from family_models import recordings

from clearclip.windows.lab_colours import lab


def test_recorded_lab_colours():
    levels = torch.linspace(0, 1, 6)
    image = torch.stack(torch.meshgrid(levels, levels, levels, indexing="ij")).reshape(3, 6, 36)
    recorded = recordings("lposs")["lab|6x36"]
    np.testing.assert_allclose(lab(image).numpy(), recorded, rtol=0, atol=2e-5 * np.abs(recorded).max())
