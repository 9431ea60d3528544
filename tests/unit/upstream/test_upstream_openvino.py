"""Converting sends no telemetry."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.slow
pytest.importorskip("openvino", reason="openvino is an extra of this package")
openvino_telemetry = pytest.importorskip("openvino_telemetry", reason="without it openvino has nothing to send with")


def test_a_message_is_neither_sent_nor_queued(monkeypatch: pytest.MonkeyPatch) -> None:
    from openvino.tools.ovc.telemetry_utils import init_ovc_telemetry

    from pytest_hfaccel.upstream.openvino import send_no_telemetry

    send_no_telemetry()
    telemetry = init_ovc_telemetry()  # as the converter gets it
    sent: list[object] = []
    monkeypatch.setattr(telemetry.sender, "send", lambda *message: sent.append(message))
    telemetry.send_event("a", "b", "c")
    assert sent == []
    telemetry.consent = True
    telemetry.send_event("a", "b", "c")
    assert len(sent) == 1
    send_no_telemetry()
    telemetry.send_event("a", "b", "c")
    assert len(sent) == 1
