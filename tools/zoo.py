"""Every configuration of the installed OpenCLIP, with random weights: does its image tower run here, and is it right?
Writes docs/models.md.

    python tools/zoo.py                       # all of them, a few minutes on two cores
    python tools/zoo.py --models ViT-B-16 EVA02-B-16 --out models.md

Towers are cut to their first two blocks, so that the largest fit; a block is a block. Compared are the patch tokens
after the last block with those of OpenCLIP's own forward pass, as a share of the largest of them: at the trained
resolution and at another one (method CLIP, fp32), and in bf16 with OpenCLIP's fp32.
"""

from __future__ import annotations

import copy
import json
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import open_clip
import timm
import torch
from open_clip.model import resize_pos_embed
from torch import Tensor, nn

from clearclip.backbones import DenseEncoder
from clearclip.backbones.casting import cast
from clearclip.backbones.clip_loading import outline
from clearclip.commands.command_line import CommandParser, run_command
from clearclip.methods import LastBlock
from clearclip.utils.devices import possible_precisions
from clearclip.utils.errors import UserError
from clearclip.utils.files import write_text_atomically

BLOCKS = 2
#: What the page says of the families outside OpenCLIP.
DENSE_SECTION = Path(__file__).with_name("dense_page.md")
#: Families by how the names of their models begin.
FAMILIES = {
    "ViT": r"ViT-.{1,4}-\d\d(?!.*(SigLIP|CLIPA|worldwide))", "worldwide": r"ViT.*worldwide", "CLIPA": r"ViT.*CLIPA",
    "SigLIP 2": r"ViT.*SigLIP2", "SigLIP": r"ViT.*SigLIP", "EVA-01": r"EVA01", "EVA-02": r"EVA02", "PE": r"PE-Core",
    "MobileCLIP": r"MobileCLIP", "ViTamin": r"ViTamin", "NLLB": r"nllb", "text by mT5 or RoBERTa": r"(mt5|roberta|xlm)",
    "CoCa": r"coca", "ConvNeXt": r"convnext", "ResNet": r"RN", "others": r"",
}  # fmt: skip


class CLIPBySize(LastBlock):
    """CLIP, with positions resized as OpenCLIP and timm resize them."""

    position_resize = "size"


CLIP = CLIPBySize("qk", residual=True, ffn=True)


@dataclass(frozen=True)
class Finding:
    """What became of a model.

    Attributes:
        name: the model's, in OpenCLIP.
        tags: its published weights.
        text: where its text tower and tokenizer come from; empty for OpenCLIP's own.
        tower: its image tower in words; empty where it is refused.
        refused: why; empty where it runs.
        differences: to OpenCLIP's own tokens, by what was compared.
    """

    name: str
    tags: tuple[str, ...]
    text: str
    tower: str
    refused: str
    differences: dict[str, float]

    @property
    def family(self) -> str:
        """The key of :data:`FAMILIES`."""
        return next(family for family, start in FAMILIES.items() if re.match(start, self.name))


def survey(names: Sequence[str]) -> Iterator[Finding]:
    """Try these models. Towers that are built in the same way are computed once."""
    known: dict[str, dict[str, float]] = {}
    for name in names:
        config = open_clip.get_model_config(name)
        text = config["text_cfg"]
        sources = dict.fromkeys(filter(None, (text.get("hf_model_name"), text.get("hf_tokenizer_name"))))
        found = [name, tuple(open_clip.list_pretrained_tags_by_model(name)), ", ".join(sources)]
        try:
            encoder = outline(config)
        except UserError as error:
            yield Finding(*found, "", str(error), {})
            continue
        key = json.dumps([config["vision_cfg"], config["embed_dim"], config.get("quick_gelu")])
        if key not in known:
            known[key] = compare(encoder)
        yield Finding(*found, describe(encoder), "", known[key])


