"""How many threads the runtimes of a process use: a worker's share of the cores, and all of them while it measures.

torch's number is the one that counts: OpenVINO and ONNX Runtime are given as many when a model is compiled, OpenMP and
the tokenizers read theirs from the environment when they are loaded. What the user has set in the environment stays.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager

_SHARED = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS")
"""Read by OpenMP (torch's and others'), MKL, OpenBLAS (numpy) and the tokenizers."""
_OMP = _SHARED[0]
_ASK_TORCH = "import torch; print(torch.get_num_threads())"


class SharedCores:
    """The limits on a worker's threads, from `apply` to `undo`.

    Args:
        threads: How many it may use: cores / workers.
        environ: The environment to change; that of this process when not given.
    """

    def __init__(self, threads: int, environ: MutableMapping[str, str] | None = None) -> None:
        self.threads = threads
        self._environ = os.environ if environ is None else environ
        self._before: dict[str, str | None] = {}
        self._torch_before: int | None = None

    @property
    def is_applied(self) -> bool:
        """Whether this process is limited by us: not where the user has set OMP_NUM_THREADS."""
        return bool(self._before)

    def apply(self) -> None:
        """Limit what is loaded already, and what will be."""
        if self._environ.get(_OMP):
            return
        for name in _SHARED:
            if not self._environ.get(name):
                self._before[name] = self._environ.get(name)
                self._environ[name] = str(self.threads)
        if "torch" in sys.modules:  # by a module or a conftest that was collected
            self._torch_before = sys.modules["torch"].get_num_threads()
            sys.modules["torch"].set_num_threads(self.threads)

    def undo(self) -> None:
        """Give the threads back. A second call does nothing."""
        if self._torch_before is not None:
            sys.modules["torch"].set_num_threads(self._torch_before)
        for name, value in self._before.items():
            if value is None:
                self._environ.pop(name, None)
            else:
                self._environ[name] = value
        self._before, self._torch_before = {}, None

    def serial_threads(self) -> int:
        """Return how many threads torch has in a process that nobody limits, as in a serial run.

        Only torch knows: it counts cores, not what the system calls processors. Where it was loaded under the limit a
        process is asked that is not, which takes seconds.
        """
        if self._torch_before is not None:
            return self._torch_before
        environ = {name: value for name, value in self._environ.items() if name not in self._before}
        command = [sys.executable, "-c", _ASK_TORCH]
        asked = subprocess.run(command, env=environ, capture_output=True, text=True, check=True)
        return int(asked.stdout)


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Let torch, and what is compiled meanwhile, use so many threads for a `with` block."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
