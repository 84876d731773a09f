"""Which plan serves which of RBC's requests."""

from __future__ import annotations

from typing import Any

from napari_cellpath.core.requests import (
    DetectRegionsRequest,
    FeaturesRequest,
    LabelRegionsRequest,
)
from napari_cellpath.systems.protocol import Plan
from napari_cellpath.systems.rbc.detect_plan import DetectRegionsPlan
from napari_cellpath.systems.rbc.features_plan import FeaturesPlan
from napari_cellpath.systems.rbc.plan import LabelRegionsPlan

_PLANS: dict[type, Any] = {
    LabelRegionsRequest: LabelRegionsPlan,
    DetectRegionsRequest: DetectRegionsPlan,
    FeaturesRequest: FeaturesPlan,
}


def make_plan(request: Any) -> Plan:
    """The plan of a request, by its type."""
    plan: Plan = _PLANS[type(request)](request)
    return plan
