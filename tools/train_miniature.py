"""Train the miniature from scratch: CLIP's contrastive loss on drawn scenes and their captions.

    python tools/train_miniature.py                 # everything, from nothing to the bundled weights
    python tools/train_miniature.py --resume        # go on after an interruption

The images are random crops of drawn scenes, the captions name a random part of what a crop shows; no label map
reaches the model or the loss. Everything is counted in steps and drawn from (seed, step), so an interrupted and
an uninterrupted run give the same weights.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import json
import math
import multiprocessing
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import open_clip
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from clearclip.errors import CommandParser, UserError, run_command
from clearclip.files import check_folder, write_atomically
from clearclip.miniature import CLASSES, DIRECTORY
from clearclip.miniature.captions import visible_names, write_caption
from clearclip.miniature.scenes import TRAINING_SEEDS, draw_scene

CONFIG, WEIGHTS, LOG = "open_clip_config.json", "open_clip_model.safetensors", "training_log.csv"
CAPTIONS_PER_IMAGE = 2
CROPS = (32, 112)
CLOSER_CROPS = (28, 96)
LOG_COLUMNS = ("step", "loss", "learning_rate", "patch_dropout", "seconds")


@dataclass
class Scenes:
    """All training scenes in memory: images (S, 3, H, W) and labels (S, 1, H, W) in uint8, and colour words."""

    images: torch.Tensor
    labels: torch.Tensor
    colours: list[dict[str, str]]


def draw_scenes(count: int, workers: int) -> Scenes:
    """Draw the first ``count`` training scenes with several processes."""
    images, labels, colours = np.empty((count, 128, 128, 3), np.uint8), np.empty((count, 128, 128), np.uint8), []
    with contextlib.ExitStack() as stack:
        if workers > 1:
            pool = stack.enter_context(multiprocessing.get_context("spawn").Pool(workers))
            drawn = pool.imap(draw_scene, TRAINING_SEEDS[:count], chunksize=64)
        else:
            drawn = map(draw_scene, TRAINING_SEEDS[:count])
        for k, scene in enumerate(drawn):
            images[k], labels[k] = scene.image, scene.labels
            colours.append(scene.colours)
            if (k + 1) % 4000 == 0:
                print(f"drawn {k + 1} of {count} scenes", flush=True)
    return Scenes(torch.from_numpy(images).permute(0, 3, 1, 2), torch.from_numpy(labels)[:, None], colours)


def random_crops(
    scenes: Scenes, indices: np.ndarray, rng: np.random.Generator, size: int, sides: tuple[int, int] = CROPS
):
    """Random square crops of ``sides`` pixels, some mirrored, resized: images (B, 3, size, size), shares (B, C)."""
    count, extent = len(indices), scenes.images.shape[-1]
    side = np.exp(rng.uniform(*np.log(sides), count)) / extent
    centre = (1 - side[:, None]) * rng.uniform(-1, 1, (count, 2))
    mirror = np.where(rng.random(count) < 0.5, -1.0, 1.0)
    theta = torch.zeros(count, 2, 3)
    theta[:, 0, 0], theta[:, 1, 1] = torch.from_numpy(side * mirror), torch.from_numpy(side)
    theta[:, :, 2] = torch.from_numpy(centre)
    grid = F.affine_grid(theta, [count, 1, size, size], align_corners=False)
    chosen = torch.from_numpy(indices)
    images = F.grid_sample(scenes.images[chosen].float(), grid, padding_mode="border", align_corners=False)
    labels = F.grid_sample(scenes.labels[chosen].float(), grid, mode="nearest", align_corners=False)
    counts = torch.zeros(count, len(CLASSES)).scatter_add_(1, labels.flatten(1).long(), torch.ones(count, size * size))
    return images / 255, (counts / size**2).numpy()


def make_batch(
    scenes: Scenes, config: dict, tokenizer: Callable, rng: np.random.Generator, batch: int, sides: tuple[int, int]
):
    """Normalised images (B, 3, H, W) and tokens (`CAPTIONS_PER_IMAGE` · B, L) of their captions."""
    indices = rng.integers(len(scenes.colours), size=batch)
    images, shares = random_crops(scenes, indices, rng, config["model_cfg"]["vision_cfg"]["image_size"], sides)
    captions = []
    for _ in range(CAPTIONS_PER_IMAGE):
        for share, index in zip(shares, indices, strict=True):
            captions.append(write_caption(rng, visible_names(share, CLASSES), scenes.colours[index]))
    statistics = (torch.tensor(config["preprocess_cfg"][key]).view(1, 3, 1, 1) for key in ("mean", "std"))
    mean, std = statistics
    return (images - mean) / std, tokenizer(captions)


def create_model(config_directory: Path, seed: int) -> torch.nn.Module:
    """OpenCLIP's model of the config, freshly initialised, with a patch dropout that the schedule sets."""
    torch.manual_seed(seed)
    model = open_clip.create_model(f"local-dir:{config_directory}", load_weights=False, force_patch_dropout=0.5)
    for block in (*model.visual.transformer.resblocks, *model.transformer.resblocks):
        # Asked for its weights, attention runs as plain matrix products: the fused CPU kernel is slower at this width.
        block.attn.register_forward_pre_hook(_ask_for_weights, with_kwargs=True)
    return model