def describe(encoder: DenseEncoder) -> str:
    """A tower in a few words, before it is cut."""
    registers = encoder.num_prefix_tokens - encoder.has_class_token
    words = [f"{len(encoder.blocks)} blocks", f"patch {encoder.patch_size[0]}", f"{encoder.image_size} px"]
    words += [] if encoder.has_class_token else ["no class token"]
    return ", ".join([*words, f"{registers} registers"] if registers else words)


def compare(encoder: DenseEncoder) -> dict[str, float]:
    """Largest differences of patch tokens to OpenCLIP's, for a tower without weights."""
    visual = fill(copy.deepcopy(encoder.visual))
    ours = type(encoder)(visual).eval()
    rows, columns = ours.grid_size
    patch = ours.patch_size
    other = (patch[0] * (rows + 2), patch[1] * (columns - 1))
    found = {}
    for what, size in (("trained size", (ours.image_size, ours.image_size)), ("another size", other)):
        images = torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(0))
        wanted = own_tokens(visual, images, tuple(side // one for side, one in zip(size, patch, strict=True)))
        found[what] = difference(tokens(ours, images), wanted)
        if what == "trained size" and "bf16" in possible_precisions(torch.device("cpu")):
            half = cast(type(encoder)(copy.deepcopy(visual)), "bf16").eval()
            found["bf16"] = difference(tokens(half, images).float(), wanted)
    return found


def fill(visual: nn.Module) -> nn.Module:
    """Cut a tower to :data:`BLOCKS` and give it random weights: attention is far from uniform, every part matters."""
    holder, name = (visual.trunk, "blocks") if hasattr(visual, "trunk") else (visual.transformer, "resblocks")
    setattr(holder, name, getattr(holder, name)[:BLOCKS])
    visual = visual.to_empty(device="cpu").eval().requires_grad_(False)
    for module in visual.modules():
        if hasattr(module, "init_non_persistent_buffers"):
            module.init_non_persistent_buffers()
    generator = torch.Generator().manual_seed(0)
    for name, value in visual.state_dict().items():
        if value.is_floating_point():
            value.normal_(std=2 * value[0].numel() ** -0.5 if value.ndim > 1 else 0.2, generator=generator)
        else:
            value.zero_()
        if value.ndim == 1 and name.endswith(("weight", "running_var")):  # of a norm
            value.abs_().add_(0.8)
    return visual


@torch.inference_mode()
def tokens(encoder: DenseEncoder, images: Tensor) -> Tensor:
    """Our patch tokens after the last block, (B, N, D)."""
    seen = []
    encoder.head = lambda patches: seen.append(patches) or patches
    encoder(images, [CLIP])
    return seen[0]


@torch.inference_mode()
def own_tokens(visual: nn.Module, images: Tensor, grid: tuple[int, int]) -> Tensor:
    """OpenCLIP's, by its own forward pass and resizing."""
    visual = copy.deepcopy(visual)
    if hasattr(visual, "trunk"):
        if tuple(visual.trunk.patch_embed.grid_size) != grid:
            visual.set_input_size(tuple(images.shape[-2:]))
    else:
        state = {"visual.positional_embedding": visual.positional_embedding.data}
        old = visual.grid_size[0]
        if (old, old) != grid:
            resize_pos_embed(state, SimpleNamespace(visual=SimpleNamespace(grid_size=grid)))
        visual.positional_embedding = nn.Parameter(state["visual.positional_embedding"], requires_grad=False)
    return visual.forward_intermediates(images, indices=1, output_fmt="NLC")["image_intermediates"][0]


def difference(ours: Tensor, wanted: Tensor) -> float:
    """The largest, as a share of the largest token."""
    return ((ours - wanted).abs().max() / wanted.abs().max()).item()


def report(findings: Sequence[Finding]) -> str:
    """docs/models.md."""
    run = [one for one in findings if not one.refused]
    torch_version = torch.__version__.partition("+")[0]
    versions = f"open_clip_torch {open_clip.__version__}, timm {timm.__version__} and PyTorch {torch_version}"
    lines = [
        "# Models",
        "",
        f"{len(run)} of OpenCLIP's {len(findings)} configurations run here, and so do {weights(run)} of its "
        f"{weights(findings)} published weights: name one as",
        f"`--model` and one of its weights as `--pretrained`. Written by `python tools/zoo.py`, with {versions};",
        "only architectures were tried, with random weights. **Nobody has measured segmentation** with any of them but "
        "those",
        "of the [published tables](published.md).",
        "",
        "Where a tower ends in a pool over its patches, what a patch alone becomes is taken: a norm or projection",
        "after the pool is applied to every patch, and of attention pooling (SigLIP, PE) the value path is kept, as",
        "MaskCLIP does with the last block. Methods that read the class token, such as SC-CLIP, refuse towers without",
        "one.",
        "",
        f"The last columns: patch tokens after {BLOCKS} blocks (method CLIP) against OpenCLIP's own, as a share of the",
        "largest token; bf16 against OpenCLIP's fp32. Text towers are OpenCLIP's own modules and were not tried.",
        "",
        "The families outside OpenCLIP are [below](#backbones-whose-patches-are-aligned-with-text).",
        "",
        "A tower of your own is a `DenseEncoder`, registered for the class of the module that OpenCLIP holds as",
        "`visual`: `@clearclip.backbones.TOWERS.register_module(MyVisual)`. Start from",
        "`clearclip/backbones/open_clip_tower.py`.",
        "",
    ]
    columns = list(dict.fromkeys(what for one in run for what in one.differences))
    head = ["family", "model", "image tower", "text tower and tokenizer from", "published weights", *columns]
    rows = [
        [one.family, one.name, one.tower, one.text or "OpenCLIP", ", ".join(one.tags)]
        + [f"{one.differences[column]:.0e}" if one.differences[column] else "0" for column in columns]
        for family in FAMILIES
        for one in run
        if one.family == family
    ]
    lines += [
        *table(head, rows),
        "",
        DENSE_SECTION.read_text(encoding="utf-8").rstrip(),
        "",
        "## Refused",
        "",
        "In one line, before anything is downloaded.",
        "",
    ]
    refused: dict[tuple[str, str], list[Finding]] = {}
    for one in findings:
        if one.refused:
            refused.setdefault((one.family, one.refused.partition(";")[0]), []).append(one)
    head = ["family", "models", "published weights", "why"]
    rows = [
        [family, ", ".join(x.name for x in ones), str(weights(ones)), why] for (family, why), ones in refused.items()
    ]
    return "\n".join([*lines, *table(head, rows), ""])


def weights(findings: Sequence[Finding]) -> int:
    """How many published weights these models have."""
    return sum(len(one.tags) for one in findings)


def table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[str]:
    """The lines of a Markdown table."""
    return [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows)]


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the table; 1 if a tower differs."""
    parser = CommandParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--models", nargs="+", default=open_clip.list_models(), help="OpenCLIP's names (default: all)")
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "docs" / "models.md", help="the page")
    options = parser.parse_args(arguments)
    if unknown := [name for name in options.models if name not in open_clip.list_models()]:
        raise UserError(f"unknown model {unknown[0]!r}; open_clip.list_models() has the names")
    findings = []
    for one in survey(options.models):
        findings.append(one)
        figures = " ".join(f"{value:.1e} ({what})" for what, value in one.differences.items())
        print(f"{one.name}: {one.refused or figures}", flush=True)
    print(write_text_atomically(options.out, report(findings)))
    differ = [one.name for one in findings if any(v > 1e-5 for k, v in one.differences.items() if k != "bf16")]
    if differ:
        print(f"differ from OpenCLIP by more than 1e-5: {', '.join(differ)}")
    return int(bool(differ))


if __name__ == "__main__":
    sys.exit(run_command(main))
