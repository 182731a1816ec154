"""The specification, written out with loops in float64: the judge of the fast code. It shares nothing with it."""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def layer_norm(x: np.ndarray, weight: np.ndarray, bias: np.ndarray, eps: float = 1e-5) -> np.ndarray:
    out = np.empty_like(x)
    for t in range(len(x)):
        mean = x[t].mean()
        out[t] = (x[t] - mean) / math.sqrt(((x[t] - mean) ** 2).mean() + eps) * weight + bias
    return out


def unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


class Tower:
    """An OpenCLIP image tower as NumPy arrays; one image at a time."""

    def __init__(self, state: dict[str, torch.Tensor], heads: int, patch: int, quick_gelu: bool):
        self.w = {k.removeprefix("visual."): v.double().numpy() for k, v in state.items() if k.startswith("visual.")}
        self.heads, self.patch, self.quick_gelu = heads, patch, quick_gelu
        self.layers = 1 + max(int(k.split(".")[2]) for k in self.w if k.startswith("transformer.resblocks."))

    def block(self, index: int, name: str) -> np.ndarray:
        return self.w[f"transformer.resblocks.{index}.{name}"]

    def gelu(self, x: np.ndarray) -> np.ndarray:
        if self.quick_gelu:
            return x / (1 + np.exp(-1.702 * x))
        return np.array([0.5 * v * (1 + math.erf(v / math.sqrt(2))) for v in x.ravel()]).reshape(x.shape)

    def stem(self, image: np.ndarray, positions: str) -> np.ndarray:
        """(3, H, W) to (1+N, D)."""
        p = self.patch
        h, w = image.shape[1] // p, image.shape[2] // p
        kernel = self.w["conv1.weight"].reshape(len(self.w["conv1.weight"]), -1)
        tokens = [self.w["class_embedding"]]
        for y in range(h):
            for x in range(w):
                tokens.append(kernel @ image[:, y * p : y * p + p, x * p : x * p + p].reshape(-1))
        x = np.stack(tokens) + self.positions((h, w), positions)
        return layer_norm(x, self.w["ln_pre.weight"], self.w["ln_pre.bias"])

    def positions(self, grid: tuple[int, int], how: str) -> np.ndarray:
        table = self.w["positional_embedding"]
        side = int(math.sqrt(len(table) - 1))
        if grid == (side, side):
            return table
        # float32, as every implementation interpolates; the interpolation itself is PyTorch's.
        patches = torch.from_numpy(table[1:]).float().reshape(1, side, side, -1).permute(0, 3, 1, 2)
        if how == "scale":
            scale = ((grid[0] + 0.1) / side, (grid[1] + 0.1) / side)
            patches = F.interpolate(patches, scale_factor=scale, mode="bicubic", align_corners=False)
        else:
            patches = F.interpolate(patches, size=grid, mode="bicubic", align_corners=False, antialias=True)
        return np.concatenate([table[:1], patches[0].flatten(1).T.double().numpy()])

    def qkv(self, index: int, x: np.ndarray) -> list[list[np.ndarray]]:
        """[q, k, v], each a list of heads (T, D / heads)."""
        projected = x @ self.block(index, "attn.in_proj_weight").T + self.block(index, "attn.in_proj_bias")
        return [np.split(part, self.heads, axis=1) for part in np.split(projected, 3, axis=1)]

    def out_proj(self, index: int, heads: list[np.ndarray]) -> np.ndarray:
        joined = np.concatenate(heads, axis=1)
        return joined @ self.block(index, "attn.out_proj.weight").T + self.block(index, "attn.out_proj.bias")

    def attend(self, index: int, x: np.ndarray, attention: str) -> np.ndarray:
        """X_attn of the block's input ``x``."""
        normed = layer_norm(x, self.block(index, "ln_1.weight"), self.block(index, "ln_1.bias"))
        q, k, v = self.qkv(index, normed)
        scale = q[0].shape[1] ** -0.5
        heads = []
        for qh, kh, vh in zip(q, k, v, strict=True):
            if attention == "identity":
                weights = np.eye(len(x))
            elif attention == "qq+kk":
                weights = softmax(qh @ qh.T * scale) + softmax(kh @ kh.T * scale)
            else:
                left, right = ({"q": qh, "k": kh, "v": vh}[name] for name in attention)
                weights = softmax(left @ right.T * scale)
            heads.append(weights @ vh)
        return self.out_proj(index, heads)

    def mlp(self, index: int, x: np.ndarray) -> np.ndarray:
        x = layer_norm(x, self.block(index, "ln_2.weight"), self.block(index, "ln_2.bias"))
        x = self.gelu(x @ self.block(index, "mlp.c_fc.weight").T + self.block(index, "mlp.c_fc.bias"))
        return x @ self.block(index, "mlp.c_proj.weight").T + self.block(index, "mlp.c_proj.bias")

    def run_block(self, index: int, x: np.ndarray, attention="qk", residual=True, ffn=True, alpha=1.0) -> np.ndarray:
        total = alpha * self.attend(index, x, attention)
        if residual:
            total = x + total
        return total + self.mlp(index, total) if ffn else total

    def finish(self, x: np.ndarray, grid: tuple[int, int]) -> np.ndarray:
        x = layer_norm(x, self.w["ln_post.weight"], self.w["ln_post.bias"]) @ self.w["proj"]
        return x[1:].reshape(*grid, -1)

    def grid(self, image: np.ndarray) -> tuple[int, int]:
        return image.shape[1] // self.patch, image.shape[2] // self.patch

    def features(self, image: np.ndarray, attention="qq", residual=False, ffn=False, alpha=1.0) -> np.ndarray:
        """(h, w, E) of a (3, H, W) image."""
        x = self.stem(image, "scale")
        for index in range(self.layers - 1):
            x = self.run_block(index, x)
        return self.finish(self.run_block(self.layers - 1, x, attention, residual, ffn, alpha), self.grid(image))

    def gem_features(self, image: np.ndarray, residual: bool) -> np.ndarray:
        ori = self.stem(image, "size")
        gem = None
        for index in range(self.layers):
            if index == self.layers - 6:
                gem = ori
            if gem is not None:
                normed = layer_norm(ori, self.block(index, "ln_1.weight"), self.block(index, "ln_1.bias"))
                q, k, v = self.qkv(index, normed)
                tau = np.mean([np.linalg.norm(token) for token in normed]) * q[0].shape[1] ** -0.5
                heads = []
                for head in range(self.heads):
                    mean = 0
                    for part in (v, k, q):
                        p = unit(part[head])
                        p = unit(softmax(p @ p.T * tau) @ p)
                        mean = mean + softmax(p @ p.T * tau) @ v[head] / 3
                    heads.append(mean)
                x_attn = self.out_proj(index, heads)
                gem = gem + x_attn if residual else x_attn
            ori = self.run_block(index, ori)
        return self.finish(gem, self.grid(image))


