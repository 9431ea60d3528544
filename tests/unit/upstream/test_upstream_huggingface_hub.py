"""What the hub's client does not do by itself: wait for a hub that is busy when it asks what a repository contains."""

from __future__ import annotations

import pytest

from pytest_hfaccel.upstream.huggingface_hub import seconds_to_wait


def _answered(status: int, **headers: str) -> Exception:
    import httpx
    from huggingface_hub.errors import HfHubHTTPError

    named = {name.replace("_", "-"): value for name, value in headers.items()}
    request = httpx.Request("GET", "http://127.0.0.1/api/models/a/b")
    return HfHubHTTPError("no", response=httpx.Response(status, headers=named, request=request))


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
