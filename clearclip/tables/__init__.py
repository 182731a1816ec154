"""The paper's tables: their rows, the published numbers, and which measured run belongs in which cell."""
