_base_ = "./base_config.py"

dataset_name = "coco_object"
expected_images = 5000

model = dict(name_path="{{fileDirname}}/cls_coco_object.txt", prob_thd=0.4)

test_dataloader = dict(
    dataset=dict(
        type="COCOObjectDataset",
        data_root="data/coco_object",
        data_prefix=dict(img_path="images/val2017", seg_map_path="annotations/val2017"),
    )
)
