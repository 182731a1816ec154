_base_ = "./base_config.py"

dataset_name = "context60"
expected_images = 5104

model = dict(name_path="{{fileDirname}}/cls_context60.txt", prob_thd=0.15)

test_dataloader = dict(
    dataset=dict(
        type="PascalContext60Dataset",
        data_root="data/VOCdevkit/VOC2010",
        data_prefix=dict(img_path="JPEGImages", seg_map_path="SegmentationClassContext"),
        ann_file="ImageSets/SegmentationContext/val.txt",
    )
)
