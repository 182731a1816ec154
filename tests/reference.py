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

    def inputs(self, image: np.ndarray) -> list[np.ndarray]:
        """The tokens before each block, (1+N, D)."""
        tokens = [self.stem(image, "scale")]
        for index in range(self.layers - 1):
            tokens.append(self.run_block(index, tokens[-1]))
        return tokens

    def projected(self, index: int, x: np.ndarray) -> list[list[np.ndarray]]:
        """[q, k, v] of a block's input, each a list of heads."""
        return self.qkv(index, layer_norm(x, self.block(index, "ln_1.weight"), self.block(index, "ln_1.bias")))

    def naclip_attention(self, x: np.ndarray, grid: tuple[int, int], strategy: str, sigma: float) -> list[np.ndarray]:
        """The last block's weights, a (1+N, 1+N) matrix for each head."""
        q, k, _ = self.projected(self.layers - 1, x)
        scale = k[0].shape[1] ** -0.5
        omega = np.zeros((len(x), len(x)))
        for i in range(len(x) - 1):
            for j in range(len(x) - 1):
                down, right = i // grid[1] - j // grid[1], i % grid[1] - j % grid[1]
                omega[1 + i, 1 + j] = math.exp(-(down**2 + right**2) / (2 * sigma**2))
        if strategy == "nonly":
            pairs = zip(q, k, strict=True)
            lengths = [np.linalg.norm(qi) * np.linalg.norm(kj) for qh, kh in pairs for qi in qh for kj in kh]
            return [softmax(scale * np.mean(lengths) * omega)] * self.heads
        return [softmax(scale * kh @ kh.T + (omega if strategy == "naclip" else 0)) for kh in k]

    def close(self, x: np.ndarray, weights: list[np.ndarray], residual: bool, ffn: bool) -> np.ndarray:
        """The last block's input and attention weights to the tokens after it."""
        last = self.layers - 1
        _, _, v = self.projected(last, x)
        total = self.out_proj(last, [a @ vh for a, vh in zip(weights, v, strict=True)])
        total = x + total if residual else total
        return total + self.mlp(last, total) if ffn else total

    def naclip_features(self, image, strategy="naclip", sigma=5.0, residual=False, ffn=False) -> np.ndarray:
        x, grid = self.inputs(image)[-1], self.grid(image)
        return self.finish(self.close(x, self.naclip_attention(x, grid, strategy, sigma), residual, ffn), grid)

    def rcs_features(self, image, base: str, tau=2.0, lambda_r=0.3, layers=(5, 6, 7, 8)) -> np.ndarray:
        """``base``: naclip, or the pairs of the last attention ("qq", "qq+kk"); SCLIP's keeps residual and FFN."""
        inputs, grid = self.inputs(image), self.grid(image)
        x = inputs[-1]
        q, k, _ = self.projected(self.layers - 1, x)
        scale = k[0].shape[1] ** -0.5
        if base == "naclip":
            own = self.naclip_attention(x, grid, "naclip", 5.0)
        else:
            parts = {"qq": q, "kk": k}
            own = [
                sum(softmax(parts[name][h] @ parts[name][h].T * scale) for name in base.split("+")) for h in range(4)
            ]
        mixed = []
        for head in range(self.heads):
            mean = np.zeros_like(own[head])
            for layer in layers:
                ql, kl, _ = self.projected(layer, inputs[layer])
                mean += softmax(ql[head] @ kl[head].T * scale) / len(layers)
            mixed.append(tau * ((1 - lambda_r) * own[head] + lambda_r * mean))
        return self.finish(self.close(x, mixed, base == "qq+kk", base == "qq+kk"), grid)

    def scclip_features(self, image, pre, post, summed, rho, beta=0.4, neighbours=30) -> np.ndarray:
        inputs, grid, last = self.inputs(image), self.grid(image), self.layers - 1
        x = inputs[-1]
        outliers = lof_outliers(x[1:], neighbours)
        s1 = unit(repaired(inputs[pre + 1][1:], outliers, grid))
        s2 = unit(inputs[post + 1][1:])
        s1, s2 = s1 @ s1.T, s2 @ s2.T
        shared = 3 * (s1 - s1.mean())
        shared = softmax(np.where((shared < 0) & ~np.eye(len(s1), dtype=bool), -np.inf, shared))

        def gather(similarity, tokens):
            kept = np.where(similarity < beta, 0, similarity)
            return kept / (kept.sum(1, keepdims=True) + 1e-6) @ tokens

        def attend(tokens):
            _, k, v = self.projected(last, tokens)
            scale = k[0].shape[1] ** -0.5
            weights = [(shared + softmax(kh @ kh.T * scale)) / 2 for kh in k]
            return self.out_proj(last, [a @ vh for a, vh in zip(weights, v, strict=True)])

        total = sum(inputs[layer + 1] for layer in summed)
        first = gather(s2, attend(gather(s1, repaired(x[1:], outliers, grid))) + rho * x[0])
        second = gather(s2, attend(total[1:]) + rho * total[0])
        return self.finish(np.concatenate([x[:1], first + second]), grid)

    def sfp_features(
        self, image, pre=8, post=3, summed=range(3, 10), rho=0.3, beta=0.4, neighbours=30, detector="som",
        class_factor=5.0,
    ) -> np.ndarray:  # fmt: skip
        inputs, grid, last = self.inputs(image), self.grid(image), self.layers - 1
        x = inputs[-1]
        if detector == "lof":
            outliers = lof_outliers(x[1:], neighbours)
        elif detector == "l2":
            outliers = sorted(range(len(x) - 1), key=lambda i: -np.linalg.norm(x[1 + i]))[:10]
        else:
            q, k, _ = self.projected(last - 1, inputs[last - 1])
            maps = [softmax(qh @ kh.T * qh.shape[1] ** -0.5) for qh, kh in zip(q, k, strict=True)]
            mean = sum(maps) / len(maps)
            score = [class_factor * rho * mean[0, 1 + i] for i in range(len(x) - 1)]
            candidates = [i for i in range(len(x) - 1) if score[i] > mean[1 + i, 1 + i]]
            outliers = sorted(candidates, key=lambda i: -score[i])[:10]
        s1 = unit(repaired(inputs[pre + 1][1:], outliers, grid))
        s2 = unit(inputs[post + 1][1:])
        s1, s2 = s1 @ s1.T, s2 @ s2.T
        s1, s2 = np.where(s1 < beta, 0, s1), np.where(s2 < beta, 0, s2)
        shared = softmax(np.where(s1 < s1.mean(), -np.inf, 3 * (s1 - s1.mean())))

        def gather(similarity, tokens):
            return similarity / (similarity.sum(1, keepdims=True) + 1e-6) @ tokens

        q, k, v = self.projected(last, gather(s1, repaired(x[1:], outliers, grid)))
        scale = q[0].shape[1] ** -0.5
        heads = [
            (softmax(qh @ qh.T * scale) + softmax(kh @ kh.T * scale) + shared) / 3 @ vh
            for qh, kh, vh in zip(q, k, v, strict=True)
        ]
        first = gather(s2, self.out_proj(last, heads) + rho * x[0])
        total = sum(inputs[layer + 1] for layer in summed)
        _, _, v = self.projected(last, total[1:])
        second = gather(s2, self.out_proj(last, [shared @ vh for vh in v]) + rho * total[0])
        return self.finish(np.concatenate([x[:1], first + second]), grid)

    def pearl_features(self, image, alpha=0.08, steps=5, residual=False, ffn=False) -> np.ndarray:
        x, grid = self.inputs(image)[-1], self.grid(image)
        q, k, _ = self.projected(self.layers - 1, x)
        weights = []
        for qh, kh in zip(q, k, strict=True):
            share = np.array([0, *(math.sqrt((token**2).sum()) for token in qh[1:])])
            share = share / (share.sum() + 1e-6)
            q_mean = sum(w * token for w, token in zip(share, qh, strict=True))
            k_mean = sum(w * token for w, token in zip(share, kh, strict=True))
            cross = sum(np.outer(kt - k_mean, qt - q_mean) for qt, kt in zip(qh, kh, strict=True))
            gram = cross.T @ cross
            size = max(math.sqrt((gram**2).sum()), 1e-6)
            eye = np.eye(len(gram))
            y, z = gram / size + 1e-6 * eye, eye
            for _ in range(steps):
                t = (3 * eye - z @ y) / 2
                y, z = y @ t, t @ z
            turned, centred = kh @ (cross @ z / math.sqrt(size)), kh - k_mean
            weights.append(softmax((qh @ turned.T + alpha * centred @ centred.T) * qh.shape[1] ** -0.5))
        return self.finish(self.close(x, weights, residual, ffn), grid)

    def sfr_features(self, image, text, threshold, tau, lambda_s, sigma=5.0, path=True, lambda_r=None, refine=True):
        """Around NACLIP, and RCS where ``lambda_r`` is given; ``refine``: with PAMR."""
        inputs, grid, last = self.inputs(image), self.grid(image), self.layers - 1
        x = inputs[-1]
        _, k, _ = self.projected(last, x)
        scale = k[0].shape[1] ** -0.5
        near = np.zeros((len(x), len(x)))
        for i in range(len(x) - 1):
            for j in range(len(x) - 1):
                (a, b), (c, d) = divmod(i, grid[1]), divmod(j, grid[1])
                near[1 + i, 1 + j] = math.exp(-((a - c) ** 2 + (b - d) ** 2) / (2 * 5.0**2))

        def run(change) -> np.ndarray:
            weights = []
            for head in range(self.heads):
                attention = softmax(change(scale * k[head] @ k[head].T) + near)
                if lambda_r is not None:
                    mean = 0
                    for layer in (5, 6, 7, 8):
                        ql, kl, _ = self.projected(layer, inputs[layer])
                        mean = mean + softmax(ql[head] @ kl[head].T * scale) / 4
                    attention = 2 * ((1 - lambda_r) * attention + lambda_r * mean)
                weights.append(attention)
            return self.finish(self.close(x, weights, False, False), grid)

        first = bilinear(similarities(run(lambda logits: logits), text), *image.shape[1:])
        share = softmax(np.moveaxis(pamr(first, image) if refine else first, 0, -1) * 40)
        pixels = np.where(share.max(axis=-1) < threshold, 0, share.argmax(axis=-1))
        p, labels = self.patch, np.zeros(grid, dtype=int)
        for row in range(grid[0]):
            for column in range(grid[1]):
                own = pixels[row * p : row * p + p, column * p : column * p + p].ravel()
                labels[row, column] = np.bincount(own).argmax()
        added = np.zeros((len(x), len(x)))
        added[1:, 1:] = feedback(labels, sigma, path)
        added = (added / added.max()).astype(np.float16).astype(float)
        return run(lambda logits: tau * ((1 - lambda_s) * logits + lambda_s * added))

    def proxy_features(self, image, second: np.ndarray, beta=1.2, gamma=3.0) -> np.ndarray:
        """``second``: features (h, w, C) of the same image by another encoder."""
        x, grid = self.inputs(image)[-1], self.grid(image)
        last, own = self.layers - 1, second.shape[:2]
        _, _, v = self.projected(last, x)
        values = np.concatenate(v, axis=1)[1:].reshape(*grid, -1)
        values = np.moveaxis(bilinear(np.moveaxis(values, -1, 0), *own), 0, -1).reshape(own[0] * own[1], -1)
        unit_features = unit(second.reshape(len(values), -1))
        pairs = unit_features @ unit_features.T
        mean = sum(map(sum, pairs)) / pairs.size
        weights = np.zeros_like(pairs)
        for i, row in enumerate(pairs):
            logits = [gamma * (value - beta * mean) for value in row]
            kept = [value if value >= 0 or i == j else -math.inf for j, value in enumerate(logits)]
            weights[i] = softmax(np.array(kept))
        return self.finish(np.concatenate([x[:1], self.out_proj(last, [weights @ values])]), own)


