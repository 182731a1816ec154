"""The MMSegmentation face of :class:`clearclip.ClearCLIP`: configs, runner, hooks and metrics see a segmentor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from mmengine import dist
from mmengine.structures import PixelData
from mmseg.models.segmentors import BaseSegmentor
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from torch import Tensor

from clearclip.checkpoints import DEFAULT
from clearclip.errors import UserError
from clearclip.model import ClearCLIP
from clearclip.text import ClassWords, TextFeatures


@MODELS.register_module()
class ClearCLIPSegmentation(BaseSegmentor):
    """Frozen CLIP as a segmentor of fixed classes.

    Args:
        clip_type: "CLIP" (default), "OpenCLIP", "MetaCLIP", "BLIP" or "Miniature".
        vit_type: "ViT-B/16" (default) or "ViT-L/14".
        model_name, pretrained: override the two above with anything that ``open_clip.create_model`` takes;
            ``pretrained`` is a tag or a checkpoint file; None means random weights.
        quick_gelu: force the activation, which otherwise follows the tag.
        model_type: "ClearCLIP", "vanilla", "MaskCLIP", "SCLIP" or "GEM".
        ignore_residual: True drops the last block's residual and FFN, False keeps both.
        attention, residual, ffn, alpha: override the two above, each on its own (ablations).
        name_path: names file, one class per line, comma-separated words.
        class_names: the same as a list, in place of ``name_path``.
        prob_thd: below this largest probability a pixel is label 0 (background).
        logit_scale: factor before the softmax over words.
        slide_crop, slide_stride: windows in pixels; ``slide_crop=0`` takes the whole image at once.
        normalization: "openai" or "pretrained".
        precision: "auto", "fp32", "fp16" or "bf16".
        device: default MMEngine's choice.
        window_batch: windows per encoder batch.
        keep_logits: also fill ``seg_logits`` (class probabilities).
        cached: keep text features on disk.
        data_preprocessor: default :class:`clearclip.data.ImagePreprocessor` with this model's normalisation.
    """

    def __init__(
        self,
        clip_type: str | None = None,
        vit_type: str | None = None,
        model_type: str = "ClearCLIP",
        ignore_residual: bool = True,
        name_path: str | None = None,
        class_names: Sequence[str] | None = None,
        prob_thd: float = 0.0,
        logit_scale: float = 50,
        slide_stride: int = 224,
        slide_crop: int = 448,
        model_name: str | None = None,
        pretrained: str | None = DEFAULT,
        quick_gelu: bool | None = None,
        attention: str | None = None,
        residual: bool | None = None,
        ffn: bool | None = None,
        alpha: float = 1.0,
        normalization: str = "openai",
        precision: str = "auto",
        device: str | None = None,
        window_batch: int | None = None,
        keep_logits: bool = False,
        cached: bool = True,
        data_preprocessor: dict | None = None,
        init_cfg: dict | None = None,
    ):
        if (name_path is None) == (class_names is None):
            raise UserError("give either name_path (a names file) or class_names (a list), not both")
        classes = ClassWords.read(name_path) if class_names is None else ClassWords.parse(class_names, "class_names")
        model = ClearCLIP.from_pretrained(
            model_name,
            pretrained,
            clip_type=clip_type,
            vit_type=vit_type,
            quick_gelu=quick_gelu,
            model_type=model_type,
            ignore_residual=ignore_residual,
            attention=attention,
            residual=residual,
            ffn=ffn,
            alpha=alpha,
            normalization=normalization,
            precision=precision,
            device=device,
            cached=cached,
            prob_thd=prob_thd,
            logit_scale=logit_scale,
            slide_crop=slide_crop,
            slide_stride=slide_stride,
            window_batch=window_batch,
        )
        if data_preprocessor is None:
            data_preprocessor = dict(
                type="mmseg.ImagePreprocessor",
                mean=model.mean.flatten().tolist(),
                std=model.std.flatten().tolist(),
            )
        super().__init__(data_preprocessor=data_preprocessor, init_cfg=init_cfg)
        self.model = model
        self.keep_logits = keep_logits
        self.set_classes(classes)
        self.to(model.device)

    def set_classes(self, classes: ClassWords) -> None:
        """Take other classes. In a distributed run rank 0 encodes them for all."""
        self.classes = classes
        if dist.get_rank() == 0:
            features = self.model.encode_text(classes, progress=True).features
        else:
            features = torch.empty(len(classes.words), self.model.image_encoder.dim, device=self.model.device)
        dist.broadcast(features)
        self.register_buffer("word_features", features, persistent=False)
        word_to_class = torch.tensor(classes.word_to_class, device=self.model.device)
        self.register_buffer("word_to_class", word_to_class, persistent=False)

    @property
    def text(self) -> TextFeatures:
        """The text features in use."""
        return TextFeatures(self.classes, self.word_features, self.word_to_class)

    def predict(
        self, inputs: Tensor | Sequence[Tensor], data_samples: Sequence[SegDataSample] | None = None
    ) -> list[SegDataSample]:
        """Segment a batch.

        Args:
            inputs: normalised images, (B, 3, H, W) or a list of (3, H, W) of any sizes.
            data_samples: their samples; ``ori_shape`` says each result's size. None makes new ones, at input size.

        Returns:
            The samples with ``pred_sem_seg`` (1, height, width) int64 and, with ``keep_logits``, ``seg_logits``
            (classes, height, width) float32: probabilities after the softmax.
        """
        images = [image.to(self.model.device, torch.float32) for image in inputs]
        if data_samples is None:
            data_samples = [SegDataSample() for _ in images]
        sizes = [
            tuple(sample.metainfo.get("ori_shape", image.shape[-2:])[:2])
            for image, sample in zip(images, data_samples, strict=True)
        ]
        results = self.model.predict(images, self.text, sizes, self.keep_logits)
        for sample, (labels, probabilities) in zip(data_samples, results, strict=True):
            sample.set_data({"pred_sem_seg": PixelData(data=labels[None])})
            if probabilities is not None:
                sample.set_data({"seg_logits": PixelData(data=probabilities)})
        return list(data_samples)

    @torch.inference_mode()
    def extract_feat(self, inputs: Tensor) -> Tensor:
        """Dense features (B, h, w, E) of (B, 3, H, W) inputs, H and W multiples of the patch."""
        return self.model.image_encoder(inputs)

    def encode_decode(self, inputs: Tensor, batch_data_samples: Any = None) -> Tensor:
        """Class probabilities (B, classes, H, W) of (B, 3, H, W) inputs at input size."""
        sizes = [tuple(inputs.shape[-2:])] * len(inputs)
        results = self.model.predict(list(inputs), self.text, sizes, keep_probabilities=True)
        return torch.stack([probabilities for _, probabilities in results])

    def _forward(self, inputs: Tensor, data_samples: Any = None) -> Tensor:
        return self.extract_feat(inputs)

    def loss(self, inputs: Tensor, data_samples: Any) -> dict:
        """ClearCLIP trains nothing."""
        raise NotImplementedError("ClearCLIP is training-free: it has no loss")
