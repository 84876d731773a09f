"""Which plan serves which of HSP-Net's requests."""

from __future__ import annotations

from typing import Any

from napari_cellpath.core.requests import SegmentRequest
from napari_cellpath.systems.hspnet.plan import SegmentPlan
from napari_cellpath.systems.protocol import Plan

_PLANS: dict[type, Any] = {SegmentRequest: SegmentPlan}


def make_plan(request: Any) -> Plan:
    """The plan of a request, by its type."""
    plan: Plan = _PLANS[type(request)](request)
    return plan
