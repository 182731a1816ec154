"""The variants of the last block that the paper compares."""

import math

from clearclip import LastBlock
from clearclip.analysis.variants import ABLATION, FEATURES, SWEEP, VARIANTS


def test_the_variants_are_the_papers():
    assert [(one.attention, one.residual, one.ffn, one.alpha) for one in FEATURES.values()] == [
        ("qk", True, False, 0),
        ("qk", False, False, 1),
        ("qk", True, False, 1),
    ]
    assert SWEEP["qq", 4.0] == LastBlock("qq", residual=True, ffn=False, alpha=4)
    assert SWEEP["qk", 0.0] == SWEEP["qq", 0.0] == FEATURES["X_res"]
    assert SWEEP["qq", math.inf] == ABLATION["qq", "neither"] == LastBlock()  # ClearCLIP
    assert ABLATION["kk", "FFN only"] == LastBlock("kk", residual=False, ffn=True)
    assert len({one.label for one in VARIANTS}) == len(VARIANTS) == 24 + 1 + 2 * 6
