# The bundled miniature: 200 drawn scenes of 128×128 pixels and a small CLIP trained on other drawn scenes. It runs
# through the same code as every benchmark, with windows that fit its 64-pixel model.
_base_ = "./base_config.py"
from clearclip import miniature  # below _base_, by which MMEngine tells this kind of config

dataset_name = "miniature"
expected_images = 200

model = dict(
    clip_type="Miniature",
    vit_type="Miniature/8",
    name_path="{{fileDirname}}/cls_miniature.txt",
    slide_crop=64,
    slide_stride=32,
)

test_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="LoadAnnotations"),
    dict(type="PackSegInputs"),
]
test_dataloader = dict(
    batch_size=8,
    dataset=dict(
        type="MiniatureDataset",
        data_root=str(miniature.BENCHMARK),
        data_prefix=dict(img_path="images/val", seg_map_path="annotations/val"),
        pipeline=test_pipeline,
    ),
)
