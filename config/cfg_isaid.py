_base_ = "./remote_config.py"

dataset_name = "isaid"
expected_images = 11644

model = dict(name_path="{{fileDirname}}/cls_isaid.txt", prob_thd=0.4)

test_dataloader = dict(
    dataset=dict(
        type="iSAIDDataset",
        data_root="data/iSAID",
        data_prefix=dict(img_path="img_dir/val", seg_map_path="ann_dir/val"),
    )
)
