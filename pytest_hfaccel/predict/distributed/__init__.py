"""One model on several devices: which way of splitting it is fastest among those that fit, and what each costs."""

from __future__ import annotations

from pytest_hfaccel.predict.distributed.cluster import Cluster
from pytest_hfaccel.predict.distributed.layout import Layout
from pytest_hfaccel.predict.distributed.planning import Plan, plan
from pytest_hfaccel.predict.distributed.workload import Workload

__all__ = ["Cluster", "Layout", "Plan", "Workload", "plan"]
