_base_ = "./base_config.py"

dataset_name = "ade847"
expected_images = 2000

model = dict(name_path="{{fileDirname}}/cls_ade847.txt")

test_dataloader = dict(
    dataset=dict(
        type="BaseSegDataset",
        data_root="data/ADE20K_2021_17_01",
        data_prefix=dict(img_path="images_detectron2/validation", seg_map_path="annotations_detectron2/validation"),
        seg_map_suffix=".tif",
        metainfo=dict(classes="{{fileDirname}}/cls_ade847.txt"),
        ignore_index=65535,
    )
)
