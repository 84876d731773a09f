"""Faster R-CNN builders: the detectors of red-cell regions.

Two classes, background and region, whatever the region holds. Images go in as a list of
(3, H, W) float32 RGB in 0..1; torchvision's own model normalises them. Boxes are (x0, y0, x1,
y1), half-open. Nothing is downloaded unless ``weights`` is ``"torchvision"``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from torch import Tensor, nn
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import (
    BackboneWithFPN,
    mobilenet_backbone,
    resnet_fpn_backbone,
)
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.ops import FrozenBatchNorm2d, MultiScaleRoIAlign

from napari_cellpath.core.requests import DETECTION_FLOOR, DETECTION_OVERLAP
from napari_cellpath.systems.rbc.imagenet import Weights, backbone_of

MIN_SIZE, MAX_SIZE = 1080, 1920
"""The paper's fields; torchvision's own 800 and 1333 would shrink them (papers.md 2.2)."""
SMALL_MIN, SMALL_MAX = 480, 640
"""Small fields, as a camera of 0.3 megapixels gives them."""
DETECTIONS = 500
"""Regions of a field at most; torchvision's own 100 is fewer than a smear holds."""


class _Stages(nn.Sequential):
    """Layers that say how many channels they end with, as `FasterRCNN` asks of a backbone."""

    def __init__(self, layers: Sequence[nn.Module], out_channels: int) -> None:
        super().__init__(*layers)
        self.out_channels = out_channels


class _LastStage(nn.Module):
    """ResNet's last stage and the average of its map: the box head of a C4 detector."""

    def __init__(self, layer4: nn.Module) -> None:
        super().__init__()
        self.layer4 = layer4

    def forward(self, regions: Tensor) -> Tensor:
        """(N, 1024, 14, 14) to (N, 2048)."""
        features: Tensor = self.layer4(regions)
        return features.mean(dim=(2, 3))


def _faster_rcnn(
    backbone: nn.Module,
    n_classes: int | None,
    min_size: int,
    max_size: int,
    detections: int,
    **arguments: Any,
) -> FasterRCNN:
    return FasterRCNN(
        backbone, n_classes, min_size=min_size, max_size=max_size,
        box_score_thresh=DETECTION_FLOOR, box_nms_thresh=DETECTION_OVERLAP,
        box_detections_per_img=detections, **arguments,
    )  # fmt: skip


def _resnet_fpn(
    name: str,
    n_classes: int,
    weights: Weights,
    trainable_layers: int,
    min_size: int,
    max_size: int,
    detections: int,
) -> FasterRCNN:
    # torchvision's builder takes its own enumeration; the weights go in by our door instead.
    backbone = resnet_fpn_backbone(
        backbone_name=name, weights=None, trainable_layers=trainable_layers
    )
    backbone_of(name, weights, backbone.body)
    return _faster_rcnn(backbone, n_classes, min_size, max_size, detections)


def resnet101_fpn(
    n_classes: int = 2,
    *,
    weights: Weights = None,
    trainable_layers: int = 5,
    min_size: int = MIN_SIZE,
    max_size: int = MAX_SIZE,
    detections: int = DETECTIONS,
) -> FasterRCNN:
    """ResNet-101 with a feature pyramid: 60,239,065 parameters, the default (papers.md 2.2).

    Parameters
    ----------
    n_classes
        Background and the region.
    weights
        ``"torchvision"`` downloads ImageNet's to start training from.
    trainable_layers
        Stages of the backbone that training may change, from the last.
    min_size, max_size
        Training rescales an image so that its shorter side is ``min_size``, its longer one
        ``max_size`` at most. Inference takes the pixels as its plan says.
    detections
        Regions of an image at most.
    """
    return _resnet_fpn(
        "resnet101", n_classes, weights, trainable_layers, min_size, max_size, detections
    )


def resnet50_fpn(
    n_classes: int = 2,
    *,
    weights: Weights = None,
    trainable_layers: int = 5,
    min_size: int = MIN_SIZE,
    max_size: int = MAX_SIZE,
    detections: int = DETECTIONS,
) -> FasterRCNN:
    """ResNet-50 with a feature pyramid; arguments of `resnet101_fpn`."""
    return _resnet_fpn(
        "resnet50", n_classes, weights, trainable_layers, min_size, max_size, detections
    )


def resnet18_fpn(
    n_classes: int = 2,
    *,
    weights: Weights = None,
    trainable_layers: int = 5,
    min_size: int = MIN_SIZE,
    max_size: int = MAX_SIZE,
    detections: int = DETECTIONS,
) -> FasterRCNN:
    """ResNet-18 with a feature pyramid; arguments of `resnet101_fpn`."""
    return _resnet_fpn(
        "resnet18", n_classes, weights, trainable_layers, min_size, max_size, detections
    )


