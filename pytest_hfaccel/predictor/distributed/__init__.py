"""One model on several devices: which way of splitting it is fastest among those that fit, and what each costs."""

from __future__ import annotations

from pytest_hfaccel.predictor.distributed.cluster import Cluster
from pytest_hfaccel.predictor.distributed.layout import Layout
from pytest_hfaccel.predictor.distributed.planning import Plan, plan
from pytest_hfaccel.predictor.distributed.workload import Workload

__all__ = ["Cluster", "Layout", "Plan", "Workload", "plan"]
