"""Train the miniature from scratch: CLIP's contrastive loss on crops of drawn scenes and their captions.

    python tools/train_miniature.py --out clearclip/miniature

makes the bundled weights again; without --out it leaves them alone. The same command goes on after an interruption,
from the last checkpoint in --work: all chance comes from (seed, step), so the weights are those of an uninterrupted
run. Which classes a crop shows comes from the generator, for the captions; no label map reaches the model or the loss.
"""

from __future__ import annotations

import functools
import hashlib
import json
import math
import multiprocessing
import sys
import time
from argparse import ArgumentDefaultsHelpFormatter, Namespace, RawDescriptionHelpFormatter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import captions
import cv2
import numpy as np
import open_clip
import pandas as pd
import scenes
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from clearclip.backbones.open_clip_tower import ImageEncoder
from clearclip.commands.command_line import CommandParser, run_command
from clearclip.evaluation.confusion import confusion_counts
from clearclip.evaluation.scores import Scores
from clearclip.methods import LastBlock
from clearclip.miniature import CLASSES, DIRECTORY
from clearclip.model import ClearCLIP
from clearclip.model_settings import ModelSettings
from clearclip.text import TextEncoder
from clearclip.utils.errors import UserError
from clearclip.utils.files import check_folder, write_atomically, write_text_atomically
from clearclip.utils.validators import of_type

CONFIG, WEIGHTS, LOG = "open_clip_config.json", "open_clip_model.safetensors", "training_log.csv"
CAPTIONS_PER_IMAGE = 2
SIDE = 128  # pixels of a training scene
ROWS = {
    **{name: name for name in ("CLIP", "MaskCLIP", "SCLIP", "GEM", "ClearCLIP")},
    "qq, residual and FFN": LastBlock(residual=True, ffn=True),
    "qq, residual": LastBlock(residual=True),
    **{attention: LastBlock(attention) for attention in ("qk", "kk", "vv", "identity", "qq+kk")},
}


@dataclass
class TrainingScenes:
    """Drawn scenes, (S, H, W, 4) uint8: RGB and the label; their colour words; and the scenes of each class."""

    pixels: np.ndarray
    colours: list[dict[str, str]]

    @functools.cached_property
    def showing(self) -> list[np.ndarray]:
        """For each class that occurs, the indices of the scenes in which it covers at least 1 %."""
        counts = np.stack([np.bincount(one[..., 3].ravel(), minlength=len(CLASSES)) for one in self.pixels])
        return [np.flatnonzero(count >= 0.01 * SIDE**2) for count in counts.T]


def draw_scenes(count: int, folder: Path) -> TrainingScenes:
    """The first ``count`` training scenes, drawn once: a later start maps the files of the same generator."""
    version = hashlib.sha256(Path(scenes.__file__).read_bytes()).hexdigest()[:8]
    path = folder / f"scenes-{count}-{version}.npy"
    if not path.with_suffix(".json").is_file():
        print(f"drawing {count} scenes", flush=True)
        drawn, colours = np.empty((count, SIDE, SIDE, 4), np.uint8), []
        with multiprocessing.get_context("spawn").Pool(2) as pool:
            for k, scene in enumerate(pool.imap(scenes.draw_scene, scenes.TRAINING_SEEDS[:count], chunksize=64)):
                drawn[k] = np.dstack([scene.image, scene.labels])
                colours.append(scene.colours)
        write_atomically(path, lambda part: np.save(part, drawn))
        write_text_atomically(path.with_suffix(".json"), json.dumps(colours))
    return TrainingScenes(
        np.load(path, mmap_mode="r").view(np.ndarray), json.loads(path.with_suffix(".json").read_text())
    )


