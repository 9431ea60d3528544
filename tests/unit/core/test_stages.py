"""The stage a process is at, and what it is busy with."""

from __future__ import annotations

from pytest_hfaccel.core.stages import at_stage, current_detail, current_stage, note_detail, watch_stages


def test_whoever_watches_is_told_of_every_change_of_stage_and_detail() -> None:
    told: list[tuple[str, str]] = []
    watch_stages(lambda stage: told.append((stage, current_detail())))
    try:
        with at_stage("load"):
            note_detail("download 1 B")
            note_detail("download 1 B")
            with at_stage("convert"):
                pass
    finally:
        watch_stages(None)
    assert told == [("load", ""), ("load", "download 1 B"), ("convert", ""), ("load", ""), ("", "")]
    assert (current_stage(), current_detail()) == ("", "")
