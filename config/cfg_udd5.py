_base_ = "./remote_config.py"

dataset_name = "udd5"
expected_images = 40

model = dict(name_path="{{fileDirname}}/cls_udd5.txt", prob_thd=0.4)

test_dataloader = dict(
    dataset=dict(
        type="MappedDataset",
        data_root="data/UDD/UDD5",
        data_prefix=dict(img_path="val/src", seg_map_path="val/gt"),
        img_suffix=".JPG",
        metainfo=dict(classes="{{fileDirname}}/cls_udd5.txt"),
        ids=[4, 0, 1, 2, 3],  # the files have background last
    )
)
