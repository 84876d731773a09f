"""Which plan serves which of RBC's requests."""

from __future__ import annotations

from typing import Any

from napari_cellpath.core.requests import (
    DetectRegionsRequest,
    FeaturesRequest,
    LabelRegionsRequest,
)
from napari_cellpath.core.vocabulary import Average
from napari_cellpath.systems.boxed_features import BoxedFeaturesPlan
from napari_cellpath.systems.protocol import Plan
from napari_cellpath.systems.rbc.detect_plan import DetectRegionsPlan
from napari_cellpath.systems.rbc.plan import LabelRegionsPlan


def _features(request: FeaturesRequest) -> BoxedFeaturesPlan:
    return BoxedFeaturesPlan(
        request,
        lambda boxes: LabelRegionsPlan(
            LabelRegionsRequest(request.image, boxes, request.model, average=Average.NONE)
        ),
    )


_PLANS: dict[type, Any] = {
    LabelRegionsRequest: LabelRegionsPlan,
    DetectRegionsRequest: DetectRegionsPlan,
    FeaturesRequest: _features,
}


def make_plan(request: Any) -> Plan:
    """The plan of a request, by its type."""
    plan: Plan = _PLANS[type(request)](request)
    return plan
