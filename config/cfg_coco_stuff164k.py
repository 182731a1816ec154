_base_ = "./base_config.py"

dataset_name = "coco_stuff164k"
expected_images = 5000

model = dict(name_path="{{fileDirname}}/cls_coco_stuff164k.txt")

test_dataloader = dict(
    dataset=dict(
        type="COCOStuffDataset",
        data_root="data/coco_stuff164k",
        data_prefix=dict(img_path="images/val2017", seg_map_path="annotations/val2017"),
    )
)
