_base_ = "./base_config.py"

dataset_name = "context59"
expected_images = 5104

model = dict(name_path="{{fileDirname}}/cls_context59.txt")

test_dataloader = dict(
    dataset=dict(
        type="PascalContext59Dataset",
        data_root="data/VOCdevkit/VOC2010",
        data_prefix=dict(img_path="JPEGImages", seg_map_path="SegmentationClassContext"),
        ann_file="ImageSets/SegmentationContext/val.txt",
        reduce_zero_label=True,
    )
)
