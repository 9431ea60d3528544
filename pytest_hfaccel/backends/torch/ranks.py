"""Tensor-parallel models: processes that hold a part of a model each, the ranks; started, watched and ended from here.

The ranks of a device serve all models that this process loads there, because starting them takes seconds. They end
with this process, however it ends: each reads its commands from a pipe, and leaves when that closes. What they do is
in `rank.py`.
"""

from __future__ import annotations

import atexit
import os
import pickle
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NoReturn

import torch

from pytest_hfaccel.backends.base import INT8, Placement, SplittableSource, WeightChange
from pytest_hfaccel.backends.torch.model import model_on_meta
from pytest_hfaccel.core.config import RunConfig
from pytest_hfaccel.core.devices import described_kinds, kind_named
from pytest_hfaccel.core.errors import BackendUnavailable, DeviceCrashed, DeviceTimeout, HfAccelError
from pytest_hfaccel.core.spec import CPU, Cell, Device

_GRACE = 10.0
"""Seconds that the other ranks get to answer when one of them has failed: they may wait for it for ever."""
_LAST_LINES = 12
_COLLECTIVES = {"cpu": "gloo", "cuda": "nccl", "xpu": "xccl"}
"""What the ranks exchange numbers with, by torch's name of the device; RCCL is torch's `nccl` on AMD."""


