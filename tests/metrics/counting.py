"""What the tests of the metrics share."""

from __future__ import annotations

from typing import Any, TypeVar

Metric = TypeVar("Metric")


def counted(metric: Metric, *batch: Any) -> Metric:
    """The metric after it has counted a batch."""
    metric.update(*batch)  # type: ignore[attr-defined]
    return metric
