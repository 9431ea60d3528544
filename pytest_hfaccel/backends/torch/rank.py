"""One rank of a tensor-parallel model: a process that does what `ranks.py` asks of it, in step with the others.

Commands and answers are pickles on its standard input and output. When the input closes it leaves, whatever it does.
"""

from __future__ import annotations

import hashlib
import os
import pickle
import queue
import sys
import threading
import time
import traceback
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from datetime import timedelta
from typing import Any

import torch

from pytest_hfaccel.backends.base import Placement, SplittableSource, WeightChange
from pytest_hfaccel.backends.memory import out_of_memory_raised
from pytest_hfaccel.backends.torch.devices import (
    confirm_device,
    dtype_of,
    effective_dtype,
    fp32_precision,
    full_fp32,
    parameter_dtypes,
)
from pytest_hfaccel.backends.torch.model import TorchModel, weight_bytes
from pytest_hfaccel.core.devices import DeviceKind, register_kind
from pytest_hfaccel.core.errors import HfAccelError, LoadError
from pytest_hfaccel.core.spec import Cell, Device
from pytest_hfaccel.upstream.torch import is_split, whole_tensor
from pytest_hfaccel.upstream.transformers import attention_implementation, tensor_parallel, tensor_parallel_plan

_FRAMES = 4


class PartOfModel(TorchModel):
    """This rank's part of a model."""

    @contextmanager
    def perturbed(self, change: WeightChange) -> Iterator[TorchModel]:
        """Give the same model with one weight made wrong; of a weight that is split, in the rank that has it."""
        from torch.distributed.tensor import distribute_tensor

        weight = dict(self._model.named_parameters(remove_duplicate=False)).get(change.parameter)
        if weight is None or not is_split(weight):
            with super().perturbed(change) as wrong:
                yield wrong
            return
        weight = weight.data
        whole = whole_tensor(weight).clone()
        whole.view(-1)[change.index] += change.delta
        wrong = distribute_tensor(whole, weight.device_mesh, weight.placements, src_data_rank=None).to_local()
        part = weight.to_local()
        original = part.clone()
        try:
            part.copy_(wrong)
            yield self
        finally:
            part.copy_(original)


