_base_ = "./base_config.py"

dataset_name = "ade20k"
expected_images = 2000

model = dict(name_path="{{fileDirname}}/cls_ade20k.txt")

test_dataloader = dict(
    dataset=dict(
        type="ADE20KDataset",
        data_root="data/ade/ADEChallengeData2016",
        data_prefix=dict(img_path="images/validation", seg_map_path="annotations/validation"),
        reduce_zero_label=True,
    )
)
