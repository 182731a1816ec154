_base_ = "./base_config.py"

dataset_name = "pc459"
expected_images = 5104

model = dict(name_path="{{fileDirname}}/cls_pc459.txt")

test_dataloader = dict(
    dataset=dict(
        type="BaseSegDataset",
        data_root="data/VOCdevkit/VOC2010",
        data_prefix=dict(img_path="JPEGImages", seg_map_path="annotations_detectron2/pc459_val"),
        ann_file="pascalcontext_val.txt",
        seg_map_suffix=".tif",
        metainfo=dict(classes="{{fileDirname}}/cls_pc459.txt"),
        ignore_index=459,
    )
)
