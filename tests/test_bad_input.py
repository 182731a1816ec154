"""Every command line with bad input: exit code 2, one line that names culprit and remedy, nothing written."""

from __future__ import annotations

import runpy
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import bad_inputs
import pytest

ROOT = bad_inputs.ROOT
# One of the real configs with a model that loads in no time; options of the model follow.
VOC = f"--config {bad_inputs.VOC} --cfg-options model.model_name={{model}} model.slide_crop=64 model.slide_stride=32"
# A bundled scene and words, for demo.py.
SHOW = '--out shown photo.png --classes "sky, tree"'
# Beyond the model, for tools that would otherwise work long.
BENCHMARK = "--out figures.json --sizes voc --words 2 --repeats 1 --images 1"
TRAIN = "--out trained --checkpoint checkpoint.pt --scenes 2 --steps 1 --batch 2 --workers 1 --threads 1"

#: By script: arguments, what the line must name, a word of the remedy.
CASES = {
    "eval.py": [
        ("", "--config", "--help"),
        ("--config none.py", "none.py", "config/"),
        ("--config empty", "empty", "config/"),
        ("--config photo.png", "photo.png", "Python file"),
        ("--config configs/empty.py", "configs/empty.py", "base_config.py"),
        ("--config configs/folder.py", "configs/folder.py", "config/"),
        ("--config configs/syntax.py", "configs/syntax.py", "mend"),
        ("--config configs/crash.py", "ZeroDivisionError", "mend"),
        ("--config configs/assertion.py", "a config may hold anything", "mend"),
        ("--config configs/binary.py", "configs/binary.py", "mend"),
        ("--config configs/base.py", "none.py", "mend"),
        ("--config configs/no_model.py", "'model'", "base_config.py"),
        ("--config configs/model_number.py", "model must be", "base_config.py"),
        ("--config configs/no_dataset.py", "test_dataloader.dataset", "base_config.py"),
        ("--config configs/other_model.py", "EncoderDecoder", "ClearCLIPSegmentation"),
        ("--config configs/other_dataset.py", "MoonDataset", "dataset.type"),
        (f"{VOC} --data-root none", "none", "datasets/README.md"),
        (f"{VOC} --data-root notes.txt", "notes.txt", "--data-root"),
        (f"{VOC} --data-root faults/no_list", "val.txt", "datasets/README.md"),
        (f"{VOC} --data-root faults/empty_list", "val.txt", "datasets/README.md"),
        (f"{VOC} --data-root faults/no_images", "JPEGImages", "datasets/README.md"),
        (f"{VOC} --data-root faults/no_image", ".jpg is missing", "datasets/README.md"),
        (f"{VOC} --data-root faults/no_mask", ".png is missing", "datasets/README.md"),
        (f"{VOC} --data-root faults/mask_size", "is 5x5", "convert it again"),
        (f"{VOC} --data-root faults/mask_ids", "id(s) 99", "datasets/README.md"),
        (f"{VOC} --data-root faults/mask_text", ".png cannot be read", "again"),
        (f"{VOC} --data-root faults/twice", "more than once", "remove"),
        (f"{VOC} model.name_path=names/none.txt", "names/none.txt", "one class per line"),
        (f"{VOC} model.name_path=names/short.txt", "20 classes", "one line for each"),
        (f"{VOC} model.name_path=names/blank.txt", "line 5", "remove or fill"),
        (f"{VOC} model.name_path=names/comma.txt", "'sky,,clouds'", "commas"),
        (f"{VOC} model.name_path=names/latin.txt", "names/latin.txt", "UTF-8"),
        (f"{VOC} model.name_path=names/empty.txt", "names/empty.txt", "at least one"),
        (f"{VOC} model.name_path=names", "names", "one class per line"),
        (f"{VOC} model.class_names=[sky,tree]", "class_names", "one line for each"),
        (f"{VOC} model.class_names=5", "class_names", "list of strings"),
        (f"{VOC} model.name_path=5", "name_path", "one class per line"),
        (f"{VOC} model.clip_type=CLAP", "'CLAP'", "MetaCLIP"),
        (f"{VOC} model.vit_type=ViT-H", "'ViT-H'", "ViT-L/14"),
        (f"{VOC} model.model_type=BestCLIP", "'BestCLIP'", "SCLIP"),
        (f"{VOC} model.ignore_residual=maybe", "'maybe'", "True or False"),
        (f"{VOC} model.attention=qv", "'qv'", "qq+kk"),
        (f"{VOC} model.residual=1", "residual", "True or False"),
        (f"{VOC} model.alpha=nan", "nan", "finite"),
        (f"{VOC} model.alpha=much", "'much'", "number"),
        (f"{VOC} model.alpha=0", "alpha=0", "residual=True"),
        (f"{VOC} model.model_type=GEM model.ffn=True", "ffn=True", "leave"),
        (f"{VOC} model.model_type=GEM model.alpha=2", "alpha=2", "leave"),
        (f"{VOC} model.model_type=GEM", "6 blocks", "deeper model"),
        (f"{VOC} model.prob_thd=2", "prob_thd", "from 0 to 1"),
        (f"{VOC} model.prob_thd=x", "'x'", "number"),
        (f"{VOC} model.logit_scale=-1", "logit_scale", "number from 0"),
        (f"{VOC} model.slide_stride=65", "slide_stride 65", "slide_crop"),
        (f"{VOC} model.slide_stride=0", "slide_stride", "at least 1"),
        (f"{VOC} model.slide_stride=-8", "-8", "0 or more"),
        (f"{VOC} model.slide_crop=64.5", "64.5", "whole number"),
        (f"{VOC} model.window_batch=0", "window_batch", "at least 1"),
        (f"{VOC} model.precision=fp12", "'fp12'", "bf16"),
        (f"{VOC} model.normalization=mine", "'mine'", "pretrained"),
        (f"{VOC} model.slide_crops=64", "'slide_crops'", "segmentor.py"),
        (f"{VOC} model=5", "model must be", "base_config.py"),
        (f"{VOC} test_dataloader=5", "test_dataloader", "base_config.py"),
        (f"{VOC} test_dataloader.batch_size=0", "batch size", "at least 1"),
        (f"{VOC} test_dataloader.batch_size=x", "batch_size", "base_config.py"),
        (f"{VOC} test_dataloader.num_workers=-1", "workers", "at least 0"),
        (f"{VOC} test_dataloader.dataset.type=5", "type 5", "dataset.type"),
        (f"{VOC} test_dataloader.dataset.data_prefix=5", "data_prefix", "img_path"),
        (f"{VOC} test_dataloader.dataset.img_suffix=5", "img_suffix", "base_config.py"),
        (f"{VOC} test_dataloader.dataset.data_root=5", "data_root", "--data-root"),
        (f"{VOC} test_dataloader.dataset.ann_file=5", "ann_file", "base_config.py"),
        (f"{VOC} test_dataloader.dataset.pipeline=5", "pipeline", "base_config.py"),
        (f"{VOC} model.slide_crop.x=5", "slide_crop", "--cfg-options"),
        (f"{VOC} model.device=cuda:9", "cuda:9", "--device cpu"),
        (f"{VOC} model.clip_type=DINO", "model_name", "pretrained"),
        (f"{VOC} model.clip_type=BLIP model.model_name=None model.pretrained=none.pth", "none.pth", "check"),
        (f"{VOC} expected_images=x", "expected_images", "base_config.py"),
        (f"{VOC} nothing", "'nothing'", "key=value"),
        (f"{VOC} model.model_name=ViT-Z", "'ViT-Z'", "list_models"),
        (f"{VOC} model.model_name=5", "model_name", "string"),
        (f"{VOC} model.model_name=RN50 model.pretrained=None", "ModifiedResNet", "ViT-B-16"),
        (f"{VOC} model.model_name=ViT-B-16 model.pretrained=laion5b", "'laion5b'", "tags: "),
        (f"{VOC} model.pretrained=5", "pretrained", "string"),
        (f"{VOC} model.pretrained=weights/garbage.pt", "weights/garbage.pt", "whole"),
        (f"{VOC} model.pretrained=weights/garbage.safetensors", "weights/garbage.safetensors", "whole"),
        (f"{VOC} model.pretrained=weights/empty.pt", "weights/empty.pt", "whole"),
        (f"{VOC} model.pretrained=weights/truncated.pt", "weights/truncated.pt", "whole"),
        (f"{VOC} model.pretrained=weights/folder.pt", "weights/folder.pt", "tag"),
        (f"{VOC} model.pretrained=weights/small.pt", "weights/small.pt", "belong together"),
        (f"{VOC} model.pretrained=weights/list.pt", "weights/list.pt", "belong together"),
        (f"{VOC} model.pretrained=weights/few.pt", "visual.proj", "belong together"),
        (f"{VOC} model.pretrained=weights/nan.pt", "visual.proj", "anew"),
        (f"{VOC} model.pretrained=weights/harmful.pt", "weights/harmful.pt", "safetensors"),
        (f"{VOC} model.pretrained=weights/harmful.pkl", "weights/harmful.pkl", "safetensors"),
        (f"{VOC} model.model_name=local-dir:models/none", "models/none", "open_clip_config.json"),
        (f"{VOC} model.model_name=local-dir:models/no_config", "models/no_config", "open_clip_config.json"),
        (f"{VOC} model.model_name=local-dir:models/no_weights", "models/no_weights", "weights"),
        (f"{VOC} model.model_name=local-dir:models/broken_json", "models/broken_json", "whole"),
        (f"{VOC} model.model_name=local-dir:models/list_json", "models/list_json", "open_clip_config.json"),
        (f"{VOC} model.model_name=local-dir:models/no_model_cfg", "models/no_model_cfg", "open_clip_config.json"),
        (f"{VOC} model.model_name=local-dir:models/odd_model_cfg", "models/odd_model_cfg", "whole"),
        (f"{VOC} --device cuda:9", "cuda:9", "--device cpu"),
        (f"{VOC} --device abacus", "abacus", "cuda:N"),
        (f"{VOC} --device meta", "meta", "cuda:N"),
        (f"{VOC} --launcher rocket", "'rocket'", "slurm"),
        (f"{VOC} --launcher pytorch", "RANK", "dist_test.sh"),
        (f"{VOC} --launcher slurm", "SLURM_PROCID", "srun"),
        (f"{VOC} --batch-size 0", "batch size", "at least 1"),
        (f"{VOC} --batch-size -1", "-1", "at least 1"),
        (f"{VOC} --batch-size abc", "'abc'", "--help"),
        (f"{VOC} --workers -1", "workers", "at least 0"),
        (f"{VOC} --limit 0", "limit", "at least 1"),
        (f"{VOC} --on-error panic", "'panic'", "skip"),
        (f"{VOC} --results results.csv", "results.csv", ".xlsx"),
        (f"{VOC} --results results_folder.xlsx", "results_folder.xlsx", "file name"),
        (f"{VOC} --results notes.txt/results.xlsx", "notes.txt", "folder"),
        (f"{VOC} --workdir notes.txt", "notes.txt", "folder"),
        (f"{VOC} --resume", "cfg_voc21", "without --resume"),
        (f"{VOC} --resume --workdir work_dirs/other", "dataset was 'another'", "without --resume"),
        (f"{VOC} --resume --workdir work_dirs/damaged", "settings.json", "without --resume"),
        (f"{VOC} --resume perhaps", "'perhaps'", "auto"),
        (f"{VOC} --show-dir shown --show-every 0", "--show-every", "at least 1"),
        (f"{VOC} --show-dir shown --show-first 0", "--show-first", "at least 1"),
        (f"{VOC} --show-dir notes.txt", "notes.txt", "another"),
        (f"{VOC} --show-dir shown --data-root none", "none", "datasets/README.md"),
        (f"{VOC} --colour red", "--colour", "--help"),
    ],
    "eval_all.py": [
        ("--table 7", "'7'", "ablation"),
        ("--rows BestCLIP", "'BestCLIP'", "ClearCLIP"),
        ("--datasets moon", "'moon'", "voc20"),
        ("--vit ViT-H", "'ViT-H'", "ViT-B/16"),
        ("--miniature --datasets voc20", "'voc20'", "miniature"),
        ("--gpus 0", "--gpus", "at least 1"),
        ("--limit 0", "--limit", "at least 1"),
        ("--batch-size 0", "--batch-size", "at least 1"),
        ("--device cuda:9", "cuda:9", "--device cpu"),
        ("--results results.csv", "results.csv", ".xlsx"),
        ("--cfg-options nothing", "'nothing'", "key=value"),
        ("--dry-run --cfg-options model.attention=qv", "'qv'", "qq+kk"),
        ("--dry-run --cfg-options model.prob_thd=x", "'x'", "number"),
        ("--dry-run --cfg-options model.name_path=names/none.txt", "names/none.txt", "one class per line"),
        ("--rebuild", "results.jsonl", "--results"),
    ],
    "demo.py": [
        ("--out shown photo.png", "no words", "--classes"),
        ('--out shown photo.png --classes "sky"', "'sky'", "two words"),
        ('--out shown photo.png --classes "sky,,tree"', "'sky,,tree'", "commas"),
        (f"{SHOW} --name-path names/short.txt", "--name-path", "one of them"),
        ("--out shown photo.png --name-path names/latin.txt", "names/latin.txt", "UTF-8"),
        ('--out shown none.png --classes "sky, tree"', "none.png", "check"),
        ('--out shown empty --classes "sky, tree"', "empty", ".png"),
        ('--out shown "*.bmp" --classes "sky, tree"', "*.bmp", "pattern"),
        ('--out shown notes.txt --classes "sky, tree"', "notes.txt", "JPEG"),
        ('--out shown --clip-type CLIP --classes "sky, tree"', "no image", "photo.jpg"),
        (f"{SHOW} --prob-thd 2", "--prob-thd 2.0", "0 to 1"),
        (f"{SHOW} --prob-thd x", "'x'", "--help"),
        (f"{SHOW} --model ViT-Z", "'ViT-Z'", "list_models"),
        (f"{SHOW} --model {{model}} --model-type GEM", "6 blocks", "deeper model"),
        (f"{SHOW} --model {{model}} --pretrained weights/harmful.pt", "weights/harmful.pt", "safetensors"),
        (f"{SHOW} --model {{model}} --compare", "6 blocks", "deeper model"),
        (f"{SHOW} --clip-type CLAP", "'CLAP'", "MetaCLIP"),
        (f"{SHOW} --vit-type ViT-H", "'ViT-H'", "ViT-L/14"),
        (f"{SHOW} --device cuda:9", "cuda:9", "--device cpu"),
        (f"{SHOW} --precision fp12", "'fp12'", "bf16"),
        ('photo.png --classes "sky, tree" --model {model} --out notes.txt', "notes.txt", "another place"),
        ("--web --port 99999", "--port 99999", "65535"),
        ("--web --port x", "'x'", "--help"),
        ("--web --prob-thd -1", "--prob-thd -1.0", "0 to 1"),
        ("--web --clip-type CLIP --pretrained none.pt", "none.pt", "tags: "),
    ],
    "analyze.py": [
        ("--out found --config none.py", "none.py", "config/"),
        ("--out found --config configs/crash.py", "ZeroDivisionError", "mend"),
        (f"--out found --config {bad_inputs.VOC} --data-root none", "none", "datasets/README.md"),
        ("--out found --cfg-options nothing", "'nothing'", "key=value"),
        ("--out found none.png", "none.png", "check"),
        ("--out found empty", "empty", ".png"),
        ("--out found notes.txt --model {model} --only statistics", "notes.txt", "JPEG"),
        ("--out found photo.png --config configs/empty.py", "--config", "one of them"),
        ("--out found photo.png --only scores", "masks", "--config"),
        ("--out found photo.png --only maps", "words", "--classes"),
        ('--out found --classes "sky, tree"', "--classes", "name_path"),
        ("--out found --only poetry", "'poetry'", "statistics"),
        ("--out found --model ViT-Z", "'ViT-Z'", "random"),
        ("--out found --model ViT-Z:openai", "'ViT-Z'", "list_models"),
        ("--out found --model DINO:ViT-B/16:none.pth", "none.pth", "check"),
        ("--out found --model BLIP:ViT-B/16:none.pth", "none.pth", "check"),
        ("--out found --model {model} photo.png --block 9", "block 9", "1 to 2"),
        ("--out found --model {model} photo.png --size 50", "--size 50", "16 pixels"),
        ("--out found --limit 0", "--limit", "at least 1"),
        ("--out found --device cuda:9", "cuda:9", "--device cpu"),
        ("--out notes.txt", "notes.txt", "folder"),
    ],
    "datasets/check.py": [
        ("none.py", "none.py", "config/"),
        ("configs/syntax.py", "configs/syntax.py", "mend"),
        ("configs/no_dataset.py", "test_dataloader.dataset", "base_config.py"),
        ("configs/other_dataset.py", "MoonDataset", "dataset.type"),
        ("--sample 0", "--sample 0", "1 or more"),
        ("--nproc 0", "--nproc 0", "1 or more"),
        ("--nproc many", "'many'", "--help"),
    ],
    "datasets/cvt_coco_object.py": [
        ("", "PATH_TO_COCO_STUFF164K", "--help"),
        ("stuff/whole", "--out", "--help"),
        ("none -o made", "none", "root of COCO-Stuff"),
        ("data -o made", "data is no COCO-Stuff", "unpack"),
        ("stuff/whole -o notes.txt", "notes.txt", "folder"),
        ("stuff/whole -o made --split test", "'test'", "val"),
        ("stuff/whole -o made --nproc 0", "--nproc 0", "1 or more"),
        ("stuff/converted -o made", "TrainIds.png", "stuffthingmaps"),
        ("stuff/channels -o made", "3 channel(s)", "stuffthingmaps"),
        ("stuff/ids -o made", "id(s) 200", "0..181"),
        ("stuff/size -o made", "is 5x5", "same dataset"),
        ("stuff/text -o made", "000000000139.png", "unpack it again"),
        ("stuff/no_image -o made", "000000000139.jpg is missing", "unpack"),
        ("stuff/no_masks -o made", "no masks", "unpack"),
    ],
    "tools/benchmark.py": [
        (f"{BENCHMARK} --images 0", "--images", "at least 1"),
        (f"{BENCHMARK} --words 0", "--words", "at least 1"),
        (f"{BENCHMARK} --words few", "'few'", "--help"),
        (f"{BENCHMARK} --workers -1", "--workers", "at least 0"),
        (f"{BENCHMARK} --cold-words -1", "--cold-words", "at least 0"),
        (f"{BENCHMARK} --window-batch 0", "window_batch", "at least 1"),
        (f"{BENCHMARK} --sizes mars", "'mars'", "voc"),
        (f"{BENCHMARK} --model ViT-Z", "'ViT-Z'", "list_models"),
        (f"{BENCHMARK} --device cuda:9", "cuda:9", "--device cpu"),
        (f"{BENCHMARK} --precision fp12", "'fp12'", "bf16"),
        (f"{BENCHMARK} --out empty", "empty", "file"),
        (f"{BENCHMARK} --out notes.txt/figures.json", "notes.txt", "folder"),
    ],
    "tools/compare_with_release.py": [
        ("", "release", "--help"),
        ("none", "none", "github.com/mc-lan/ClearCLIP"),
        ("empty", "clearclip_segmentor.py", "checkout"),
        ("empty --device cuda:9", "cuda:9", "--device cpu"),
        ("empty --precision fp12", "fp12", "--help"),
    ],
    "tools/train_miniature.py": [
        (f"{TRAIN} --steps many", "'many'", "--help"),
        (f"{TRAIN} --steps 0", "--steps", "at least 1"),
        (f"{TRAIN} --batch 0", "--batch", "at least 1"),
        (f"{TRAIN} --scenes 0", "--scenes", "at least 1"),
        (f"{TRAIN} --log-every 0", "--log-every", "at least 1"),
        (f"{TRAIN} --resume", "checkpoint.pt", "without --resume"),
        (f"{TRAIN} --resume --checkpoint weights/garbage.pt", "weights/garbage.pt", "without --resume"),
        (f"{TRAIN} --resume --checkpoint weights/small.pt", "weights/small.pt", "without --resume"),
        (f"{TRAIN} --resume --checkpoint weights/harmful.pt", "weights/harmful.pt", "without --resume"),
        (f"{TRAIN} --out notes.txt", "notes.txt", "folder"),
    ],
    "tools/draw_miniature.py": [
        ("--out drawn --set moon", "'moon'", "benchmark"),
        ("--out drawn --colour red", "--colour", "--help"),
        ("--out notes.txt", "notes.txt", "folder"),
    ],
}  # fmt: skip
ALL = [pytest.param(script, *case, id=f"{script} {case[0]}") for script, cases in CASES.items() for case in cases]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory, quick_name: str) -> Path:
    folder = tmp_path_factory.mktemp("bad")
    bad_inputs.build(folder, Path(quick_name.removeprefix("local-dir:")))
    return folder


