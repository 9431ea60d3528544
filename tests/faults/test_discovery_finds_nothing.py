"""Discovery of models on the hub: a class that does not exist, and a hub that does not answer."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pytest_hfaccel.cli import main

NOBODY = "http://127.0.0.1:9"
"""The port of the discard protocol, where nobody listens."""

ASK = """
import sys, time
from pytest_hfaccel.core.errors import HubError
from pytest_hfaccel.registry.hub import popular_models

started = time.perf_counter()
try:
    popular_models("BertForMaskedLM", ["transformers"], 1)
except HubError as error:
    print(error.message)
    print(time.perf_counter() - started, file=sys.stderr)
"""


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_an_unknown_class_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["registry", "sync", "BertForMaskedLM", "BertForMaskedLn"]) == 1
    said = capsys.readouterr()
    assert said.out == "", "nothing is printed that could be taken for a registry file"
    assert "has no model class 'BertForMaskedLn'. Did you mean 'BertForMaskedLM'?" in said.err


def test_without_a_network_it_does_not_try_again_and_again(tmp_path: Path) -> None:
    clean = {key: value for key, value in os.environ.items() if not key.upper().startswith("HF")}
    clean |= {"HF_HOME": str(tmp_path), "HF_ENDPOINT": NOBODY, "NO_PROXY": "127.0.0.1"}
    done = subprocess.run([sys.executable, "-c", ASK], capture_output=True, text=True, env=clean, check=True)
    assert done.stdout.startswith(f"BertForMaskedLM: the hub at {NOBODY} did not answer (")
    assert float(done.stderr.splitlines()[-1]) < 4
