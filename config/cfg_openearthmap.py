_base_ = "./remote_config.py"

dataset_name = "openearthmap"
expected_images = 384

model = dict(name_path="{{fileDirname}}/cls_openearthmap.txt", prob_thd=0.1)

test_dataloader = dict(
    dataset=dict(
        type="BaseSegDataset",
        data_root="data/OpenEarthMap",
        data_prefix=dict(img_path="img_dir/val", seg_map_path="ann_dir/val"),
        img_suffix=".tif",
        seg_map_suffix=".tif",
        metainfo=dict(classes="{{fileDirname}}/cls_openearthmap.txt"),
    )
)
