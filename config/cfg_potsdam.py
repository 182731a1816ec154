_base_ = "./remote_config.py"

dataset_name = "potsdam"
expected_images = 2016

model = dict(name_path="{{fileDirname}}/cls_potsdam.txt", prob_thd=0.1)

test_dataloader = dict(
    dataset=dict(
        type="PotsdamDataset",
        data_root="data/potsdam",
        data_prefix=dict(img_path="img_dir/val", seg_map_path="ann_dir/val"),
        reduce_zero_label=True,
        # The files have clutter last.
        metainfo=dict(classes=["clutter", "impervious_surface", "building", "low_vegetation", "tree", "car"]),
    )
)
