_base_ = "./remote_config.py"

dataset_name = "loveda"
expected_images = 1669

model = dict(name_path="{{fileDirname}}/cls_loveda.txt", prob_thd=0.3)

test_dataloader = dict(
    dataset=dict(
        type="LoveDADataset",
        data_root="data/loveDA",
        data_prefix=dict(img_path="img_dir/val", seg_map_path="ann_dir/val"),
        reduce_zero_label=True,
    )
)
