"""Whether a benchmark is complete, and COCO-Object from COCO-Stuff."""
