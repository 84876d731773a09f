"""Which plan serves which of HEp-2's requests."""

from __future__ import annotations

from typing import Any

from napari_cellpath.core.requests import FeaturesRequest, FindCellsRequest, PatternRequest
from napari_cellpath.core.vocabulary import Average
from napari_cellpath.systems.boxed_features import BoxedFeaturesPlan
from napari_cellpath.systems.hep2.find_plan import FindCellsPlan
from napari_cellpath.systems.hep2.plan import PatternPlan
from napari_cellpath.systems.protocol import Plan


def _features(request: FeaturesRequest) -> BoxedFeaturesPlan:
    return BoxedFeaturesPlan(
        request,
        lambda cells: PatternPlan(
            PatternRequest(request.image, cells, request.model, average=Average.NONE)
        ),
    )


_PLANS: dict[type, Any] = {
    PatternRequest: PatternPlan,
    FindCellsRequest: FindCellsPlan,
    FeaturesRequest: _features,
}


def make_plan(request: Any) -> Plan:
    """The plan of a request, by its type."""
    plan: Plan = _PLANS[type(request)](request)
    return plan
