_base_ = "./remote_config.py"

dataset_name = "udd5"
expected_images = 40

model = dict(name_path="{{fileDirname}}/cls_udd5.txt", prob_thd=0.4)

test_dataloader = dict(
    dataset=dict(
        type="UDD5Dataset",
        data_root="data/UDD/UDD5",
        data_prefix=dict(img_path="val/src", seg_map_path="val/gt"),
        # The files have it last.
        metainfo=dict(classes=["other", "vegetation", "building", "road", "vehicle"]),
    )
)
