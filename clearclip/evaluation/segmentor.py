"""ClearCLIP as a segmentor of MMSegmentation, for its configs, runner, hooks and metrics."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from mmengine import dist
from mmengine.registry import MODEL_WRAPPERS
from mmengine.structures import PixelData
from mmseg.models import SegDataPreProcessor
from mmseg.models.segmentors import BaseSegmentor
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from torch import Tensor, nn

from clearclip.evaluation.isolated_methods import IsolatedMethods
from clearclip.methods import Method, build_method
from clearclip.model import ClearCLIP
from clearclip.model_settings import ModelSettings
from clearclip.text import ClassWords, TextFeatures
from clearclip.utils.devices import upload
from clearclip.utils.errors import UserError
from clearclip.visualize import class_palette

#: Axes that a pipeline's flip turns.
FLIPS = {"horizontal": (-1,), "vertical": (-2,), "diagonal": (-2, -1)}


@MODELS.register_module()
class ImagePreprocessor(SegDataPreProcessor):
    """MMSegmentation's, image by image: those of a batch may differ in size.

    Args:
        mean, std: of 0..255 RGB.
        bgr_to_rgb: the pipeline's images are BGR, as OpenCV reads them.
        **options: see ``SegDataPreProcessor``.
    """

    def __init__(self, mean: Sequence[float], std: Sequence[float], bgr_to_rgb: bool = True, **options: Any):
        super().__init__(mean, std, bgr_to_rgb=bgr_to_rgb, **options)
        self._non_blocking = True

    def normalize_images(self, images: Sequence[Tensor]) -> list[Tensor]:
        """Images (3, H, W) of the pipeline, normalised on the device: (3, H, W) float32 each, in the same order."""
        positions_by_shape: dict[tuple, list[int]] = defaultdict(list)
        for position, image in enumerate(images):
            positions_by_shape[tuple(image.shape)].append(position)
        normalized: dict[int, Tensor] = {}
        for positions in positions_by_shape.values():
            # One transfer for all images of a shape, as bytes: floats would be four times as many.
            batch = upload(torch.stack([images[position] for position in positions]), self.mean.device)
            if self.channel_conversion:
                batch = batch.flip(1)
            batch = (batch.float() - self.mean) / self.std
            normalized.update(zip(positions, batch.unbind(), strict=True))
        return [normalized[position] for position in range(len(images))]

    @property
    def is_plain(self) -> bool:
        """Whether it does no more than to normalise: no padding, no augmentation."""
        # A subclass may do anything in its forward().
        if type(self) is not ImagePreprocessor or not self._enable_normalize:
            return False
        options = (self.size, self.size_divisor, self.test_cfg, self.batch_augments)
        return all(value is None for value in options)

    def forward(self, data: dict[str, Any], training: bool = False) -> dict[str, Any]:
        """``inputs``: (3, H, W) images, a list or a batch; become a list of (3, H, W) float32."""
        samples = data.get("data_samples")
        inputs: list[Tensor] = []
        processed_samples: list[Any] = []
        for position, image in enumerate(data["inputs"]):
            sample_list = [samples[position]] if samples else None
            # MMSegmentation's forward stacks its images, so it is given a single one.
            processed = super().forward({"inputs": [image], "data_samples": sample_list})
            inputs.append(processed["inputs"][0])
            if samples:
                processed_samples.append(processed["data_samples"][0])
        return {"inputs": inputs, "data_samples": processed_samples or None}


def read_classes(name_path: str | None, class_names: Sequence[str] | None) -> ClassWords:
    """The class words of a config's model.

    Raises:
        UserError: none, or in two places.
    """
    if name_path is not None and class_names is None:
        return ClassWords.read(name_path)
    if class_names is not None and name_path is None:
        return ClassWords.parse(class_names, "class_names")
    raise UserError("give either name_path (a names file) or class_names (a list), not both")


@MODELS.register_module()
class ClearCLIPSegmentation(BaseSegmentor):
    """Frozen CLIP as a segmentor of fixed classes.

    Args:
        name_path: names file, one class per line, comma-separated words.
        class_names: the same as a list, in place of ``name_path``.
        methods: names or dicts of several methods that are computed in one pass; the first one's labels are
            ``pred_sem_seg``. None means the one that the options name.
        keep_logits: also fill ``seg_logits`` (class probabilities of the first method).
        model: a model that is loaded already, in place of loading the one that the options describe.
        data_preprocessor: default :class:`~clearclip.evaluation.segmentor.ImagePreprocessor` with this model's
            normalisation.
        train_cfg, test_cfg, init_cfg: as MMSegmentation's tools give them. What they would say has options of its own.
        **options: see :class:`~clearclip.ModelSettings`: ``clip_type``, ``model_type``, ``slide_crop``, ….

    Raises:
        UserError: classes or options that cannot be meant.
    """

    #: Whether images whose features are not finite get :data:`~clearclip.windows.INVALID_LABEL`, which our metric
    #: reports, in place of an error at once, for which a GPU would be waited for.
    marks_invalid = False
    #: Read by ``BaseSegmentor.postprocess_result``.
    align_corners = False

    def __init__(
        self,
        name_path: str | None = None,
        class_names: Sequence[str] | None = None,
        methods: Sequence[str | dict | Method] | None = None,
        keep_logits: bool = False,
        model: ClearCLIP | None = None,
        data_preprocessor: dict | None = None,
        train_cfg: dict | None = None,
        test_cfg: dict | None = None,
        init_cfg: dict | None = None,
        **options: Any,
    ):
        if test_cfg or init_cfg:
            raise UserError(
                "model.test_cfg and init_cfg have no effect on ClearCLIPSegmentation: leave them out; slide_crop and "
                "slide_stride set the windows (slide_crop=0: the whole image), pretrained the weights"
            )
        classes = read_classes(name_path, class_names)
        settings = ModelSettings.from_options(options)
        # Inference tensors could neither be moved nor loaded later, so the model must not be made of them.
        with torch.inference_mode(False):
            if model is None:
                model = ClearCLIP.from_settings(settings)
            if data_preprocessor is None:
                data_preprocessor = ImagePreprocessor(model.mean.flatten().tolist(), model.std.flatten().tolist())
            elif not isinstance(data_preprocessor, nn.Module):  # by MMSegmentation's registry, whatever the scope
                data_preprocessor = MODELS.build(data_preprocessor)
            super().__init__(data_preprocessor=data_preprocessor)
            self.model = model
            self.settings = settings
            self.methods = [build_method(method) for method in methods or [settings.chosen_method]]
            for method in self.methods:
                model.check(method)
            self.isolated_methods = IsolatedMethods(model, self.methods, settings)
            self.keep_logits = keep_logits
            self.set_classes(classes)
            self.to(model.device)

    def set_classes(self, classes: ClassWords) -> None:
        """Take other classes. In a distributed run rank 0 encodes them for all."""
        self.classes = classes
        self.num_classes = len(classes)
        # MMSegmentation's test-time augmentation takes one channel for a sigmoid.
        self.out_channels = max(2, len(classes))
        self._palette = class_palette(classes.names).tolist()
        # Encoding hundreds of words takes as long as some images, so one process does it.
        if dist.get_rank() == 0:
            features = self.model.encode_text(classes, progress=True).features
        else:
            features = torch.empty(len(classes.words), self.model.image_encoder.dim, device=self.model.device)
        dist.broadcast(features)
        self._text = TextFeatures(classes, features, torch.tensor(classes.word_to_class)).to(self.model.device)

    @property
    def text(self) -> TextFeatures:
        """The text features in use."""
        return self._text.to(self.model.device)  # tools may have moved the model

    @property
    def dataset_meta(self) -> dict[str, list]:
        """Class names and colours, for MMSegmentation's visualiser."""
        return {"classes": self.classes.names, "palette": self._palette}

    @dataset_meta.setter
    def dataset_meta(self, meta: dict[str, list]) -> None:
        # MMSegmentation's inferencer names Cityscapes' classes to every model without a checkpoint file of its own.
        if meta and len(meta.get("palette") or ()) == len(self.classes):
            self._palette = meta["palette"]

    def predict(
        self, inputs: Tensor | Sequence[Tensor], data_samples: Sequence[SegDataSample] | None = None
    ) -> list[SegDataSample]:
        """Segment a batch.

        Args:
            inputs: normalised images, (B, 3, H, W) or a list of (3, H, W) of any sizes.
            data_samples: their samples, whose metainfo means what it means to MMSegmentation: ``img_padding_size`` or
                ``padding_size`` is cut off, ``flip`` is undone, ``ori_shape`` is the result's size. None makes new
                ones, at input size.

        Returns:
            The samples with ``pred_sem_seg``, (1, height, width) int64: the labels of the first method;
            ``pred_methods``, (methods, height, width) int64: those of all methods; and, with ``keep_logits``,
            ``seg_logits``, (classes, height, width) float32: probabilities after the softmax.
        """
        samples = [SegDataSample() for _ in inputs] if data_samples is None else list(data_samples)
        images = [self._without_padding(image, sample) for image, sample in zip(inputs, samples, strict=True)]
        sizes: list[tuple[int, int]] = []
        for image, sample in zip(images, samples, strict=True):
            sizes.append(tuple(sample.metainfo.get("ori_shape", image.shape[-2:])[:2]))
        labels, probabilities = self._predict_maps(images, sizes, samples)
        for sample, label_maps, probability_map in zip(samples, labels, probabilities, strict=True):
            axes: tuple[int, ...] = ()
            if sample.get("flip"):
                axes = FLIPS[sample.get("flip_direction")]
                label_maps = label_maps.flip(axes)
            sample.set_data(
                {"pred_sem_seg": PixelData(data=label_maps[:1]), "pred_methods": PixelData(data=label_maps)}
            )
            if probability_map is not None:
                sample.set_data({"seg_logits": PixelData(data=probability_map.flip(axes))})
        return samples

    def _without_padding(self, image: Tensor, sample: SegDataSample) -> Tensor:
        """The part of a normalised image (3, H, W) that is no padding, as float32 on the model's device."""
        if len(image) != 3:
            raise UserError(f"an image must have three channels, not {len(image)}; see the pipeline's color_type")
        meta = sample.metainfo
        # The preprocessor and the pipeline's Pad step note what they added under different names.
        left, right, top, bottom = meta.get("img_padding_size", meta.get("padding_size", (0, 0, 0, 0)))
        height, width = image.shape[-2:]
        return image[:, top : height - bottom, left : width - right].to(self.model.device, torch.float32)

    def _predict_maps(
        self, images: Sequence[Tensor], sizes: Sequence[tuple[int, int]], samples: Sequence[SegDataSample]
    ) -> tuple[list[Tensor], list[Tensor | None]]:
        """For each image the labels (methods, height, width) of all methods, and probabilities of the first one."""
        if not self.keep_logits and not self.isolated_methods.has_own:
            arguments = (images, self.text, sizes, self.methods, self.settings)
            labels = self.model.predict_labels(*arguments, mark_invalid=self.marks_invalid)
            return labels, [None] * len(images)
        # Images of other loops have no index; what is random is then the same for all of them.
        seeds = [int(sample.get("index", 0)) for sample in samples]
        predictions = self.isolated_methods.predict(images, self.text, sizes, self.keep_logits, seeds)
        labels = []
        for image_predictions in predictions:
            labels.append(torch.stack([prediction.labels for prediction in image_predictions]))
        return labels, [image_predictions[0].probabilities for image_predictions in predictions]

    @torch.inference_mode()
    def extract_feat(self, inputs: Tensor) -> Tensor:
        """Dense features (B, h, w, E) of (B, 3, H, W) inputs, H and W multiples of the patch, by the first method."""
        return self.model.encode(inputs, self.methods[:1], self.text)[0]

    def encode_decode(self, inputs: Tensor, batch_data_samples: Any = None) -> Tensor:
        """Class probabilities (B, classes, H, W) of (B, 3, H, W) inputs at input size, by the first method."""
        sizes = [tuple(inputs.shape[-2:])] * len(inputs)
        predictions = self.model.predict(list(inputs), self.text, sizes, True, self.methods[:1], self.settings)
        return torch.stack([image_predictions[0].probabilities for image_predictions in predictions])

    def _forward(self, inputs: Tensor, data_samples: Any = None) -> Tensor:
        return self.extract_feat(inputs)

    def loss(self, inputs: Tensor, data_samples: Any) -> dict:
        """ClearCLIP trains nothing."""
        raise NotImplementedError("ClearCLIP is training-free: it has no loss")


