"""The paper's analysis: statistics of residual and attention, block by block, and what they do to segmentation."""