def random_crop(
    drawn: TrainingScenes, rng: np.random.Generator, sides: tuple[int, int], size: int
) -> tuple[int, np.ndarray, np.ndarray]:
    """A square crop around a pixel of a random class, maybe mirrored: scene, image (size, size, 3), shares (C,).

    All classes are equally often the one that is cropped around, however rare they are.
    """
    label = rng.integers(len(CLASSES))
    scene = drawn.showing[label][rng.integers(len(drawn.showing[label]))]
    found = np.flatnonzero(drawn.pixels[scene, ..., 3] == label)
    row, column = divmod(int(found[rng.integers(len(found))]), SIDE)
    side = round(math.exp(rng.uniform(*np.log(sides))))
    top, left = (min(max(position - int(rng.integers(side)), 0), SIDE - side) for position in (row, column))
    crop = drawn.pixels[scene, top : top + side, left : left + side]
    shares = np.bincount(crop[..., 3].ravel(), minlength=len(CLASSES)) / side**2
    image = cv2.resize(crop, (size, size), interpolation=cv2.INTER_AREA if side > size else cv2.INTER_LINEAR)
    return scene, image[:, :: rng.choice((-1, 1)), :3], shares


def make_batch(
    drawn: TrainingScenes, config: dict, tokenizer: Callable, rng: np.random.Generator, arguments: Namespace
) -> tuple[torch.Tensor, torch.Tensor]:
    """Normalised images (B, 3, H, W) and tokens (`CAPTIONS_PER_IMAGE` · B, L) of their captions."""
    size = config["model_cfg"]["vision_cfg"]["image_size"]
    crops = [random_crop(drawn, rng, arguments.crops, size) for _ in range(arguments.batch)]
    texts = [
        captions.write_caption(rng, captions.visible_names(shares), drawn.colours[scene])
        for _ in range(CAPTIONS_PER_IMAGE)
        for scene, _, shares in crops
    ]
    images = torch.from_numpy(np.stack([image for _, image, _ in crops])).permute(0, 3, 1, 2).float() / 255
    mean, std = (torch.tensor(config["preprocess_cfg"][key]).view(1, 3, 1, 1) for key in ("mean", "std"))
    return ((images - mean) / std).contiguous(), tokenizer(texts)


def create_model(seed: int, patch_dropout: float) -> torch.nn.Module:
    """OpenCLIP's model of the bundled config, freshly initialised."""
    torch.manual_seed(seed)
    model = open_clip.create_model(f"local-dir:{DIRECTORY}", load_weights=False, force_patch_dropout=patch_dropout)
    for block in (*model.visual.transformer.resblocks, *model.transformer.resblocks):
        # Asked for its weights, attention runs as plain matrix products: the fused CPU kernel is slower at this width.
        block.attn.register_forward_pre_hook(_ask_for_weights, with_kwargs=True)
    return model


def _ask_for_weights(module: torch.nn.Module, positional: tuple, named: dict) -> tuple[tuple, dict]:
    return positional, {**named, "need_weights": True, "average_attn_weights": False}


