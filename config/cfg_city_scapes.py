_base_ = "./base_config.py"

dataset_name = "city_scapes"
expected_images = 500

model = dict(name_path="{{fileDirname}}/cls_city_scapes.txt", slide_crop=224, slide_stride=224)

test_dataloader = dict(
    dataset=dict(
        type="CityscapesDataset",
        data_root="data/cityscapes",
        data_prefix=dict(img_path="leftImg8bit/val", seg_map_path="gtFine/val"),
    )
)
