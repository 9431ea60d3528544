from __future__ import annotations

import pytest

from pytest_hfaccel.plugin.parametrize import read_id
from pytest_hfaccel.plugin.scheduling import group_of


@pytest.mark.parametrize(
    ("parameter", "cell", "extra"),
    [
        ("gpt2-cpu-fp32", "gpt2-cpu-fp32", ""),
        ("gpt2-cpu-fp32-b8-s128", "gpt2-cpu-fp32", ""),
        ("vit-b16-cpu-fp32-b8", "vit-b16-cpu-fp32", ""),
        ("gpt2-cpu-fp32+my-b8", "gpt2-cpu-fp32", "my-b8"),
        ("vit-b16", "vit-b16", ""),
    ],
)
def test_the_parts_of_an_id(parameter: str, cell: str, extra: str) -> None:
    found = read_id(parameter)
    assert (found[0], found[2]) == (cell, extra)


@pytest.mark.parametrize(
    ("nodeid", "group"),
    [
        ("a.py::TestA::test_parity[gpt2-cuda0-fp16]", "gpt2"),
        ("a.py::TestA::test_parity[openai--whisper-tiny-openvinogpu.0-fp32]", "openai--whisper-tiny"),
        ("a.py::TestA::test_resolves[gpt2]", "gpt2"),
        ("a.py::TestA::test_performance[gpt2-cpu-fp32-b8-s128]", "gpt2"),
        ("a.py::TestA::test_performance[vit-b16-openvinocpu-int8-b8]", "vit-b16"),
        ("a.py::TestA::test_extra[gpt2-cpu-fp32+my_check]", "gpt2"),
        ("a.py::test_other", "a.py::test_other"),
    ],
)
def test_a_model_is_a_group(nodeid: str, group: str) -> None:
    assert group_of(nodeid) == group