def create_optimizer(model: torch.nn.Module, weight_decay: float) -> torch.optim.Optimizer:
    """AdamW that decays matrices only, as OpenCLIP's own training does."""
    matrices = [p for p in model.parameters() if p.ndim >= 2]
    others = [p for p in model.parameters() if p.ndim < 2]
    groups = [{"params": matrices, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=0.0, betas=(0.9, 0.98), eps=1e-6, fused=True)


def contrastive_loss(image_features: torch.Tensor, text_features: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """CLIP's softmax loss of B images (B, E) with each of their captions (k · B, E), averaged over the k."""
    targets = torch.arange(len(image_features))
    losses = []
    for texts in text_features.split(len(image_features)):
        logits = scale * image_features @ texts.T
        losses.append((F.cross_entropy(logits, targets) + F.cross_entropy(logits.T, targets)) / 2)
    return torch.stack(losses).mean()


def learning_rate(step: int, arguments: Namespace) -> float:
    """Linear warm-up, then cosine to zero."""
    if step < arguments.warmup:
        return arguments.lr * (step + 1) / arguments.warmup
    progress = (step - arguments.warmup) / max(arguments.steps - arguments.warmup, 1)
    return arguments.lr * (1 + math.cos(math.pi * progress)) / 2


@torch.inference_mode()
def validate(model: torch.nn.Module, tokenizer: Callable, config: dict, count: int) -> dict[str, float]:
    """mIoU of `ROWS` on the first ``count`` validation scenes, through the package's own model."""
    model.eval()
    text = TextEncoder(model, tokenizer, dim=model.visual.output_dim, cached=False)
    settings = ModelSettings.from_options({"model_name": "miniature"})
    statistics = {key: [255 * value for value in config["preprocess_cfg"][key]] for key in ("mean", "std")}
    segmenter = ClearCLIP(ImageEncoder(model.visual), text, settings, **statistics)
    drawn = [scenes.draw_scene(seed) for seed in scenes.VALIDATION_SEEDS[:count]]
    counts = dict.fromkeys(ROWS, 0)
    found = segmenter.compare([scene.image for scene in drawn], CLASSES, list(ROWS.values()))
    for scene, results in zip(drawn, found, strict=True):
        for row, result in zip(ROWS, results.values(), strict=True):
            truth, labels = torch.from_numpy(scene.labels), torch.from_numpy(result.labels)
            counts[row] = counts[row] + confusion_counts(truth, labels, len(CLASSES))
    model.train()
    confusions = {row: Scores(count.view(len(CLASSES), -1).numpy()) for row, count in counts.items()}
    per_class = zip(CLASSES, confusions["ClearCLIP"].iou, strict=True)
    print("   ClearCLIP: " + ", ".join(f"{name} {iou:.0f}" for name, iou in per_class), flush=True)
    return {row: scores.summary["mIoU"] for row, scores in confusions.items()}


def train(arguments: Namespace) -> None:
    """Train; every ``--every`` steps validate, add a line to the log and write a checkpoint; export at the end."""
    torch.set_num_threads(arguments.threads)
    config = json.loads((DIRECTORY / CONFIG).read_text())
    tokenizer = open_clip.get_tokenizer(f"local-dir:{DIRECTORY}")
    tokenizer.clean_fn = str.lower  # captions need no repair, which would take longer than the rest
    model = create_model(arguments.seed, arguments.patch_dropout)
    optimizer = create_optimizer(model, arguments.weight_decay)
    checkpoint = arguments.work / "checkpoint.pt"
    first, log, spent = load_checkpoint(checkpoint, model, optimizer, arguments)
    drawn = draw_scenes(arguments.scenes, arguments.work)
    began, losses = time.perf_counter() - spent, []
    for step in range(first, arguments.steps):
        torch.manual_seed(arguments.seed * 1_000_003 + step)  # patch dropout
        images, tokens = make_batch(drawn, config, tokenizer, np.random.default_rng((arguments.seed, step)), arguments)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, arguments)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            image_features, text_features, scale = model(images, tokens)[:3]
        loss = contrastive_loss(image_features.float(), text_features.float(), scale.float())
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            model.logit_scale.clamp_(0, math.log(100))
        losses.append(loss.item())
        done = step + 1
        if done % arguments.every == 0 or done == arguments.steps:
            row = {"step": done, "loss": np.mean(losses), "learning rate": learning_rate(step, arguments)}
            row |= validate(model, tokenizer, config, arguments.validation)
            row["seconds"] = time.perf_counter() - began
            log.append({key: f"{value:.5g}" for key, value in row.items()})
            print(", ".join(f"{key} {value}" for key, value in log[-1].items()), flush=True)
            losses = []
            save_checkpoint(checkpoint, model, optimizer, done, log, row["seconds"], arguments)
    export(model, log, arguments)
    checkpoint.unlink()


def _identity(arguments: Namespace) -> dict:
    """The arguments that decide the weights and the log: a run goes on only with the same ones."""
    return {name: value for name, value in vars(arguments).items() if name not in ("threads", "work", "out")}


def save_checkpoint(path: Path, model, optimizer, step: int, log: list, seconds: float, arguments: Namespace) -> None:
    """Write everything that the same command needs to go on."""
    state = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
    state |= {"step": step, "log": log, "seconds": seconds, "arguments": _identity(arguments)}
    write_atomically(path, lambda part: torch.save(state, part))


def load_checkpoint(path: Path, model, optimizer, arguments: Namespace) -> tuple[int, list, float]:
    """Restore a run, if it was interrupted; returns the next step, the log so far and the seconds spent."""
    if not path.is_file():
        return 0, [], 0.0
    try:
        state = torch.load(path, weights_only=True)
        before = state["arguments"]
    except Exception as error:  # damaged files raise all sorts of errors
        reason = type(error).__name__
        raise UserError(f"{path} is no checkpoint of this training ({reason}); delete it to start again") from error
    changed = [name for name, value in _identity(arguments).items() if before.get(name) != value]
    if changed:
        option = changed[0].replace("_", "-")
        raise UserError(f"{path} was written with another --{option}; pass the same, or delete it to start again")
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    return state["step"], state["log"], state["seconds"]


def export(model: torch.nn.Module, log: list, arguments: Namespace) -> None:
    """Write weights (fp16 safetensors), config and log in the layout that OpenCLIP's ``local-dir:`` reads."""
    tensors = {name: value.detach().half().contiguous() for name, value in model.state_dict().items()}
    path = write_atomically(arguments.out / WEIGHTS, lambda part: save_file(tensors, part, metadata={"format": "pt"}))
    write_text_atomically(arguments.out / CONFIG, (DIRECTORY / CONFIG).read_text())
    write_text_atomically(arguments.out / LOG, pd.DataFrame(log).to_csv(index=False, lineterminator="\n"))
    print(f"wrote {path} ({path.stat().st_size / 1e6:.1f} MB)")


class _Help(ArgumentDefaultsHelpFormatter, RawDescriptionHelpFormatter):
    """The description as it stands, and every default."""


def parse_arguments(arguments: list[str] | None = None) -> Namespace:
    """The command line; its defaults are the bundled weights' training."""
    parser = CommandParser(prog="train_miniature.py", description=__doc__, formatter_class=_Help)
    add = parser.add_argument
    add("--steps", type=int, default=2400, help="optimizer steps")
    add("--batch", type=int, default=192, help="images a step")
    add("--lr", type=float, default=1.5e-3, help="highest learning rate")
    add("--warmup", type=int, default=100, help="steps of linear warm-up")
    add("--weight-decay", type=float, default=0.0, help="of the matrices")
    add("--patch-dropout", type=float, default=0.7, help="share of the patches left out")
    add("--crops", type=int, nargs=2, default=[20, 72], help="smallest and largest side of a crop in pixels")
    add("--scenes", type=int, default=8_000, help="scenes to draw")
    add("--validation", type=int, default=40, help="scenes to validate on")
    add("--every", type=int, default=200, help="steps between checkpoints, lines of the log and validations")
    add("--seed", type=int, default=0, help="of initialisation, crops and captions")
    add("--threads", type=int, default=1, help="threads of the training")
    add("--work", type=Path, default=Path("work_dirs/miniature"), help="folder for checkpoint and drawn scenes")
    add("--out", type=Path, default=Path("outputs/miniature"), help="folder for weights, config and log")
    parsed = parser.parse_args(arguments)
    for name in ("steps", "batch", "scenes", "validation", "every", "threads"):
        least = 64 if name == "scenes" else 1  # so many show every class
        if getattr(parsed, name) < least:
            raise UserError(f"--{name} must be at least {least}, not {getattr(parsed, name)}")
    of_type(float, low=0, high=0.98)("--patch-dropout", parsed.patch_dropout)  # one of the 64 patches stays
    if not 1 <= parsed.crops[0] <= parsed.crops[1] <= SIDE:
        raise UserError(f"--crops must be two sides from 1 to {SIDE}, the smaller one first, not {parsed.crops}")
    for name in ("work", "out"):
        check_folder(f"--{name}", getattr(parsed, name))
    return parsed


if __name__ == "__main__":
    sys.exit(run_command(lambda: train(parse_arguments())))
