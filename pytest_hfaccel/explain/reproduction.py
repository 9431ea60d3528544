"""Writes a script that shows an operator's error with torch alone, and runs it before it is offered."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_hfaccel.core.errors import ConfigError
from pytest_hfaccel.core.files import replace_file

if TYPE_CHECKING:
    from pytest_hfaccel.explain import Explanation

_SECONDS = 120

_SCRIPT = '''"""{title}

Needs torch and the file {data} beside it. Prints the relative L2 error of one operator and exits with 1 if it is more
than allowed.

{reason}
"""

import pathlib
import sys

import torch

saved = torch.load(pathlib.Path(__file__).with_name("{data}"), weights_only=True)
operator = torch.ops.{namespace}.{name}.{overload}
device = {device!r}


def move(value):
    if isinstance(value, torch.Tensor):
        return value.to(device)
    if isinstance(value, (list, tuple)):
        return type(value)(map(move, value))
    return value


got = operator(*move(saved["args"]), **{{name: move(value) for name, value in saved["kwargs"].items()}})
got = got[0] if isinstance(got, (list, tuple)) else got
expected = saved["expected"]
error = float((got.double().cpu() - expected).norm() / expected.norm())
print(f"torch {{torch.__version__}}: relative L2 error {{error:.3e}}, allowed {budget:.3e}, in the model {seen:.3e}")
sys.exit(0 if error <= {budget!r} else 1)
'''


def write_reproduction(explanation: Explanation, directory: Path, title: str) -> tuple[Path | None, str]:
    """Write a script and its data for the operator that was found, and run it.

    Args:
        explanation: What was found.
        directory: Where to; it is made.
        title: First line of the script, such as the cell's id; also the name of the files.

    Returns:
        The script, or `None` with the reason why the error is not reproduced alone.

    Raises:
        ConfigError: The files cannot be written.
    """
    import torch

    found, guilty = explanation.operator, explanation.guilty
    if found is None or guilty is None or found.operation is None or found.expected is None:
        return None, "not reproduced alone: no operator that ran on both sides was found"
    operation = found.operation
    outputs = [found.expected.output] if isinstance(found.expected.output, torch.Tensor) else found.expected.output
    stem = "repro_" + "".join(each if each.isalnum() else "_" for each in title)
    namespace, name, overload = str(operation.operator).split(".")
    values = {"args": operation.args, "kwargs": operation.kwargs, "expected": outputs[0].double().cpu()}
    text = _SCRIPT.format(
        title=title.replace('"', "'").replace("\\", "/"),
        reason=f"In {guilty.name or 'the model'} ({guilty.kind}): {found.reason}.".replace('"', "'"),
        data=f"{stem}.pt",
        namespace=namespace,
        name=name,
        overload=overload,
        device=str(next((each.device for each in operation.args if isinstance(each, torch.Tensor)), "cpu")),
        budget=guilty.budget,
        seen=found.error,
    )
    script = directory / f"{stem}.py"
    try:
        directory.mkdir(parents=True, exist_ok=True)
        torch.save(values, script.with_suffix(".pt"))
        replace_file(script, text)
    except OSError as error:
        raise ConfigError(f"{directory}: the reproduction cannot be written: {error}", hint="Name another.") from error
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=_SECONDS, check=False)
    if done.returncode == 1 and "relative L2 error" in done.stdout:
        return script, done.stdout.strip()
    script.unlink()
    script.with_suffix(".pt").unlink()
    last = (done.stdout + done.stderr).strip().splitlines()
    return None, f"not reproduced alone: {last[-1] if last else 'the script printed nothing'}"