class _Rank:
    """A process of a group, with a thread for each direction of its pipe: neither must wait for a process that hangs.

    Args:
        number: Its rank.
        environment: Its environment.
        log: What it writes to its standard error.
        answers: Where its answers go, as `(number, answer)`; an answer of `None` says that it has ended.
    """

    def __init__(self, number: int, environment: dict[str, str], log: Path, answers: queue.SimpleQueue[Any]) -> None:
        self.number = number
        self._log = log
        self._commands: queue.SimpleQueue[Any] = queue.SimpleQueue()
        with log.open("wb") as errors:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "pytest_hfaccel.backends.torch.rank"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env=environment,
                start_new_session=True,  # Ctrl-C is for the run, which then ends its ranks
            )
        self._threads = [
            threading.Thread(target=self._send, daemon=True),
            threading.Thread(target=self._receive, args=(answers,), daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    def tell(self, command: Any) -> None:
        """Send a command without waiting for anything."""
        self._commands.put(command)

    def how_it_ended(self) -> str:
        """Say how the process ended, with the last lines that it wrote."""
        try:
            code = self.process.wait(_GRACE)
        except subprocess.TimeoutExpired:  # it has closed its pipe, and lives on
            return "does not answer any more"
        try:
            how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"exited with status {code}"
        except ValueError:
            how = f"was killed by signal {-code}"
        lines = self._log.read_text(errors="replace").strip().splitlines()[-_LAST_LINES:]
        return "; ".join([how, "its last lines:\n" + "\n".join(lines) if lines else "it wrote nothing"])

    def end(self) -> None:
        """Kill the process."""
        self._commands.put(None)
        self.process.kill()
        self.process.wait()
        for thread in self._threads:
            thread.join()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                with suppress(OSError):
                    pipe.close()

    def _send(self) -> None:
        pipe: Any = self.process.stdin
        with suppress(OSError):  # it has ended, which the other thread sees
            for command in iter(self._commands.get, None):
                pickle.dump(command, pipe)
                pipe.flush()

    def _receive(self, answers: queue.SimpleQueue[Any]) -> None:
        with suppress(EOFError, OSError, pickle.UnpicklingError):
            while True:
                answers.put((self.number, pickle.load(self.process.stdout)))  # type: ignore[arg-type] # noqa: S301
        answers.put((self.number, None))


class RankGroup:
    """The ranks of a device.

    Args:
        device: A device with ranks, such as `cpu+tp=2`.

    Raises:
        BackendUnavailable: Not all the devices are here, or nothing exchanges numbers between them.
        DeviceCrashed: A rank died while it started.
        DeviceTimeout: A rank did not start in time.
    """

    def __init__(self, device: Device) -> None:
        _require_collectives(device)
        self.limit = RunConfig.from_values({}).rank_timeout
        self._folder = tempfile.TemporaryDirectory(prefix="hfaccel-ranks-")
        self._answers: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._asked = 0
        self._owner = os.getpid()
        self._ended: HfAccelError | None = None
        folder = Path(self._folder.name)
        self._ranks: list[_Rank] = []
        started = time.perf_counter()
        try:
            for number in range(device.ranks):
                environment = _environment(device, number)
                self._ranks.append(_Rank(number, environment, folder / f"rank{number}.log", self._answers))
            self.ask("join", device, str(folder / "rendezvous"), self.limit, described_kinds(), stage="load")
        except BaseException:
            self.end()
            raise
        self.seconds = time.perf_counter() - started

    @property
    def serves(self) -> bool:
        """Whether this process has started the ranks, and all of them live."""
        return self._ended is None and self._owner == os.getpid()

    @property
    def pids(self) -> list[int]:
        """The process ids, in the order of the ranks."""
        return [rank.process.pid for rank in self._ranks]

    def ask(self, command: str, *arguments: Any, stage: str) -> list[Any]:
        """Have all ranks do something, and return what they answer, in the order of the ranks.

        Args:
            command: A method of `rank.Rank`.
            *arguments: Its arguments, the same for all ranks.
            stage: Where in a cell's life this is.

        Raises:
            DeviceCrashed: A rank died. The others are ended, as in the next case, and the same error is raised from
                then on.
            DeviceTimeout: A rank did not answer in time.
            HfAccelError: A rank failed; an error of ours is raised as it is. Where others did not fail, all are ended.
        """
        if self._ended is not None:
            raise self._ended
        self._asked += 1
        for rank in self._ranks:
            rank.tell((self._asked, command, arguments))
        try:
            answers, dead = self._collect()
        except BaseException:  # Ctrl-C: nobody will read the answers
            self.end(DeviceCrashed("the run was interrupted while the ranks worked, and they were ended", stage=stage))
            raise
        size = len(self._ranks)
        if dead is not None:
            text = f"rank {dead} of {size} {self._ranks[dead].how_it_ended()}"
            self._give_up(DeviceCrashed(text, stage=stage))
        failed = {number: value for number, (good, value) in answers.items() if not good}
        silent = [number for number in range(size) if number not in answers]
        if failed:
            number, error = min(failed.items())
            if isinstance(error, str):
                error = HfAccelError(f"rank {number} of {size}: {error}", stage=stage)
            if len(failed) == size:
                raise error
            error.message += f"\nThe other ranks ({size - len(failed)}) did not fail; all were ended."
            self._give_up(error)
        if silent:
            names = ", ".join(map(str, silent))
            text = f"rank {names} of {size} did not answer within {self.limit} s; all ranks were ended"
            self._give_up(DeviceTimeout(text, stage=stage, hint="HFACCEL_RANK_TIMEOUT sets the seconds."))
        return [answers[number][1] for number in range(size)]

    def end(self, why: HfAccelError | None = None) -> None:
        """End the processes; `why` is raised when they are asked for something afterwards."""
        self._ended = self._ended or why or DeviceCrashed("the ranks were ended")
        if self._owner == os.getpid():  # a fork has a copy of this, and must leave the processes alone
            for rank in self._ranks:
                rank.end()
            self._ranks = []
            self._folder.cleanup()

    def _give_up(self, error: HfAccelError) -> NoReturn:
        self.end(error)
        raise error

    def _collect(self) -> tuple[dict[int, tuple[bool, Any]], int | None]:
        """Wait for the answers; return those that came, and the first rank that died."""
        answers: dict[int, tuple[bool, Any]] = {}
        deadline = time.monotonic() + self.limit
        while len(answers) < len(self._ranks):
            try:
                number, answer = self._answers.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                break
            if answer is None:
                return answers, number
            asked, good, value = answer
            if asked == self._asked:
                answers[number] = good, value
                if not good:
                    deadline = min(deadline, time.monotonic() + _GRACE)
        return answers, None


_GROUPS: dict[Device, RankGroup] = {}


def ranks_of(device: Device) -> RankGroup:
    """Return the ranks of a device, starting them if they do not run; see `RankGroup`."""
    group = _GROUPS.get(device)
    if group is None or not group.serves:
        group = _GROUPS[device] = RankGroup(device)
    return group


@atexit.register
def end_all_ranks() -> None:
    """End the ranks of all devices that this process has started."""
    while _GROUPS:
        _GROUPS.popitem()[1].end()


class ParallelModel:
    """A model of which each rank has a part; see `pytest_hfaccel.backends.base.LoadedModel`.

    Args:
        cell: The cell.
        source: The checkpoint, which each rank reads.
    """

    def __init__(self, cell: Cell, source: SplittableSource) -> None:
        self._cell, self._source = cell, source
        self._seconds: float | None = None
        self._architecture: Any = None
        self._lost: HfAccelError | None = None
        self._handle = f"{cell.id} {time.monotonic_ns()}"
        self._load()

    def _load(self) -> None:
        cell = self._cell
        self._group = ranks_of(cell.device)
        parts = self._group.ask("load", self._handle, cell, self._source, stage="load")
        self.nbytes = sum(part["bytes"] for part in parts)
        self.timings = {"load": max(part["seconds"] for part in parts)}
        effective = {part["effective_dtype"] for part in parts}
        details = {
            **parts[0]["details"],
            "ranks": len(parts),
            "ranks_started_in": round(self._group.seconds, 3),
            "bytes_by_rank": [part["bytes"] for part in parts],
        }
        self.placement = Placement(
            cell.device.id,
            tuple(dict.fromkeys(device for part in parts for device in part["devices"])),
            cell.dtype,
            effective.pop() if len(effective) == 1 else "mixed",
            details=details,
        )

    def forward(self, inputs: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Run the model once on all ranks; return what the first one gives.

        Raises:
            HfAccelError: On the CPU, where they must agree to the last bit, another rank gives something else.
        """
        answers = self._ask("forward", dict(inputs))
        self._seconds = answers[0]["seconds"]
        agree = len({answer["digest"] for answer in answers}) == 1
        self.placement.details["ranks_agree"] = agree
        if not agree and Device.parse(self.placement.requested_device).eager == CPU:
            raise HfAccelError("the ranks give different outputs for the same inputs", stage="compare")
        outputs: dict[str, torch.Tensor] = answers[0]["outputs"]
        return outputs

    def run_seconds(self) -> float | None:
        """The seconds of the last `forward` on the first rank, without the way to it and back."""
        return self._seconds

    def generate(self, inputs: Mapping[str, torch.Tensor], *, max_new_tokens: int, use_cache: bool) -> torch.Tensor:
        """Generate greedily, without stopping early."""
        options = {"max_new_tokens": max_new_tokens, "use_cache": use_cache}
        tokens: torch.Tensor = self._ask("generate", dict(inputs), options)[0]
        return tokens

    def pipeline_model(self) -> Any:
        """Return the architecture class without weights, whose forward pass runs on the ranks."""
        from transformers.utils import ModelOutput

        from pytest_hfaccel.backends.exported.architecture import architecture_without_weights

        if self._architecture is None:
            names = frozenset(self._source.sample().forward)
            run = lambda inputs: ModelOutput(**self.forward(inputs))  # noqa: E731
            self._architecture = architecture_without_weights(self._source, run, names)
        return self._architecture

    def directly_editable(self, parameters: Iterable[str]) -> frozenset[str]:
        """Return all of them: each rank changes its part."""
        return frozenset(parameters)

    @contextmanager
    def perturbed(self, change: WeightChange) -> Iterator[ParallelModel]:
        """Give the same model with one weight made wrong, in the rank that has it."""
        self._ask("change", change)
        try:
            yield self
        finally:
            if self._lost is None:
                self._ask("restore")

    def memory(self) -> dict[str, Any]:
        """Bytes in use by all ranks now and at most since `reset_peak_memory`."""
        counts = self._ask("memory")
        total = {key: sum(count[key] for count in counts) for key in ("current_bytes", "peak_bytes")}
        peak = f"{counts[0]['peak_source']}, summed over {len(counts)} ranks"
        return {**total, "source": counts[0]["source"], "peak_source": peak}

    def reset_peak_memory(self) -> None:
        """Start a new peak on all ranks."""
        self._ask("reset_peak_memory")

    @contextmanager
    def occupied(self, nbytes: int) -> Iterator[None]:
        """Hold that many more bytes on the first rank."""
        self._ask("occupy", nbytes)
        try:
            yield
        finally:
            if self._lost is None:
                self._ask("free")

    def close(self) -> None:
        """Free the memory on the ranks, which go on."""
        self._architecture = None
        self._lost = HfAccelError("the model is closed", stage="run")
        if self._group.serves:
            with suppress(HfAccelError):  # the next model gets new ranks
                self._group.ask("close", self._handle, stage="run")

    def _ask(self, command: str, *arguments: Any) -> list[Any]:
        """Have the ranks do something with this model; where they have ended with another model, load it anew first."""
        if self._lost is not None:
            raise self._lost
        if not self._group.serves:
            self._load()
        try:
            return self._group.ask(command, self._handle, *arguments, stage="run")
        except HfAccelError as error:
            self._lost = None if self._group.serves else error
            raise


def load_parallel(cell: Cell, source: SplittableSource) -> ParallelModel:
    """Load a model over the ranks of the cell's device.

    Raises:
        BackendUnavailable: The model cannot be split so, or the devices are not here; says why.
        HfAccelError: A rank could not load its part, died or hangs.
    """
    if cell.dtype == INT8:
        raise BackendUnavailable(
            f"{cell.device}: models at int8 are not split: torchao rounds whole weights.", stage="load"
        )
    reason = why_not_split(source, cell.device.ranks)
    if reason:
        raise BackendUnavailable(f"{cell.device}: {reason}", stage="load")
    return ParallelModel(cell, source)


def why_not_split(source: SplittableSource, ranks: int) -> str:
    """Return why the class of a checkpoint cannot be split over so many ranks by its own plan; empty where it can."""
    from pytest_hfaccel.upstream.transformers import tensor_parallel_plan

    blank = model_on_meta(source)
    plan = tensor_parallel_plan(blank)
    name = type(blank).__name__
    if not plan:
        return f"{name} has no plan of transformers for tensor parallelism (base_model_tp_plan, _tp_plan)."
    if not any(style == "colwise" for place, style in plan.items() if "attn" in place or "attention" in place):
        return ""
    text = blank.config.get_text_config()
    for field, what in (("num_attention_heads", "attention heads"), ("num_key_value_heads", "key-value heads")):
        count = getattr(text, field, None)
        for heads in count if isinstance(count, list | tuple) else [count]:
            if isinstance(heads, int) and heads % ranks:
                return f"{name} has {heads} {what}, which cannot be divided among {ranks} ranks."
    return ""


def _require_collectives(device: Device) -> None:
    name = _torch_type(device)
    if not torch.distributed.is_available():
        raise BackendUnavailable(f"{device}: this torch ({torch.__version__}) is built without torch.distributed.")
    backend = _COLLECTIVES.get(name)
    if backend is None or not torch.distributed.is_backend_available(backend):
        why = f"it is built without {backend}" if backend else "it has none for them"
        raise BackendUnavailable(
            f"{device}: this torch ({torch.__version__}) has no collectives for devices of {name}: {why}.", stage="load"
        )
    if name == "cpu":
        return
    module = getattr(torch, name)
    count = int(module.device_count()) if module.is_available() else 0
    last = int(device.target or 0) + device.ranks - 1
    if last >= count:
        raise BackendUnavailable(
            f"{device}: it takes {device.ranks} devices of its kind, up to {device.eager.kind}:{last}, and torch finds "
            f"{count}.",
            stage="load",
        )


def _torch_type(device: Device) -> str:
    return device.eager.torch_name.partition(":")[0]


def _environment(device: Device, number: int) -> dict[str, str]:
    """Return the environment of a rank. It sees the devices of the group alone: transformers takes rank N's to be N."""
    threads = str(max(1, torch.get_num_threads() // device.ranks))
    environment = {
        **os.environ,
        "RANK": str(number),
        "LOCAL_RANK": str(number),
        "WORLD_SIZE": str(device.ranks),
        "LOCAL_WORLD_SIZE": str(device.ranks),
        "TOKENIZERS_PARALLELISM": "false",
        "OMP_NUM_THREADS": threads,
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
    }
    if sys.platform.startswith("linux"):
        # All ranks are on this machine, whose own name need not lead to it.
        environment.setdefault("GLOO_SOCKET_IFNAME", "lo")
    if _torch_type(device) == "cpu":
        for kind in ("cuda", "rocm"):
            environment.update(dict.fromkeys(_variables(kind), ""))
        return environment
    variables = _variables(device.eager.kind)
    first = int(device.target or 0)
    if not variables:
        if first:
            raise BackendUnavailable(
                f"{device}: nothing hides the first {first} devices of its kind from the ranks.",
                stage="load",
                hint=f"Use {device.eager.kind}:0+{device.parallel}.",
            )
        return environment
    innermost = variables[-1]
    seen = os.environ.get(innermost, "").split(",") if os.environ.get(innermost) else []
    own = seen[first : first + device.ranks] or map(str, range(first, first + device.ranks))
    environment[innermost] = ",".join(own)
    return environment


def _variables(kind: str) -> tuple[str, ...]:
    described = kind_named(kind).torch
    return described.visible_devices if described is not None else ()