@MODEL_WRAPPERS.register_module()
class FrozenModelWrapper(nn.Module):
    """Each process's own copy of a frozen model, on the device where it is: DistributedDataParallel refuses a model
    without gradients, and MMEngine's runner leaves a wrapped model where it is.
    """

    def __init__(self, module: nn.Module, **_: Any):
        super().__init__()
        self.module = module

    def test_step(self, data: dict) -> list[SegDataSample]:
        """Predict a batch. Samples whose image could not be read (``inputs`` None) pass through without a result."""
        samples: list[SegDataSample] = list(data["data_samples"])
        images = {index: image for index, image in enumerate(data["inputs"]) if image is not None}
        if not images:
            return samples
        if self._can_normalize_as_batch(images.values()):
            normalized = self.module.data_preprocessor.normalize_images(list(images.values()))
            images = dict(zip(images, normalized, strict=True))
        else:
            self._preprocess_each(images, samples)
        readable_samples = [samples[index] for index in images]
        predicted_samples = self.module(list(images.values()), readable_samples, mode="predict")
        for index, sample in zip(images, predicted_samples, strict=True):
            samples[index] = sample
        return samples

    def _can_normalize_as_batch(self, images: Iterable[Tensor]) -> bool:
        """Whether the preprocessor is ours and only normalises, and every image has three channels."""
        preprocessor = self.module.data_preprocessor
        if not isinstance(preprocessor, ImagePreprocessor) or not preprocessor.is_plain:
            return False
        return all(image.ndim == 3 and len(image) == 3 for image in images)

    def _preprocess_each(self, images: dict[int, Tensor], samples: list[SegDataSample]) -> None:
        """Replace images and samples by what the preprocessor makes of them, one after the other."""
        preprocessor = self.module.data_preprocessor
        for index, image in images.items():
            try:  # MMSegmentation's preprocessors want images of one size, so each comes alone
                processed = preprocessor({"inputs": [image], "data_samples": [samples[index]]})
            except (AssertionError, RuntimeError, TypeError, ValueError) as error:
                reason = " ".join(str(error).split())[:200]
                raise UserError(
                    f"{type(preprocessor).__name__} does not take images of shape {tuple(image.shape)} ({reason}); see "
                    "data_preprocessor and color_type"
                ) from error
            images[index] = processed["inputs"][0]
            samples[index] = processed["data_samples"][0]

    val_step = test_step
