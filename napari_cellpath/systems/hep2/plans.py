"""Which plan serves which of HEp-2's requests."""

from __future__ import annotations

from typing import Any

from napari_cellpath.core.requests import FeaturesRequest, FindCellsRequest, PatternRequest
from napari_cellpath.systems.hep2.features_plan import FeaturesPlan
from napari_cellpath.systems.hep2.find_plan import FindCellsPlan
from napari_cellpath.systems.hep2.plan import PatternPlan
from napari_cellpath.systems.protocol import Plan

_PLANS: dict[type, Any] = {
    PatternRequest: PatternPlan,
    FindCellsRequest: FindCellsPlan,
    FeaturesRequest: FeaturesPlan,
}


def make_plan(request: Any) -> Plan:
    """The plan of a request, by its type."""
    plan: Plan = _PLANS[type(request)](request)
    return plan