class Rank:
    """The state of this process; each public method is a command, and what it returns the answer."""

    def __init__(self) -> None:
        self._models: dict[str, PartOfModel] = {}
        self._open: dict[tuple[str, str], ExitStack] = {}
        self._device = Device("cpu")
        self._size = 1
        self._number = int(os.environ["RANK"])

    def join(self, device: Device, rendezvous: str, limit: float, described: Iterable[DeviceKind]) -> None:
        """Meet the other ranks at a file."""
        from pytest_hfaccel.backends.torch.ranks import _COLLECTIVES

        for kind in described:
            register_kind(kind)
        on_cpu = device.eager.kind == "cpu"
        self._device = device.eager if on_cpu else Device(device.eager.kind, str(self._number))
        self._size = device.ranks
        name = self._device.torch_name
        place = {} if on_cpu else {"device_id": torch.device(name)}
        torch.distributed.init_process_group(
            _COLLECTIVES[name.partition(":")[0]],
            init_method=f"file://{rendezvous}",
            rank=self._number,
            world_size=self._size,
            timeout=timedelta(seconds=limit),
            **place,
        )

    def load(self, handle: str, cell: Cell, source: SplittableSource) -> dict[str, Any]:
        """Load this rank's part of a model, and compare the whole of it with the files."""
        dtype = dtype_of(cell.dtype, self._device)
        facts = confirm_device(self._device, cell.dtype)
        started = time.perf_counter()
        with full_fp32, out_of_memory_raised(str(self._device), "load"):
            model = source.split_model(cell.dtype, tensor_parallel(self._size))
        seconds = time.perf_counter() - started
        split = [name for name, parameter in model.named_parameters() if is_split(parameter)]
        if not split:
            raise LoadError(f"transformers split none of the parameters of {type(model).__name__} over the ranks.")
        nbytes = weight_bytes(model)
        placement = Placement(str(self._device), (str(self._device),), cell.dtype, cell.dtype)
        self._models[handle] = PartOfModel(model, dtype, placement, nbytes, {"load": seconds})
        effective, kept_in_fp32 = effective_dtype(model, cell.dtype)
        index = int(cell.device.target or 0) + self._number
        return {
            "bytes": nbytes,
            "seconds": seconds,
            "devices": [self._ours(tensor, index) for tensor in (*model.parameters(), *model.buffers())],
            "effective_dtype": effective,
            "details": {
                **facts,
                "torch": torch.__version__,
                "parameter_dtypes": parameter_dtypes(model),
                "kept_in_fp32": kept_in_fp32,
                "fp32_precision": fp32_precision(),
                "attention": attention_implementation(model.config),
                "split_parameters": len(split),
                "parameters": len(list(model.parameters())),
                "tp_plan": tensor_parallel_plan(model),
                "collectives": torch.distributed.get_backend(),
            },
        }

    def forward(self, handle: str, inputs: Mapping[str, torch.Tensor]) -> dict[str, Any]:
        """Run a model once; the outputs are answered by the first rank alone, a hash of them by all."""
        started = time.perf_counter()
        outputs = {name: whole_tensor(leaf) for name, leaf in self._models[handle].forward(inputs).items()}
        seconds = time.perf_counter() - started
        digest = hashlib.sha256()
        for name, leaf in outputs.items():
            digest.update(name.encode())
            digest.update(leaf.contiguous().flatten().view(torch.uint8).numpy().tobytes())
        return {
            "outputs": outputs if self._number == 0 else None,
            "digest": digest.hexdigest(),
            "seconds": seconds,
        }

    def generate(self, handle: str, inputs: Mapping[str, torch.Tensor], options: Mapping[str, Any]) -> torch.Tensor:
        """Generate tokens."""
        return self._models[handle].generate(inputs, **options)

    def change(self, handle: str, change: WeightChange) -> None:
        """Make a weight wrong, until `restore`."""
        self._enter(handle, "changed", self._models[handle].perturbed(change))

    def restore(self, handle: str) -> None:
        """Undo `change`."""
        self._open.pop((handle, "changed")).close()

    def memory(self, handle: str) -> dict[str, Any]:
        """Count the memory in use."""
        return self._models[handle].memory()

    def reset_peak_memory(self, handle: str) -> None:
        """Start a new peak."""
        self._models[handle].reset_peak_memory()

    def occupy(self, handle: str, nbytes: int) -> None:
        """Hold so many more bytes on the first rank, until `free`."""
        if self._number == 0:
            self._enter(handle, f"occupied {len(self._open)}", self._models[handle].occupied(nbytes))

    def free(self, handle: str) -> None:
        """Undo the last `occupy`."""
        held = [key for key in self._open if key[0] == handle and key[1].startswith("occupied")]
        if held:
            self._open.pop(held[-1]).close()

    def close(self, handle: str) -> None:
        """Forget a model."""
        for key in [key for key in self._open if key[0] == handle]:
            self._open.pop(key).close()
        model = self._models.pop(handle, None)
        if model is not None:
            model.close()

    def _enter(self, handle: str, what: str, context: AbstractContextManager[Any]) -> None:
        stack = ExitStack()
        stack.enter_context(context)
        self._open[handle, what] = stack

    def _ours(self, tensor: torch.Tensor, index: int) -> str:
        """Return our id of where a tensor is: of this rank's device as the run calls it, not this process."""
        if tensor.device.type == self._device.torch_name.partition(":")[0] and self._device.target:
            return f"{self._device.kind}:{index}"
        return str(tensor.device)


def main() -> None:
    """Do what standard input asks for, until it closes."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what libraries print goes to standard error
    commands: queue.SimpleQueue[Any] = queue.SimpleQueue()
    threading.Thread(target=_read, args=(commands,), daemon=True).start()
    rank = Rank()
    while True:
        number, command, arguments = commands.get()
        try:
            answer = (number, True, getattr(rank, command)(*arguments))
        except Exception as error:
            traceback.print_exc()
            answer = (number, False, _described(error))
        pickle.dump(answer, answers)
        answers.flush()


def _read(commands: queue.SimpleQueue[Any]) -> None:
    """Take commands from standard input; the other thread may wait for a rank that is gone."""
    try:
        while True:
            commands.put(pickle.load(sys.stdin.buffer))  # noqa: S301 - from the process that started this one
    except EOFError:
        os._exit(0)
    except BaseException:
        traceback.print_exc()
        os._exit(1)


def _described(error: Exception) -> HfAccelError | str:
    """Return an error as it can be sent: ours as it is, of others what it says and where it comes from."""
    if isinstance(error, HfAccelError):
        error.__traceback__ = error.__cause__ = error.__context__ = None
        return error
    where = "".join(traceback.format_list(traceback.extract_tb(error.__traceback__)[-_FRAMES:]))
    return f"{type(error).__name__}: {error}\n{where}".rstrip()


if __name__ == "__main__":
    main()