def resnet101_c4(
    n_classes: int = 2,
    *,
    weights: Weights = None,
    min_size: int = MIN_SIZE,
    max_size: int = MAX_SIZE,
    detections: int = DETECTIONS,
) -> FasterRCNN:
    """Faster R-CNN as of the paper's day, without a pyramid: 51,930,389 parameters (2.2).

    The first three stages are the backbone; the last one is applied to each region.
    """
    from torchvision.models import resnet101

    body = resnet101(weights=None, norm_layer=FrozenBatchNorm2d)
    backbone_of("resnet101", weights, body)
    stages = _Stages(
        [body.conv1, body.bn1, body.relu, body.maxpool, body.layer1, body.layer2, body.layer3], 1024
    )
    return _faster_rcnn(
        stages, None, min_size, max_size, detections,
        rpn_anchor_generator=AnchorGenerator(((32, 64, 128, 256, 512),), ((0.5, 1.0, 2.0),)),
        box_roi_pool=MultiScaleRoIAlign(["0"], output_size=14, sampling_ratio=2),
        box_head=_LastStage(body.layer4),
        box_predictor=FastRCNNPredictor(2048, n_classes),
    )  # fmt: skip


def _pyramid(
    backbone: nn.Module,
    n_classes: int,
    sizes: Sequence[Sequence[int]],
    names: Sequence[str],
    representation: int,
    proposals: int,
    min_size: int,
    max_size: int,
    detections: int,
) -> FasterRCNN:
    """Faster R-CNN with light heads on a pyramid: ``sizes`` are the anchors of each level."""
    channels = backbone.out_channels
    return _faster_rcnn(
        backbone, None, min_size, max_size, detections,
        rpn_anchor_generator=AnchorGenerator(
            tuple(tuple(level) for level in sizes), ((0.5, 1.0, 2.0),) * len(sizes)
        ),
        rpn_pre_nms_top_n_test=proposals, rpn_post_nms_top_n_test=proposals,
        box_roi_pool=MultiScaleRoIAlign(list(names), output_size=7, sampling_ratio=2),
        box_head=TwoMLPHead(channels * 7 * 7, representation),  # type: ignore[operator]
        box_predictor=FastRCNNPredictor(representation, n_classes),
    )  # fmt: skip


def mobilenetv3_fpn(
    n_classes: int = 2,
    *,
    weights: Weights = None,
    trainable_layers: int = 6,
    proposals: int = 500,
    min_size: int = MIN_SIZE,
    max_size: int = MAX_SIZE,
    detections: int = DETECTIONS,
) -> FasterRCNN:
    """MobileNetV3-Large with a pyramid of strides 8, 16 and 32, for a CPU.

    torchvision's own begins at stride 16, on which a cell of 40 pixels is two or three places.

    Parameters
    ----------
    proposals
        Regions looked at a second time in each image, at most; each costs.
    """
    backbone = mobilenet_backbone(
        backbone_name="mobilenet_v3_large", fpn=True, weights=None,
        trainable_layers=trainable_layers, returned_layers=[2, 3, 5], norm_layer=FrozenBatchNorm2d,
    )  # fmt: skip
    backbone_of("mobilenet_v3_large", weights, backbone.body)
    return _pyramid(
        backbone, n_classes, ((32, 48), (64, 96), (128, 192), (256, 384)), ("0", "1", "2"),
        1024, proposals, min_size, max_size, detections,
    )  # fmt: skip


def squeezenet_fpn(
    n_classes: int = 2,
    *,
    weights: Weights = None,
    finest: Literal[4, 8] = 8,
    channels: int = 128,
    representation: int = 256,
    proposals: int = 300,
    sizes: Sequence[Sequence[int]] | None = None,
    min_size: int = SMALL_MIN,
    max_size: int = SMALL_MAX,
    detections: int = DETECTIONS,
) -> FasterRCNN:
    """SqueezeNet 1.0 with a light pyramid: a small field in a tenth of a second on a CPU.

    Its anchors suit regions of 30 to 250 pixels: cells of 40 to 120 and their clumps. The first
    convolution is padded, which the classifier's is not, so that every level's stride is exact.

    Parameters
    ----------
    n_classes, weights, min_size, max_size, detections
        As of `resnet101_fpn`.
    finest
        Stride of the finest level, pixels. 4 costs twice the time and finds smaller things.
    channels
        Of every level of the pyramid.
    representation
        Width of the box head.
    proposals
        Regions looked at a second time in each image, at most.
    sizes
        Anchors of each level from the finest to the coarsest, pixels; None suits ``finest``.
    """
    from torchvision.models import squeezenet1_0

    body = squeezenet1_0(weights=None).features
    backbone_of("squeezenet1_0", weights, body)
    body[0].padding = (3, 3)
    levels = {"5": 4, "10": 8, "12": 16}  # last layer at each stride; each has 256 or 512 channels
    kept = {name: stride for name, stride in levels.items() if stride >= finest}
    backbone = BackboneWithFPN(
        body,
        return_layers={name: str(n) for n, name in enumerate(kept)},
        in_channels_list=[256 if stride == 4 else 512 for stride in kept.values()],
        out_channels=channels,
    )
    usual = ((16, 24), (32, 48), (64, 96), (128, 192))
    return _pyramid(
        backbone, n_classes, sizes or usual[-(len(kept) + 1) :],
        [str(n) for n in range(len(kept))], representation, proposals, min_size, max_size,
        detections,
    )  # fmt: skip