@pytest.fixture
def world(built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory: a copy of the folder full of broken things."""
    folder = Path(shutil.copytree(built, tmp_path / "world", symlinks=True))
    monkeypatch.chdir(folder)
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT", "SLURM_PROCID", "CLEARCLIP_DATA"):
        monkeypatch.delenv(name, raising=False)
    return folder


def contents(folder: Path) -> dict[Path, bytes | None]:
    """Every path below ``folder`` with what it holds; None for folders."""
    return {path: path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


def check(code: int, error: str, culprit: str, remedy: str) -> None:
    """Exit code 2, and one line that has both words; warnings and the text's progress may stand before it."""
    assert code == 2, error
    others = ("warning: ", "text features:")
    lines = [line for line in error.splitlines() if line.strip() and not line.startswith(others)]
    assert len(lines) == 1, error
    assert lines[0].startswith("error: ")
    assert culprit in lines[0]
    assert remedy in lines[0]
    assert len(lines[0]) < 1200


@pytest.mark.parametrize("script, arguments, culprit, remedy", ALL)
def test_one_line_and_nothing_written(script, arguments, culprit, remedy, world, quick_name, monkeypatch, capfd):
    before = contents(world)
    monkeypatch.setattr(sys, "argv", [script, *shlex.split(arguments.format(model=quick_name))])
    with pytest.raises(SystemExit) as stop:
        # In this process, which spares it the imports.
        runpy.run_path(str(ROOT / script), run_name="__main__")
    check(stop.value.code, capfd.readouterr().err, culprit, remedy)
    assert contents(world) == before


def test_a_dataset_that_its_settings_do_not_fit(world, quick_name, monkeypatch, capfd):
    """Found when the dataset is built, after the work dir was made."""
    for setting in ("test_dataloader.dataset.colour=red", "test_dataloader.colour=red"):
        monkeypatch.setattr(sys, "argv", ["eval.py", *shlex.split(f"{VOC} {setting}".format(model=quick_name))])
        with pytest.raises(SystemExit) as stop:
            runpy.run_path(str(ROOT / "eval.py"), run_name="__main__")
        check(stop.value.code, capfd.readouterr().err, "'colour'", "test_dataloader")
        assert (world / "results.xlsx").read_bytes() == b"somebody's own workbook"
        assert not (world / "results.jsonl").exists()


@pytest.mark.parametrize(
    "variables, command, culprit, remedy",
    [
        ({}, "bash {root}/dist_test.sh", "no config", "config/cfg_voc21.py"),
        ({}, "bash {root}/dist_test.sh none.py", "none.py", "config/"),
        ({"GPUS": "0"}, "bash {root}/dist_test.sh {voc}", "GPUS", "at least 1"),
        ({"GPUS": "two"}, "bash {root}/dist_test.sh {voc}", "'two'", "whole number"),
        ({"GPUS": "1", "NNODES": "2"}, "bash {root}/dist_test.sh {voc}", "NNODES=2", "PORT"),
        ({"GPUS": "1", "NNODES": "2", "NODE_RANK": "2"}, "bash {root}/dist_test.sh {voc}", "NODE_RANK=2", "from 0"),
        ({"GPUS": "1", "PORT": "x"}, "bash {root}/dist_test.sh {voc}", "PORT", "whole number"),
        ({"GPUS": "1"}, "bash {root}/dist_test.sh {voc} --data-root none", "none", "datasets/README.md"),
    ],
)
def test_processes(variables, command, culprit, remedy, world, monkeypatch):
    for name in ("GPUS", "NNODES", "NODE_RANK", "PORT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {**variables, "PYTHON": sys.executable, "CUDA_VISIBLE_DEVICES": ""}.items():
        monkeypatch.setenv(name, value)
    before = contents(world)
    command = command.format(root=ROOT, voc=bad_inputs.VOC)
    done = subprocess.run(shlex.split(command), capture_output=True, text=True, timeout=120)
    check(done.returncode, done.stderr, culprit, remedy)
    assert done.stdout == ""
    assert contents(world) == before


@pytest.mark.parametrize("script", CASES)
def test_help(script, world, monkeypatch, capfd):
    monkeypatch.setattr(sys, "argv", [script, "--help"])
    with pytest.raises(SystemExit) as stop:
        runpy.run_path(str(ROOT / script), run_name="__main__")
    assert stop.value.code == 0
    out, error = capfd.readouterr()
    assert out.startswith("usage: ") and error == ""
