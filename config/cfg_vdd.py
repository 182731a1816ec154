_base_ = "./remote_config.py"

dataset_name = "vdd"

model = dict(name_path="{{fileDirname}}/cls_vdd.txt", prob_thd=0.3)

test_dataloader = dict(
    dataset=dict(
        type="BaseSegDataset",
        data_root="data/VDD",
        data_prefix=dict(img_path="test/src", seg_map_path="test/gt"),
        img_suffix=".JPG",
        metainfo=dict(classes="{{fileDirname}}/cls_vdd.txt"),
    )
)
