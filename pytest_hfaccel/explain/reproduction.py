"""Writes a script that shows an operator's error with torch, or a runtime, alone; it is run before it is offered."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_hfaccel.core.errors import ConfigError
from pytest_hfaccel.core.files import replace_file

if TYPE_CHECKING:
    from pytest_hfaccel.explain import Explanation
    from pytest_hfaccel.explain.graphs import GraphExplanation, RuntimeGraph

_SECONDS = 120
_SIGNS = ("relative L2 error", "numbers are NaN or infinite")
"""What the scripts print when they have computed something: an exit with 1 may also be a failed import."""

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
    stem = _stem(title)
    namespace, name, overload = str(operation.operator).split(".")
    values = {"args": operation.args, "kwargs": operation.kwargs, "expected": outputs[0].double().cpu()}
    text = _SCRIPT.format(
        title=_plain(title),
        reason=_plain(f"In {guilty.name or 'the model'} ({guilty.kind}): {found.reason}."),
        data=f"{stem}.pt",
        namespace=namespace,
        name=name,
        overload=overload,
        device=str(next((each.device for each in operation.args if isinstance(each, torch.Tensor)), "cpu")),
        budget=guilty.budget,
        seen=found.error,
    )
    script = directory / f"{stem}.py"
    with _written(directory):
        torch.save(values, script.with_suffix(".pt"))
        replace_file(script, text)
    return _offered(script, [script.with_suffix(".pt")], [])


_GRAPH_SCRIPT = '''"""{title}

{about}
"""

import pathlib
import sys

import numpy

here = pathlib.Path(__file__).parent
data = numpy.load(here / "{data}")

{code}

{verdict}
'''

_COMPARED = """\
expected = data["expected"]  # {origin}
if got.size != expected.size:
    sys.exit(f"{{title}}: relative L2 error inf: its shape is {{got.shape}}, expected {{expected.shape}}")
got = got.reshape(expected.shape)
plain = (abs(expected) < 1e30) & numpy.isfinite(expected)  # beyond it are masks
if not numpy.isfinite(got[plain]).all():
    sys.exit(f"{{title}}: relative L2 error inf: {{(~numpy.isfinite(got[plain])).sum()}} numbers are NaN or infinite")
off = got[plain].astype("float64") - expected[plain]
error = numpy.linalg.norm(off) / numpy.linalg.norm(expected[plain])
print(f"{{title}}: relative L2 error {{error:.3e}}, allowed {budget:.3e}")
worst = abs(off).argmax()
print(f"largest difference: got {{got[plain][worst]:.9g}}, expected {{expected[plain][worst]:.9g}}")
sys.exit(0 if error <= {budget!r} else 1)"""

_FINITE = """\
print("inputs: " + ", ".join(f"{{name}} at most {{abs(data[name]).max():.3g}}" for name in data if data[name].size))
bad = ~numpy.isfinite(got) & (got != -numpy.inf)
print(f"{{title}}: {{bad.sum()}} of {{got.size}} numbers are NaN or infinite")
sys.exit(int(bad.any()))"""


def write_graph_reproduction(
    explanation: GraphExplanation, graph: RuntimeGraph, directory: Path, title: str
) -> tuple[Path | None, str]:
    """Write a script that runs the smallest part of a graph that is wrong alone, and run it.

    Args:
        explanation: What was found.
        graph: The graph.
        directory: Where to; it is made.
        title: As for `write_reproduction`.

    Returns:
        The script and what it printed, or `None` with the reason why the error is not reproduced alone.

    Raises:
        ConfigError: The files cannot be written.
    """
    import numpy as np

    found, search = explanation.guilty, explanation.search
    if found is None or search is None:
        return None, "not reproduced alone: no node that is wrong was found"
    if explanation.part is None:
        return None, f"not reproduced alone: torch has no value that {found.node} should give"
    part = search.smallest(explanation.part)
    tried = search.tried
    if part is None:
        return None, f"not reproduced alone: tried {'; '.join(tried)}"
    stem = _stem(title)
    script, data = directory / f"{stem}.py", directory / f"{stem}.npz"
    arrays = dict(part.feed) if part.expected is None else {**part.feed, "expected": part.expected}
    with _written(directory):
        try:
            code, files = graph.write_alone(part.nodes, part.feed, [part.output], script)
        except NotImplementedError as error:
            names = ", ".join(node.name for node in part.nodes)
            return None, f"not reproduced alone: {names} alone is wrong, but {error}"
        np.savez(data, allow_pickle=False, **arrays)
        verdict = (_FINITE if part.expected is None else _COMPARED).format(origin=part.origin, budget=part.budget)
        names = ", ".join(each.name for each in (*files, data))
        wrong = "has NaN or infinity" if part.expected is None else "is off by more than allowed"
        about = (
            f"Needs numpy, {graph.title} and beside it {names}. Runs "
            f"{', '.join(node.name for node in part.nodes)} alone and exits with 1 if the output {wrong}.",
            f"In {found.module or 'the model'} ({found.kind}): {found.reason}.",
        )
        text = _GRAPH_SCRIPT.format(
            title=_plain(title),
            about=_plain("\n\n".join(textwrap.fill(each, 100, break_long_words=False) for each in about)),
            data=data.name,
            code=code,
            verdict=verdict,
        )
        replace_file(script, text)
    return _offered(script, [data, *files], tried)


def _stem(title: str) -> str:
    return "repro_" + "".join(each if each.isalnum() else "_" for each in title)


def _plain(text: str) -> str:
    """Return a text that can stand in a docstring."""
    return text.replace('"', "'").replace("\\", "/")


@contextmanager
def _written(directory: Path) -> Iterator[None]:
    try:
        directory.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        raise ConfigError(f"{directory}: the reproduction cannot be written: {error}", hint="Name another.") from error


def _offered(script: Path, data: Sequence[Path], tried: Sequence[str]) -> tuple[Path | None, str]:
    """Run a script in a process of its own; keep it only if it shows the error."""
    command = [sys.executable, str(script)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, check=False)
        said = (done.stdout + done.stderr).strip()
        shown = done.returncode == 1 and any(sign in said for sign in _SIGNS)
    except subprocess.TimeoutExpired:
        said, shown = f"the script ran for more than {_SECONDS} s", False
    if shown:
        return script, said
    for file in (script, *data):
        file.unlink(missing_ok=True)
    last = said.splitlines()[-1] if said else "the script printed nothing"
    return None, f"not reproduced alone: tried {'; '.join((*tried, f'a process of its own: {last}'))}"
