"""Which plan serves which of DeepPap's requests."""

from __future__ import annotations

from typing import Any

from napari_cellpath.core.requests import (
    FeaturesRequest,
    FindNucleiRequest,
    NucleusRequest,
    OcclusionRequest,
)
from napari_cellpath.systems.deeppap.features_plan import FeaturesPlan
from napari_cellpath.systems.deeppap.find_plan import FindPlan
from napari_cellpath.systems.deeppap.occlusion_plan import OcclusionPlan
from napari_cellpath.systems.deeppap.plan import NucleusPlan
from napari_cellpath.systems.protocol import Plan

_PLANS: dict[type, Any] = {
    NucleusRequest: NucleusPlan,
    FindNucleiRequest: FindPlan,
    OcclusionRequest: OcclusionPlan,
    FeaturesRequest: FeaturesPlan,
}


def make_plan(request: Any) -> Plan:
    """The plan of a request, by its type."""
    plan: Plan = _PLANS[type(request)](request)
    return plan
