# The protocol of the remote-sensing papers, as in the published configs of SegEarth-OV: long side 448, windows of 224
# pixels every 112, ground truth at its own size. prob_thd gives label 0, so every dataset has its background first.
_base_ = "./base_config.py"

model = dict(slide_crop=224, slide_stride=112)

test_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="Resize", scale=(448, 448), keep_ratio=True),
    dict(type="LoadAnnotations"),
    dict(type="PackSegInputs"),
]
test_dataloader = dict(dataset=dict(pipeline=test_pipeline))
