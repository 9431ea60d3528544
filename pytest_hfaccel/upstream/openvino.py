"""OpenVINO, seen in 2026.4.1."""

from __future__ import annotations

import os
from unittest.mock import patch


def send_no_telemetry() -> None:
    """Keep OpenVINO's converter and NNCF from sending telemetry from this process: neither has a public switch.

    Unless somebody has run `opt_in_out --opt_out` it is sent without asking, several messages per conversion, each by
    a fork of the whole process. In two sweeps over a hundred classes each (not side by side, and the first shared the
    machine for a while) the median conversion of each quarter took 7, 9, 11 and 22 seconds with it, 5, 5, 6 and 6
    without.
    """
    try:
        from openvino.tools.ovc.telemetry_utils import init_ovc_telemetry
    except ImportError:
        return
    # On CI it makes no file with the user's identity in the home directory either.
    with patch.dict(os.environ, CI="true"):
        telemetry = init_ovc_telemetry()
    telemetry.consent = False  # where it has been initialised before
