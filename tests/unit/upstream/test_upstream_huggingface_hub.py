"""What the hub's client does not do by itself: wait for a hub that is busy when it asks what a repository contains."""

from __future__ import annotations

import pytest

from pytest_hfaccel.upstream.huggingface_hub import seconds_to_wait


class _Answer:
    """The part of an HTTP client's response that is read; which client it is depends on the version of the hub's."""

    def __init__(self, status_code: int, headers: dict[str, str]) -> None:
        self.status_code, self.headers = status_code, headers


def _answered(status: int, **headers: str) -> Exception:
    error = OSError("no")
    error.response = _Answer(status, {name.replace("_", "-"): value for name, value in headers.items()})  # type: ignore[attr-defined]
    return error


@pytest.mark.parametrize(
    ("error", "seconds"),
    [
        (_answered(429, Retry_After="7"), 7.0),
        (_answered(429), 1.0),
        (_answered(429, Retry_After="Fri, 31 Dec 1999 23:59:59 GMT"), 1.0),
        (_answered(404, Retry_After="7"), None),
        (ValueError("no answer"), None),
    ],
)
def test_how_long_a_busy_hub_is_left_alone(error: Exception, seconds: float | None) -> None:
    assert seconds_to_wait(error) == seconds
    around = OSError("nothing in the cache either")
    around.__cause__ = error
    assert seconds_to_wait(around) == seconds
