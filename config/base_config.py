# What all benchmarks share: the protocol of the paper (short side 448, long side at most 2048, windows of 448 pixels
# every 224, ground truth at its own size). A config is Python and is executed: use only those you trust.
custom_imports = dict(imports=["clearclip.evaluation"])
default_scope = "mmseg"

model = dict(
    type="ClearCLIPSegmentation",
    clip_type="CLIP",  # CLIP | OpenCLIP | MetaCLIP | BLIP | DINO | Miniature
    vit_type="ViT-B/16",  # or ViT-L/14, ViT-L/16: docs/models.md
    model_type="ClearCLIP",  # or CLIP, MaskCLIP, SCLIP, GEM, NACLIP, …: docs/family.md
    ignore_residual=True,  # without the last block's residual connection and FFN
    slide_crop=448,
    slide_stride=224,
)

test_pipeline = [
    dict(type="LoadImageFromFile"),
    dict(type="Resize", scale=(2048, 448), keep_ratio=True),
    # After the resize: ground truth keeps its size.
    dict(type="LoadAnnotations"),
    dict(type="PackSegInputs"),
]
# batch_size and num_workers may be given; eval.py chooses what fits the machine.
test_dataloader = dict(
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(pipeline=test_pipeline),
)
test_evaluator = dict(type="ConfusionMetric")
test_cfg = dict(type="TestLoop")

# The runner's own output is kept in its log file; eval.py prints the results.
log_level = "ERROR"
default_hooks = dict(
    timer=None, logger=None, param_scheduler=None, checkpoint=None, sampler_seed=dict(type="DistSamplerSeedHook")
)
env_cfg = dict(cudnn_benchmark=False, dist_cfg=dict(backend="nccl"))
model_wrapper_cfg = dict(type="FrozenModelWrapper")
visualizer = dict(type="SegLocalVisualizer", vis_backends=[dict(type="LocalVisBackend")], name="visualizer")