def bilinear(grid: np.ndarray, height: int, width: int) -> np.ndarray:
    """Bilinear resize (align_corners=False) of (K, h, w), from its definition."""
    k, h, w = grid.shape

    def axis(n_in: int, n_out: int) -> list[tuple[int, int, float]]:
        out = []
        for i in range(n_out):
            position = max((i + 0.5) * n_in / n_out - 0.5, 0)
            low = min(int(position), n_in - 1)
            out.append((low, min(low + 1, n_in - 1), position - low))
        return out

    out = np.empty((k, height, width))
    columns = axis(w, width)
    for y, (y0, y1, fy) in enumerate(axis(h, height)):
        row = grid[:, y0] * (1 - fy) + grid[:, y1] * fy
        for x, (x0, x1, fx) in enumerate(columns):
            out[:, y, x] = row[:, x0] * (1 - fx) + row[:, x1] * fx
    return out


def similarities(features: np.ndarray, text: np.ndarray) -> np.ndarray:
    """(h, w, E) and (K, E) to (K, h, w), cosine."""
    return np.einsum("hwe,ke->khw", unit(features), text)


def logits(image: np.ndarray, encode, text: np.ndarray, patch: int, crop: int, stride: int, size: tuple[int, int]):
    """(K, *size) of a normalised (3, full_h, full_w) image; ``encode`` gives a window's (h, w, E)."""
    _, full_h, full_w = image.shape
    if crop == 0:
        whole = image[:, : full_h // patch * patch, : full_w // patch * patch]
        return bilinear(similarities(encode(whole), text), *size)
    total, count = np.zeros((len(text), full_h, full_w)), np.zeros((full_h, full_w))
    for row in range(max(full_h - crop + stride - 1, 0) // stride + 1):
        for column in range(max(full_w - crop + stride - 1, 0) // stride + 1):
            y2, x2 = min(row * stride + crop, full_h), min(column * stride + crop, full_w)
            y1, x1 = max(y2 - crop, 0), max(x2 - crop, 0)
            window = image[:, y1:y2, x1:x2]
            h, w = window.shape[1:]
            extra_h, extra_w = -h % patch, -w % patch
            top, left = extra_h // 2, extra_w // 2
            padded = np.zeros((3, h + extra_h, w + extra_w))
            padded[:, top : top + h, left : left + w] = window
            up = bilinear(similarities(encode(padded), text), *padded.shape[1:])
            total[:, y1:y2, x1:x2] += up[:, top : top + h, left : left + w]
            count[y1:y2, x1:x2] += 1
    return bilinear(total / count, *size)


def probabilities(values: np.ndarray, word_to_class: list[int], logit_scale: float) -> np.ndarray:
    """(K, H, W) to (classes, H, W)."""
    by_word = softmax(np.moveaxis(values, 0, -1) * logit_scale)
    out = np.zeros((max(word_to_class) + 1, *values.shape[1:]))
    for word, label in enumerate(word_to_class):
        out[label] = np.maximum(out[label], by_word[..., word])
    return out


def labels(probability: np.ndarray, threshold: float) -> np.ndarray:
    best = probability.argmax(axis=0)
    best[probability.max(axis=0) < threshold] = 0
    return best


def text_features(model, tokenizer, words: list[str], templates) -> np.ndarray:
    """(K, E) from ``model.encode_text``, prompt by prompt."""
    out = []
    for word in words:
        each = []
        for template in templates:
            with torch.no_grad():
                each.append(unit(model.encode_text(tokenizer([template(word)]))[0].double().numpy()))
        out.append(unit(np.mean(each, axis=0)))
    return np.stack(out)
