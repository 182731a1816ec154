_base_ = "./base_config.py"

dataset_name = "voc20"
expected_images = 1449

model = dict(name_path="{{fileDirname}}/cls_voc20.txt")

test_dataloader = dict(
    dataset=dict(
        type="PascalVOC20Dataset",
        data_root="data/VOCdevkit/VOC2012",
        data_prefix=dict(img_path="JPEGImages", seg_map_path="SegmentationClass"),
        ann_file="ImageSets/Segmentation/val.txt",
        reduce_zero_label=True,
    )
)