def linspace(count: int, index: int) -> np.float32:
    """A value of torch.linspace(0, 1, count) in float32: the second half is counted from the end, and products are not
    rounded before they are subtracted.
    """
    gap = float(np.float32(1) / np.float32(max(count - 1, 1)))
    return np.float32(index * gap if index < count // 2 else 1 - (count - 1 - index) * gap)


def feedback(labels: np.ndarray, sigma: float, path: bool) -> np.ndarray:
    """SFR's S for labels of patches (h, w), as (N, N)."""
    rows, columns = labels.shape
    places = [(r, c) for r in range(rows) for c in range(columns)]
    longest = max(rows, columns) - 1
    matrix = np.zeros((len(places), len(places)))
    for i, (r, c) in enumerate(places):
        for j, (u, v) in enumerate(places):
            if labels[r, c] != labels[u, v]:
                continue
            apart, matrix[i, j] = max(abs(r - u), abs(c - v)), 1
            for step in range(apart + 1 if path else 0):
                t = linspace(longest + 1, step)
                cell = tuple(int(np.rint((1 - t) * np.float32(a) + t * np.float32(b))) for a, b in ((r, u), (c, v)))
                if labels[cell] != labels[r, c]:
                    matrix[i, j] = math.exp(-apart / longest)
    length = min(len(places), int(6 * sigma + 1))
    half = (length if length % 2 else length + 1) // 2
    kernel = {offset: math.exp(-(offset**2) / (2 * sigma**2)) for offset in range(-half, half + 1)}
    total = sum(kernel.values())
    smooth = np.zeros_like(matrix)
    for j in range(len(places)):
        for offset, weight in kernel.items():
            if 0 <= j + offset < len(places):
                smooth[:, j] += weight / total * matrix[:, j + offset]
    return smooth / (smooth.sum(axis=1, keepdims=True) + 1e-8)


def tlp(z: np.ndarray, image: np.ndarray, text: np.ndarray, cells: int) -> np.ndarray:
    """Similarities (K, H, W) smoothed on the grid of about ``cells`` a side, (K, h, w)."""
    step = [max(1, round(length / cells)) for length in z.shape[1:]]
    h, w = (length // size for length, size in zip(z.shape[1:], step, strict=True))

    def pooled(maps: np.ndarray) -> np.ndarray:
        out = np.zeros((len(maps), h, w))
        for y in range(h):
            for x in range(w):
                block = maps[:, y * step[0] : (y + 1) * step[0], x * step[1] : (x + 1) * step[1]]
                out[:, y, x] = block.mean(axis=(1, 2))
        return out

    z, colours = pooled(z), pooled(image)
    own = (np.diag(softmax(text @ text.T / 0.5)) + 10) / (11 + 1e-6)
    p = np.moveaxis(softmax(np.moveaxis(z, 0, -1)), -1, 0)
    grey = 0.299 * colours[0] + 0.587 * colours[1] + 0.114 * colours[2]
    places = [(y, x) for y in range(h) for x in range(w)]
    system = np.zeros((h * w, h * w))
    data = np.zeros(h * w)
    for i, (y, x) in enumerate(places):
        gain = min(max(sum(s * value**2 for s, value in zip(own, p[:, y, x], strict=True)), 0), 1)
        data[i] = max(p[:, y, x].max(), 0.05) ** 2 * (1 + gain)
        system[i, i] += data[i]
    for down, right in ((0, 1), (1, 0)):
        pairs = [(a, (a[0] + down, a[1] + right)) for a in places if a[0] + down < h and a[1] + right < w]
        mean = np.mean([abs(grey[a] - grey[b]) for a, b in pairs]) if pairs else 0
        for a, b in pairs:
            like = min(
                max(sum(s * one * two for s, one, two in zip(own, p[:, a[0], a[1]], p[:, b[0], b[1]], strict=True)), 0),
                1,
            )
            weight = min(max(math.exp(-5 * abs(grey[a] - grey[b]) / (mean + 1e-6)) * (1 + like), 0), 1)
            i, j = a[0] * w + a[1], b[0] * w + b[1]
            system[[i, j], [i, j]] += weight
            system[[i, j], [j, i]] -= weight
    f = z.reshape(len(z), -1).copy()
    residual = data * f - f @ system
    direction, size = residual.copy(), (residual**2).sum()
    for _ in range(25):
        image_of = direction @ system
        length = size / ((direction * image_of).sum() + 1e-12)
        f, residual = f + length * direction, residual - length * image_of
        size, previous = (residual**2).sum(), size
        direction = residual + size / (previous + 1e-12) * direction
    return f.reshape(len(z), h, w)


def lof_outliers(patches: np.ndarray, neighbours: int) -> list[int]:
    """SC-CLIP's outliers: of each patch the K nearest others, and how much farther these are than theirs."""
    count = min(neighbours, len(patches) - 1)
    if count == 0:
        return []
    distances = [[((p - q) ** 2).sum() for q in patches] for p in patches]
    nearest = [sorted((d, j) for j, d in enumerate(row) if j != i)[:count] for i, row in enumerate(distances)]
    reach = [near[-1][0] for near in nearest]
    scores = [np.mean([reach[i] / reach[j] for _, j in near]) for i, near in enumerate(nearest)]
    return [i for i, score in enumerate(scores) if score > np.quantile(scores, 0.95) * (1 + 1e-5)]


def repaired(patches: np.ndarray, outliers: list[int], grid: tuple[int, int]) -> np.ndarray:
    out = patches.copy()
    for i in outliers:
        row, column = divmod(i, grid[1])
        around = []
        for r in range(row - 1, row + 2):
            for c in range(column - 1, column + 2):
                if 0 <= r < grid[0] and 0 <= c < grid[1] and r * grid[1] + c not in outliers:
                    around.append(patches[r * grid[1] + c])
        if around:
            out[i] = np.mean(around, axis=0)
    return out


def pamr(maps: np.ndarray, image: np.ndarray, steps: int = 10, dilations: tuple[int, ...] = (8, 16)) -> np.ndarray:
    """(K, H, W), guided by a normalised (3, H, W) image."""
    _, height, width = image.shape
    ring = [(r, c) for r in (-1, 0, 1) for c in (-1, 0, 1)]
    weights = {}
    for y in range(height):
        for x in range(width):
            places = [
                (min(max(y + d * r, 0), height - 1), min(max(x + d * c, 0), width - 1))
                for d in dilations
                for r, c in ring
            ]
            spread = np.array([image[:, a, b] for a, b in places]).std(axis=0, ddof=1)
            others = [place for place, (r, c) in zip(places, ring * len(dilations), strict=True) if (r, c) != (0, 0)]
            unlike = [np.mean(np.abs(image[:, y, x] - image[:, a, b]) / (1e-8 + 0.1 * spread)) for a, b in others]
            weights[y, x] = others, softmax(-np.array(unlike))
    for _ in range(steps):
        refined = np.zeros_like(maps)
        for (y, x), (others, shares) in weights.items():
            refined[:, y, x] = sum(share * maps[:, a, b] for (a, b), share in zip(others, shares, strict=True))
        maps = refined
    return maps


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


def windows(image: np.ndarray, crop: int, stride: int):
    """(top, left, window) of an image (3, H, W)."""
    _, full_h, full_w = image.shape
    for row in range(max(full_h - crop + stride - 1, 0) // stride + 1):
        for column in range(max(full_w - crop + stride - 1, 0) // stride + 1):
            bottom, right = min(row * stride + crop, full_h), min(column * stride + crop, full_w)
            top, left = max(bottom - crop, 0), max(right - crop, 0)
            yield top, left, image[:, top:bottom, left:right]


def propagated(weights: np.ndarray, y: np.ndarray, alpha: float, steps: int) -> np.ndarray:
    """So many steps of conjugate gradients for (I - alpha S) x = y from 0, word by word; weights (n, n) symmetric."""
    degrees = [row.sum() or 1.0 for row in weights]
    s = np.array([[w / math.sqrt(degrees[i] * degrees[j]) for j, w in enumerate(row)] for i, row in enumerate(weights)])
    solution = np.zeros_like(y)
    for word in range(y.shape[1]):
        x, r = np.zeros(len(y)), y[:, word].copy()
        p, start = r.copy(), math.sqrt(r @ r)
        for _ in range(steps):
            if math.sqrt(r @ r) <= 1e-6 * start:
                break
            q = p - alpha * s @ p
            a = (r @ r) / (p @ q)
            x, after = x + a * p, r - a * q
            p = after + (after @ after) / (r @ r) * p
            r = after
        solution[:, word] = x
    return solution


def lposs(nodes, places, y, neighbours: int, gamma: float, sigma: float, alpha: float, steps: int) -> np.ndarray:
    """LPOSS of nodes' features (n, C), places in pixels and similarities (n, K): (n, K)."""
    cosine = unit(nodes) @ unit(nodes).T
    weights = np.zeros_like(cosine)
    for i in range(len(nodes)):
        nearest = sorted(range(len(nodes)), key=lambda j: -cosine[i, j])[: min(neighbours, len(nodes))]
        for j in nearest:
            if i != j:
                weights[i, j] = max(0, cosine[i, j]) ** gamma * math.exp(-sigma * math.dist(places[i], places[j]))
    return propagated(weights + weights.T, y, alpha, steps)


def lab_colour(rgb) -> np.ndarray:
    """Lab of one 0..1 sRGB colour, divided by 100, 128 and 128."""
    r, g, b = (((c + 0.055) / 1.055) ** 2.4 if c > 0.04045 else c / 12.92 for c in rgb)
    xyz = (
        (0.412453 * r + 0.357580 * g + 0.180423 * b) / 0.95047,
        0.212671 * r + 0.715160 * g + 0.072169 * b,
        (0.019334 * r + 0.119193 * g + 0.950227 * b) / 1.08883,
    )
    x, y, z = (t ** (1 / 3) if t > 0.008856 else 7.787 * t + 4 / 29 for t in xyz)
    return np.array([(116 * y - 16) / 100, 500 * (x - y) / 128, 200 * (y - z) / 128])


def pixel_weights(rgb: np.ndarray, tau: float, reach: int) -> dict[tuple[int, int], float]:
    """The weight between every two pixels (flat indices) of the same square."""
    _, height, width = rgb.shape
    colours = [[lab_colour(rgb[:, row, column]) for column in range(width)] for row in range(height)]
    weights = {}
    for y in range(height):
        for x in range(width):
            for v in range(max(0, y - reach), min(height, y + reach + 1)):
                for u in range(max(0, x - reach), min(width, x + reach + 1)):
                    if (v, u) != (y, x):
                        apart = np.linalg.norm(colours[y][x] - colours[v][u])
                        weights[y * width + x, v * width + u] = math.exp(-apart / tau)
    return weights


def pixel_degrees(rgb: np.ndarray, tau: float, reach: int) -> np.ndarray:
    degrees = np.zeros(rgb.shape[1] * rgb.shape[2])
    for (pixel, _), weight in pixel_weights(rgb, tau, reach).items():
        degrees[pixel] += weight
    return degrees.reshape(rgb.shape[1:])


def lposs_plus(maps: np.ndarray, rgb: np.ndarray, tau: float, reach: int, alpha: float, steps: int) -> np.ndarray:
    """LPOSS+ of maps (H, W, K) and an image (3, H, W): (H, W, K)."""
    height, width, words = maps.shape
    dense = np.zeros((height * width, height * width))
    for pair, weight in pixel_weights(rgb, tau, reach).items():
        dense[pair] = weight
    return propagated(dense, maps.reshape(-1, words), alpha, steps).reshape(maps.shape)


def logits(
    image: np.ndarray,
    encode,
    text: np.ndarray,
    patch: int,
    crop: int,
    stride: int,
    size: tuple[int, int],
    resizes: int = 1,
):
    """(K, *size) of a normalised (3, full_h, full_w) image; ``encode`` gives a window's (h, w, E). ``resizes``: of a
    whole image.
    """
    _, full_h, full_w = image.shape
    if crop == 0:
        whole = image[:, : full_h // patch * patch, : full_w // patch * patch]
        patches = similarities(encode(whole), text)
        return bilinear(patches if resizes == 1 else bilinear(patches, full_h, full_w), *size)
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


def dropped(probability: np.ndarray, area_thd: float) -> np.ndarray:
    """Probabilities (classes, H, W) in which classes that cover too little are 0."""
    pixels = [0] * len(probability)
    for row in range(probability.shape[1]):
        for column in range(probability.shape[2]):
            pixels[probability[:, row, column].argmax()] += 1
    kept = probability.copy()
    for label in range(1, len(probability)):
        if area_thd and pixels[label] <= area_thd * sum(pixels[1:]):
            kept[label] = 0
    return kept


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
