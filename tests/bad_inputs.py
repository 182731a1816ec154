"""A folder full of things that a person might give to a command line, nearly all of them broken."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from pathlib import Path

import numpy as np
import torch
from layouts import make_layout
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
VOC = ROOT / "config" / "cfg_voc21.py"


class _Harmful:
    """Unpickled by a careless loader, it leaves a file behind."""

    def __reduce__(self):
        return os.mkdir, ("executed",)


def build(folder: Path, model: Path) -> None:
    """Fill ``folder``; ``model`` is a whole ``local-dir:`` model whose parts the broken ones are made of."""
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (40, 60, 3), dtype=np.uint8)).save(folder / "photo.png")
    (folder / "notes.txt").write_text("no image\n")
    (folder / "empty").mkdir()
    (folder / "results.xlsx").write_bytes(b"somebody's own workbook")
    (folder / "results_folder.xlsx").mkdir()
    _build_data(folder)
    _build_configs(folder / "configs")
    _build_names(folder / "names")
    _build_weights(folder / "weights", torch.load(model / "open_clip_pytorch_model.bin", weights_only=True))
    _build_models(folder / "models", model)
    (folder / "interrupted").mkdir()
    shutil.copy(folder / "weights" / "harmful.pt", folder / "interrupted" / "checkpoint.pt")
    _build_coco_stuff(folder)
    for name, settings in (("other", json.dumps({"dataset": "another"})), ("damaged", "{")):
        journal = folder / "work_dirs" / name / "journal"
        journal.mkdir(parents=True)
        (journal / "settings.json").write_text(settings)


def _build_data(folder: Path) -> None:
    whole = make_layout("voc21", folder / "data", images=2)
    masks, image = whole["masks"], whole["images"][0]
    inner = {name: path.relative_to(whole["data_root"]) for name, path in (("image", image), ("mask", masks[0]))}
    inner["list"] = whole["list_file"].relative_to(whole["data_root"])

    def spoiled(name: str) -> Path:
        return Path(shutil.copytree(whole["data_root"], folder / "faults" / name))

    (spoiled("no_list") / inner["list"]).unlink()
    (spoiled("empty_list") / inner["list"]).write_text("\n")
    (spoiled("no_image") / inner["image"]).unlink()
    (spoiled("no_mask") / inner["mask"]).unlink()
    Image.new("L", (5, 5)).save(spoiled("mask_size") / inner["mask"])
    Image.fromarray(np.full_like(whole["raw"][0], 99)).save(spoiled("mask_ids") / inner["mask"])
    (spoiled("mask_text") / inner["mask"]).write_text("no mask")
    shutil.rmtree(spoiled("no_images") / "JPEGImages")
    with (spoiled("twice") / inner["list"]).open("a") as file:
        file.write(f"{whole['stems'][0]}\n")


def _build_configs(folder: Path) -> None:
    folder.mkdir()
    for name, text in {
        "empty": "",
        "syntax": "model = dict(",
        "crash": "model = 1 / 0",
        "assertion": "assert False, 'a config may hold anything'",
        "base": '_base_ = "./none.py"',
        "no_model": "test_dataloader = dict(dataset=dict(data_root='data'))",
        "model_number": f'_base_ = "{VOC}"\nmodel = 5',
        "no_dataset": "model = dict(type='ClearCLIPSegmentation')\ntest_dataloader = dict(batch_size=1)",
        "other_model": f'_base_ = "{VOC}"\nmodel = dict(type="EncoderDecoder")',
        "other_dataset": f'_base_ = "{VOC}"\ntest_dataloader = dict(dataset=dict(type="MoonDataset"))',
    }.items():
        (folder / f"{name}.py").write_text(text)
    (folder / "binary.py").write_bytes(b"\xff\xfe\x00")
    (folder / "folder.py").mkdir()


def _build_names(folder: Path) -> None:
    folder.mkdir()
    whole = (ROOT / "config" / "cls_voc21.txt").read_text().splitlines()
    (folder / "short.txt").write_text("\n".join(whole[:-1]))
    (folder / "blank.txt").write_text("\n".join([*whole[:4], "", *whole[4:]]))
    (folder / "comma.txt").write_text("\n".join(["sky,,clouds", *whole[1:]]))
    (folder / "latin.txt").write_bytes("\n".join(["Bäume", *whole[1:]]).encode("latin-1"))
    (folder / "empty.txt").touch()


def _build_weights(folder: Path, whole: dict[str, torch.Tensor]) -> None:
    folder.mkdir()
    (folder / "garbage.pt").write_bytes(b"these are no weights")
    (folder / "garbage.safetensors").write_bytes(b"these are no weights")
    (folder / "empty.pt").touch()
    (folder / "folder.pt").mkdir()
    small = {"visual.proj": torch.zeros(3, 3)}
    torch.save(small, folder / "small.pt")
    (folder / "truncated.pt").write_bytes((folder / "small.pt").read_bytes()[:-100])
    torch.save([1, 2, 3], folder / "list.pt")
    torch.save({**small, "extra": _Harmful()}, folder / "harmful.pt")
    (folder / "harmful.pkl").write_bytes(pickle.dumps(_Harmful()))
    few = {name: tensor for name, tensor in whole.items() if name != "visual.proj"}
    torch.save(few, folder / "few.pt")
    torch.save({**whole, "visual.proj": torch.full_like(whole["visual.proj"], float("nan"))}, folder / "nan.pt")


def _build_models(folder: Path, model: Path) -> None:
    config, weights = model / "open_clip_config.json", model / "open_clip_pytorch_model.bin"
    for name, text in {
        "no_config": None,
        "no_weights": config.read_text(),
        "broken_json": "{",
        "list_json": "[]",
        "no_model_cfg": "{}",
        "odd_model_cfg": json.dumps({"model_cfg": {"embed_dim": 32}, "preprocess_cfg": {}}),
    }.items():
        (folder / name).mkdir(parents=True)
        if text is not None:
            (folder / name / "open_clip_config.json").write_text(text)
        if name != "no_weights":
            (folder / name / weights.name).symlink_to(weights)


def _build_coco_stuff(folder: Path) -> None:
    """Raw masks of COCO-Stuff with one fault each; ``stuff/whole`` has none."""

    def stuff(name: str) -> tuple[Path, Path]:
        images, masks = (folder / "stuff" / name / kind / "val2017" for kind in ("images", "annotations"))
        images.mkdir(parents=True)
        masks.mkdir(parents=True)
        Image.new("RGB", (8, 6)).save(images / "000000000139.jpg")
        mask = masks / "000000000139.png"
        Image.fromarray(np.arange(48, dtype=np.uint8).reshape(6, 8) + 100).save(mask)
        return images / "000000000139.jpg", mask

    stuff("whole")
    _, mask = stuff("converted")
    mask.rename(mask.with_name("000000000139_labelTrainIds.png"))
    _, mask = stuff("channels")
    Image.new("RGB", (8, 6)).save(mask)
    _, mask = stuff("ids")
    Image.new("L", (8, 6), 200).save(mask)
    _, mask = stuff("size")
    Image.new("L", (5, 5)).save(mask)
    _, mask = stuff("text")
    mask.write_text("no mask")
    image, _ = stuff("no_image")
    image.unlink()
    _, mask = stuff("no_masks")
    mask.unlink()