def _ask_for_weights(module: torch.nn.Module, positional: tuple, named: dict) -> tuple[tuple, dict]:
    return positional, {**named, "need_weights": True, "average_attn_weights": False}


def create_optimizer(model: torch.nn.Module) -> torch.optim.Optimizer:
    """AdamW that decays matrices only, as OpenCLIP's own training does."""
    matrices = [p for p in model.parameters() if p.ndim >= 2]
    others = [p for p in model.parameters() if p.ndim < 2]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=0.0, betas=(0.9, 0.98), eps=1e-6, fused=True)


def contrastive_loss(image_features: torch.Tensor, text_features: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    """CLIP's softmax loss of B images (B, E) with each of their captions (k · B, E), averaged over the k."""
    targets = torch.arange(len(image_features))
    losses = []
    for texts in text_features.split(len(image_features)):
        logits = scale * image_features @ texts.T
        losses.append((F.cross_entropy(logits, targets) + F.cross_entropy(logits.T, targets)) / 2)
    return torch.stack(losses).mean()


def schedule(step: int, arguments: argparse.Namespace) -> tuple[float, float, tuple[int, int], int]:
    """Learning rate, patch dropout, crop sides and batch size of a step.

    First stage: linear warm-up, then cosine to zero; patches are dropped in the first part of its steps. Second
    stage: cosine to zero from a smaller rate, with closer views, all patches and smaller batches.
    """
    if step >= arguments.steps:
        progress = (step - arguments.steps) / arguments.second_steps
        return arguments.second_lr * (1 + math.cos(math.pi * progress)) / 2, 0.0, CLOSER_CROPS, arguments.second_batch
    progress = (step - arguments.warmup) / max(arguments.steps - arguments.warmup, 1)
    rate = step / arguments.warmup if step < arguments.warmup else (1 + math.cos(math.pi * progress)) / 2
    dropout = arguments.patch_dropout if step < arguments.dropout_part * arguments.steps else 0.0
    return arguments.lr * rate, dropout, CROPS, arguments.batch


def train(arguments: argparse.Namespace) -> None:
    """Train, with a checkpoint every ``--every`` steps, and export the weights at the end."""
    torch.set_num_threads(arguments.threads)
    config = json.loads((DIRECTORY / CONFIG).read_text())
    tokenizer = open_clip.get_tokenizer(f"local-dir:{DIRECTORY}")
    model = create_model(DIRECTORY, arguments.seed)
    optimizer = create_optimizer(model)
    first, rows, spent = 0, [], 0.0
    if arguments.resume:
        first, rows, spent = load_checkpoint(arguments.checkpoint, model, optimizer, arguments)
    scenes = draw_scenes(arguments.scenes, arguments.workers)
    began, recent = time.perf_counter() - spent, []
    last = arguments.steps + arguments.second_steps
    for step in range(first, last):
        torch.manual_seed(arguments.seed * 1_000_003 + step)  # patch dropout
        rng = np.random.default_rng((arguments.seed, step))
        rate, dropout, sides, batch = schedule(step, arguments)
        images, tokens = make_batch(scenes, config, tokenizer, rng, batch, sides)
        model.visual.patch_dropout.prob = dropout
        for group in optimizer.param_groups:
            group["lr"] = rate
        with torch.autocast("cpu", dtype=torch.bfloat16):
            image_features, text_features, scale = model(images, tokens)[:3]
        loss = contrastive_loss(image_features.float(), text_features.float(), scale.float())
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            model.logit_scale.clamp_(0, math.log(100))
        recent.append(loss.item())
        done = step + 1
        if done % arguments.log_every == 0 or done == last:
            seconds = time.perf_counter() - began
            rows.append((done, f"{np.mean(recent):.4f}", f"{rate:.3e}", dropout, round(seconds)))
            left = seconds / done * (last - done)
            print(f"step {done}/{last}  loss {np.mean(recent):.4f}  {left / 60:.1f} min left", flush=True)
            recent = []
        if done % arguments.every == 0 and done < last:
            save_checkpoint(arguments.checkpoint, model, optimizer, done, rows, time.perf_counter() - began, arguments)
    export(model, rows, arguments.out)


def _identity(arguments: argparse.Namespace) -> dict:
    """The arguments that decide the weights: a run goes on only with the same ones."""
    names = (
        "seed",
        "steps",
        "second_steps",
        "batch",
        "second_batch",
        "lr",
        "second_lr",
        "warmup",
        "patch_dropout",
        "dropout_part",
        "scenes",
    )
    return {name: getattr(arguments, name) for name in names}


def save_checkpoint(path: Path, model, optimizer, step: int, rows: list, seconds: float, arguments) -> None:
    """Write everything that a later ``--resume`` needs, in one piece."""
    state = {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "step": step,
        "rows": rows,
        "seconds": seconds,
        "arguments": _identity(arguments),
    }
    write_atomically(path, lambda part: torch.save(state, part))


def load_checkpoint(path: Path, model, optimizer, arguments: argparse.Namespace) -> tuple[int, list, float]:
    """Restore a run; returns the next step, the log so far and the seconds spent."""
    if not path.is_file():
        raise UserError(f"{path}: no checkpoint to resume from; start without --resume")
    try:
        state = torch.load(path, weights_only=True)
        before = state["arguments"]
    except Exception as error:  # damaged files raise all sorts of errors
        raise UserError(
            f"{path} is no checkpoint of this training ({type(error).__name__}); start without --resume"
        ) from error
    changed = [name for name, value in _identity(arguments).items() if before.get(name) != value]
    if changed:
        raise UserError(f"{path} was written with another --{changed[0].replace('_', '-')}; pass the same to resume")
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    return state["step"], state["rows"], state["seconds"]


def export(model: torch.nn.Module, rows: list, directory: Path) -> None:
    """Write weights (fp16 safetensors), config and log in the layout that OpenCLIP's ``local-dir:`` reads."""
    tensors = {name: value.detach().half().contiguous() for name, value in model.state_dict().items()}
    write_atomically(directory / WEIGHTS, lambda part: save_file(tensors, part, metadata={"format": "pt"}))
    if directory.resolve() != DIRECTORY:
        config = (DIRECTORY / CONFIG).read_text()
        write_atomically(directory / CONFIG, lambda part: part.write_text(config))

    def write_log(part: Path) -> None:
        with part.open("w", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows([LOG_COLUMNS, *rows])

    write_atomically(directory / LOG, write_log)
    print(f"wrote {directory / WEIGHTS} ({(directory / WEIGHTS).stat().st_size / 1e6:.1f} MB)")


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line; its defaults are the bundled weights' training."""
    parser = CommandParser(
        prog="train_miniature.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--steps", type=int, default=2800, help="steps of the first stage")
    add("--second-steps", type=int, default=2400, help="steps of the second stage, on closer views")
    add("--batch", type=int, default=256, help="images a step of the first stage")
    add("--second-batch", type=int, default=128, help="images a step of the second stage")
    add("--lr", type=float, default=2e-3, help="highest learning rate of the first stage")
    add("--second-lr", type=float, default=1e-3, help="highest learning rate of the second stage")
    add("--warmup", type=int, default=100, help="steps of linear warm-up")
    add("--patch-dropout", type=float, default=0.5, help="share of the patches left out at first")
    add("--dropout-part", type=float, default=0.65, help="share of the steps that drop patches")
    add("--scenes", type=int, default=24_000, help="scenes to draw")
    add("--seed", type=int, default=0, help="of initialisation, crops and captions")
    add("--threads", type=int, default=2, help="threads of the training")
    add("--workers", type=int, default=2, help="processes that draw the scenes")
    add("--every", type=int, default=250, help="steps between checkpoints")
    add("--log-every", type=int, default=50, help="steps between lines of the log")
    add("--checkpoint", type=Path, default=Path("work_dirs/miniature/checkpoint.pt"), help="file to resume from")
    add("--resume", action="store_true", help="go on from the checkpoint")
    add("--out", type=Path, default=DIRECTORY, help="folder for weights, config and log")
    parsed = parser.parse_args(arguments)
    for name in ("steps", "batch", "scenes", "threads", "every", "log_every"):
        if getattr(parsed, name) < 1:
            raise UserError(f"--{name.replace('_', '-')} must be at least 1, not {getattr(parsed, name)}")
    check_folder("--out", parsed.out)
    check_folder("--checkpoint", parsed.checkpoint.parent)
    return parsed


if __name__ == "__main__":
    sys.exit(run_command(lambda: train(parse_arguments())))
