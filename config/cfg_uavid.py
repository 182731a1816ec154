_base_ = "./remote_config.py"

dataset_name = "uavid"

model = dict(name_path="{{fileDirname}}/cls_uavid.txt", prob_thd=0.3)

test_dataloader = dict(
    dataset=dict(
        type="BaseSegDataset",
        data_root="data/UAVid",
        data_prefix=dict(img_path="img_dir/test", seg_map_path="ann_dir/test"),
        img_suffix=".png",
        metainfo=dict(classes="{{fileDirname}}/cls_uavid.txt"),
    )
)
