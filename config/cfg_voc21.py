_base_ = "./base_config.py"

dataset_name = "voc21"
expected_images = 1449

model = dict(name_path="{{fileDirname}}/cls_voc21.txt", prob_thd=0.5)

test_dataloader = dict(
    dataset=dict(
        type="PascalVOCDataset",
        data_root="data/VOCdevkit/VOC2012",
        data_prefix=dict(img_path="JPEGImages", seg_map_path="SegmentationClass"),
        ann_file="ImageSets/Segmentation/val.txt",
    )
)
