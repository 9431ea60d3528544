"""A class of tests that every backend passes, also that of a third party.

    from pytest_hfaccel.testing import BackendConformance

    class TestToaster(BackendConformance):
        backend = ToasterBackend
        device = "toaster:0"

pytest then runs the tests on a tiny model whose weights are drawn here; nothing is downloaded. Like the plugin, this
module imports pytest.
"""

from __future__ import annotations

import gc
import json
import multiprocessing
import os
import signal
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar

import pytest

from pytest_hfaccel.backends import Backends
from pytest_hfaccel.backends.base import Backend, DeviceProbe, LoadedModel, WeightChange
from pytest_hfaccel.core.devices import DeviceKind, Traits, kind_named, register_kind, registered_kinds
from pytest_hfaccel.core.errors import BackendUnavailable, DeviceCrashed, HfAccelError, LoadError
from pytest_hfaccel.core.results import nodes_of
from pytest_hfaccel.core.spec import DTYPES, Cell, Device, ModelSpec, Weights, WeightsChoice

MIB = 2**20

_ERRORS = {"fp32": (0.0, 1e-4), "fp16": (2e-5, 2e-2), "bf16": (2e-4, 1e-1), "int8": (2e-5, 2e-1)}
"""rel-L2 that a precision costs, at least and at most, of a model with a few layers. Honest fp32 costs less than 1e-5:
what claims 16 bits and is that right computes in fp32, and what claims fp32 and is off by 4e-4 computes in 16 bits."""

_STAGES = frozenset({"load", "convert", "compile"})
_GROWTH = 64 * MIB
"""How much more memory may be in use after the third load and close than after the first: allocators keep some."""


class BackendConformance:
    """Tests of a backend. A subclass, `Test...`, sets `device`, and `backend` if it is not registered.

    Attributes:
        backend: The backend, its class, or `module:Class`; that which serves the device's kind when not set.
        device: Id of the device to test.
        dtype: Precision of the tests that are not about precision.
        architecture: transformers class of the model; a tiny one is made of it.
        task: Its task.
        wrong_weight: The weight that is made wrong, visibly, to see that it changes the outputs.
        absent_device: Id of a device of its kind that is not here; a high number when not set and the kind is indexed.
    """

    backend: ClassVar[Any] = None
    device: ClassVar[str] = ""
    dtype: ClassVar[str] = "fp32"
    architecture: ClassVar[str] = "BertForSequenceClassification"
    task: ClassVar[str] = "text-classification"
    wrong_weight: ClassVar[WeightChange] = WeightChange("classifier.bias", 0, 1.0)
    absent_device: ClassVar[str] = ""

    def fallback_source(self, source: Any) -> Any:
        """Return a checkpoint (`ModelSource`) with an operator that the device lacks; `None` if there is none such.

        Args:
            source: The tiny checkpoint that the other tests use.
        """
        del source

    def crash(self, loaded: Any) -> bool:
        """Kill the process that a loaded model computes in; return False where that is the process of the tests."""
        del loaded
        return False

    @classmethod
    def served_by(cls) -> Any:
        """Return the backend under test, its kind registered."""
        kind = cls.device.partition("+")[0].partition(":")[0]
        assert kind, f"{cls.__name__}: set `device`, e.g. device = 'toaster:0'"
        backend = cls.backend
        if backend is None:
            return Backends().for_kind(kind)
        if isinstance(backend, str):
            module, _, name = backend.partition(":")
            backend = getattr(import_module(module), name)
        if isinstance(backend, type):
            backend = backend()
        if kind not in registered_kinds():
            register_kind(DeviceKind(kind, traits=getattr(backend, "traits", Traits())))
        return backend

    @classmethod
    def cell_of(cls, dtype: str = "", device: str = "") -> Cell:
        """Return the cell of the tiny model on the device, at `dtype` if it is given."""
        spec = ModelSpec(cls.architecture.lower(), cls.architecture, cls.task)
        where = Device.parse(device or cls.device, registered_kinds())
        return Cell(spec, where, dtype or cls.dtype, WeightsChoice(Weights.TINY, "conformance"))

    @classmethod
    def source_in(cls, folder: Path, architecture: str = "", task: str = "") -> Any:
        """Return a tiny checkpoint, made below a folder; `None` for a backend that takes none.

        Args:
            folder: Where it is kept, and what the backend derives from it.
            architecture: transformers class; the one of the tests when not given.
            task: Its task.
        """
        from pytest_hfaccel.checkpoints import CheckpointStore

        cell = cls.cell_of()
        if not cell.device.traits.needs_checkpoint:
            return None
        spec = ModelSpec(architecture.lower(), architecture, task) if architecture else cell.model
        return CheckpointStore(folder).prepare(spec, cell.weights)

    tested: ClassVar[Any]
    """The backend under test."""
    source: ClassVar[Any]
    """The tiny checkpoint; `None` for a backend that takes none."""
    inputs: ClassVar[dict[str, Any]]
    """The inputs of `forward`."""
    loaded: ClassVar[Any]
    """The model on the device, shared by the tests that leave it as it is."""
    _folder: ClassVar[tempfile.TemporaryDirectory[str]]

    @classmethod
    def setup_class(cls) -> None:
        """Load the model; the tests are skipped where the device is not on this machine."""
        cls.tested = cls.served_by()
        confirm = getattr(cls.tested, "confirm", None)
        if confirm is not None:
            try:
                confirm(cls.cell_of().device)
            except (BackendUnavailable, ImportError) as error:
                pytest.skip(f"{cls.device} is not on this machine: {error}")
        cls._folder = tempfile.TemporaryDirectory(prefix="conformance-")
        cls.source = cls.source_in(Path(cls._folder.name))
        cls.inputs = {} if cls.source is None else dict(cls.source.sample().forward)
        cls.loaded = cls.tested.load(cls.cell_of(), cls.source)

    @classmethod
    def teardown_class(cls) -> None:
        """Free it."""
        if "loaded" in vars(cls):
            cls.loaded.close()
            cls._folder.cleanup()

    def test_it_has_what_a_backend_has(self) -> None:
        """`name` and `load`; `traits`, if there are any, are `Traits`."""
        assert isinstance(self.tested, Backend)
        assert self.tested.name, "`name` is empty"
        assert isinstance(getattr(self.tested, "traits", Traits()), Traits), (
            "`traits` is no pytest_hfaccel.core.devices.Traits"
        )

    def test_its_devices_are_found_with_reasons(self) -> None:
        """`probe` lists devices of its kind, each with a reason in one line; `confirm` has facts about the device."""
        if not isinstance(self.tested, DeviceProbe):
            pytest.skip("it has no probe() and confirm(): its devices exist only by name")
        kind = self.cell_of().device.kind
        for presence in self.tested.probe():
            assert presence.device.kind == kind
            assert presence.reason
            assert "\n" not in presence.reason
            json.dumps(presence.to_json())
        assert isinstance(self.tested.confirm(self.cell_of().device), Mapping)

    def test_an_absent_device_is_refused(self) -> None:
        """It does not run elsewhere: `load` on a device that is not here raises `BackendUnavailable`."""
        row = kind_named(self.cell_of().device.eager.kind)
        absent = self.absent_device or (f"{row.name}:99" if row.is_indexed and row.is_searched else "")
        if not absent:
            pytest.skip("set `absent_device` to the id of one that is not here")
        with pytest.raises(BackendUnavailable):
            self.tested.load(self.cell_of(device=absent), self.source)

    def test_outputs_are_on_the_cpu_and_right(self) -> None:
        """Named tensors on the CPU, as far from the reference in fp64 as the precision explains."""
        outputs = self.loaded.forward(self.inputs)
        assert outputs, "`forward` returned nothing"
        if self.source is None:
            return
        import torch

        for name, leaf in outputs.items():
            assert isinstance(leaf, torch.Tensor), f"{name} is no tensor but {type(leaf).__name__}"
            assert leaf.device.type == "cpu", f"{name} is on {leaf.device}"
        error = _error(outputs, self.source, self.inputs)
        most = _ERRORS[self.dtype][1]
        assert error <= most, f"rel-L2 against the reference in fp64 is {error:.1e}; {self.dtype} explains {most:.0e}"

    def test_two_runs_agree(self) -> None:
        """To the last bit where the traits say so, else within what the precision costs."""
        first, second = self.loaded.forward(self.inputs), self.loaded.forward(self.inputs)
        device = self.cell_of().device
        limit = 0.0 if device.traits.is_exact(device.target) else _ERRORS[self.dtype][1]
        assert _largest_difference(first, second) <= limit

    @pytest.mark.parametrize("dtype", DTYPES)
    def test_the_precision_is_told_truthfully(self, dtype: str) -> None:
        """It refuses a precision, or says at which it runs, and the error of the outputs fits what it says."""
        try:
            loaded = self.tested.load(self.cell_of(dtype), self.source)
        except BackendUnavailable as refusal:
            assert dtype != self.dtype, f"it refuses {dtype}, at which it is tested"
            assert dtype in str(refusal), f"the refusal does not name the precision: {refusal}"
            return
        try:
            effective = loaded.placement.effective_dtype
            assert loaded.placement.requested_dtype == dtype
            assert effective, "`placement.effective_dtype` is empty"
            if self.source is None or effective not in _ERRORS:
                return
            error = _error(loaded.forward(self.inputs), self.source, self.inputs)
            least, most = _ERRORS[effective]
            assert error <= most, f"it says {effective}, which explains {most:.0e}, and is off by {error:.1e}"
            assert error >= least, (
                f"it says {effective}, which costs {least:.0e} at least, and is off by {error:.1e} only"
            )
        finally:
            loaded.close()

    def test_the_placement_says_where_it_runs(self) -> None:
        """The asked device and what the runtime reports; plain JSON; work on the CPU is counted and named."""
        from pytest_hfaccel.checks.loading import is_same_device

        placement = self.loaded.placement
        assert placement.requested_device == self.cell_of().device.id
        assert placement.actual_devices, "`placement.actual_devices` is empty"
        assert placement.implementation in ("real", "emulated")
        json.dumps(placement.to_json())
        elsewhere = [name for name in placement.actual_devices if not is_same_device(self.cell_of().device, name)]
        assert not elsewhere, (
            f"it runs on {', '.join(elsewhere)}: {placement.details.get('why_elsewhere', 'no reason')}"
        )
        nodes = nodes_of({"details": placement.details})
        if nodes.by_provider and nodes.not_taken:
            assert sum(nodes.not_taken.values()) <= sum(nodes.by_provider.values())

    def test_a_fallback_is_told(self) -> None:
        """What the device lacks is refused, or counted and named in the placement."""
        lacking = self.fallback_source(self.source)
        if lacking is None:
            pytest.skip("override `fallback_source` with a model that has an operator the device lacks")
        try:
            loaded = self.tested.load(self.cell_of(), lacking)
        except HfAccelError:
            return
        try:
            loaded.forward(lacking.sample().forward)
            assert nodes_of({"details": loaded.placement.details}).not_taken, "no operator is named in the placement"
        finally:
            loaded.close()

    def test_times_and_bytes_are_measured(self) -> None:
        """`timings` has seconds by stage, `nbytes` the size of the model."""
        assert set(self.loaded.timings) <= _STAGES
        assert all(seconds >= 0 for seconds in self.loaded.timings.values())
        assert self.loaded.nbytes > 0

    def test_a_wrong_weight_is_noticed_and_restored(self) -> None:
        """`perturbed` changes the outputs inside the block, and only there."""
        before = self.loaded.forward(self.inputs)
        with self.loaded.perturbed(self.wrong_weight) as wrong:
            moved = _largest_difference(wrong.forward(self.inputs), before)
        assert moved > 10 * _ERRORS[self.dtype][1], f"{self.wrong_weight} moved the outputs by {moved:.1e} only"
        after = _largest_difference(self.loaded.forward(self.inputs), before)
        assert after <= _ERRORS[self.dtype][1], f"it was not restored: the outputs are off by {after:.1e}"

    def test_a_weight_that_it_lacks_is_refused(self) -> None:
        """`perturbed` raises `ValueError` for a parameter that the model has not."""
        if self.source is None:
            pytest.skip("it takes no checkpoint, and knows no parameters")
        with (
            pytest.raises(ValueError, match="no_such_weight"),
            self.loaded.perturbed(WeightChange("no_such_weight", 0, 1.0)),
        ):
            pass

    def test_generation_gives_tokens_or_says_that_it_cannot(self, tmp_path: Path) -> None:
        """`NotImplementedError`, or the asked number of new token ids on the CPU, the same with a cache as without."""
        if self.source is None:
            with pytest.raises(NotImplementedError):
                self.loaded.generate({}, max_new_tokens=2, use_cache=False)
            return
        source = self.source_in(tmp_path, "GPT2LMHeadModel", "text-generation")
        loaded, prompts = self.tested.load(replace(self.cell_of(), model=source.spec), source), source.sample().generate
        generated = []
        for use_cache in (False, True):
            with suppress(NotImplementedError):
                generated.append(loaded.generate(prompts, max_new_tokens=3, use_cache=use_cache))
        loaded.close()
        for tokens in generated:
            assert tuple(tokens.shape) == (len(prompts["input_ids"]), 3)
            assert tokens.device.type == "cpu"
            assert tokens.tolist() == generated[0].tolist()

    def test_an_error_of_loading_has_its_stage(self, tmp_path: Path) -> None:
        """What the checkpoint raises comes through as a `LoadError` of the stage `load`."""
        if self.source is None:
            pytest.skip("it takes no checkpoint")

        def refuse(*_: Any, **__: Any) -> Any:
            raise LoadError("planted: it cannot be loaded", stage="load")

        with pytest.raises(LoadError, match="planted") as caught:
            self.tested.load(self.cell_of(), _Changed(self.source, tmp_path, refuse))
        assert caught.value.stage == "load"

    def test_an_error_of_the_model_has_its_stage(self, tmp_path: Path) -> None:
        """A model that cannot run fails where it is converted or compiled, or else when it runs; never silently."""
        if self.source is None:
            pytest.skip("it takes no checkpoint")

        def broken(dtype: str, device: str = "cpu") -> Any:
            model = self.source.torch_model(dtype, device)

            def forward(*_: Any, **__: Any) -> Any:
                raise RuntimeError("planted: it cannot run")

            model.forward = forward
            return model

        changed = _Changed(self.source, tmp_path, broken)
        device = self.cell_of().device
        if not device.traits.exported and not device.compiler:
            loaded = self.tested.load(self.cell_of(), changed)
            with pytest.raises(Exception, match="planted"):
                loaded.forward(self.source.sample().forward)
            loaded.close()
            return
        with pytest.raises(LoadError) as caught:
            self.tested.load(self.cell_of(), changed)
        assert caught.value.stage in ("convert", "compile")

    def test_a_wrong_input_raises_and_the_next_run_is_right(self) -> None:
        """An input that is missing is an error, after which the model still works."""
        if self.source is None:
            pytest.skip("it looks at no inputs")
        before = self.loaded.forward(self.inputs)
        with pytest.raises(Exception):  # noqa: B017, PT011 - whatever the runtime raises
            self.loaded.forward({})
        assert _largest_difference(self.loaded.forward(self.inputs), before) <= _ERRORS[self.dtype][1]

    def test_memory_is_counted(self) -> None:
        """`memory` sees what `occupied` holds, and that it is given back; the peak keeps it."""
        self.loaded.reset_peak_memory()
        before = self.loaded.memory()
        assert before["source"] in ("allocator", "process")
        assert before["peak_source"]
        with self.loaded.occupied(64 * MIB):
            inside = self.loaded.memory()["current_bytes"]
        after = self.loaded.memory()
        assert inside - before["current_bytes"] >= 48 * MIB, "`occupied` does not show in `memory`"
        assert inside - after["current_bytes"] >= 48 * MIB, "what `occupied` held was not given back"
        assert after["peak_bytes"] >= after["current_bytes"]

    def test_memory_is_given_back(self) -> None:
        """Loading, running and closing three times takes no more memory than doing it once."""
        used = []
        for _ in range(3):
            model = self.tested.load(self.cell_of(), self.source)
            model.forward(self.inputs)
            used.append(model.memory()["current_bytes"])
            model.close()
            del model
            gc.collect()
        assert used[-1] - used[0] <= _GROWTH, f"bytes in use by load: {used}"

    def test_close_is_final(self) -> None:
        """A closed model does not run, and may be closed again."""
        model = self.tested.load(self.cell_of(), self.source)
        model.close()
        model.close()
        with pytest.raises(Exception):  # noqa: B017, PT011 - whatever says that it is closed
            model.forward(self.inputs)

    def test_the_end_of_another_process_leaves_it_usable(self) -> None:
        """A process that is killed with a loaded model takes neither the device nor the files that it made with it."""
        if not hasattr(signal, "SIGKILL"):
            pytest.skip("no process can be killed here")
        arguments = type(self), Path(self._folder.name)
        child = multiprocessing.get_context("spawn").Process(target=_load_and_die, args=arguments)
        child.start()
        child.join(300)
        assert child.exitcode == -signal.SIGKILL, f"it ended with {child.exitcode} before it was killed"
        model = self.tested.load(self.cell_of(), self.source)
        assert model.forward(self.inputs)
        model.close()

    def test_a_crash_of_its_process_is_told(self) -> None:
        """After the end of the process in which it computes: `DeviceCrashed` or right outputs; the next load works."""
        model = self.tested.load(self.cell_of(), self.source)
        expected = model.forward(self.inputs)
        try:
            if not self.crash(model):
                pytest.skip("it computes in the process of the tests; the engine contains a crash of that")
            with suppress(DeviceCrashed):
                assert _largest_difference(model.forward(self.inputs), expected) <= _ERRORS[self.dtype][1]
        finally:
            model.close()
        again: LoadedModel = self.tested.load(self.cell_of(), self.source)
        assert again.forward(self.inputs)
        again.close()


class _Changed:
    """A checkpoint with another torch model; what was derived from the original is not taken for its own."""

    fingerprint = "conformance-changed"

    def __init__(self, source: Any, folder: Path, torch_model: Any) -> None:
        self._source = source
        self.cache_dir = folder
        self.torch_model = torch_model

    def __getattr__(self, name: str) -> Any:
        return getattr(self._source, name)


def _load_and_die(tests: type[BackendConformance], folder: Path) -> None:
    backend, source = tests.served_by(), tests.source_in(folder)
    model = backend.load(tests.cell_of(), source)
    model.forward({} if source is None else dict(source.sample().forward))
    os.kill(os.getpid(), signal.SIGKILL)


def _error(outputs: Mapping[str, Any], source: Any, inputs: Mapping[str, Any]) -> float:
    """Return the largest rel-L2 of the outputs against the same weights on the CPU in fp64."""
    import torch

    from pytest_hfaccel.backends.base import flatten_outputs

    wide = {name: tensor.double() if tensor.is_floating_point() else tensor for name, tensor in inputs.items()}
    with torch.no_grad():
        reference = flatten_outputs(source.torch_model("fp64")(**wide))
    assert set(outputs) <= set(reference), f"outputs that the model has not: {sorted(set(outputs) - set(reference))}"
    return max(_relative(leaf, reference[name]) for name, leaf in outputs.items())


def _largest_difference(first: Mapping[str, Any], second: Mapping[str, Any]) -> float:
    assert set(first) == set(second)
    return max(_relative(leaf, second[name]) for name, leaf in first.items())


def _relative(actual: Any, expected: Any) -> float:
    import torch

    actual, expected = (torch.as_tensor(leaf).double().flatten() for leaf in (actual, expected))
    assert actual.shape == expected.shape, f"shapes differ: {tuple(actual.shape)} and {tuple(expected.shape)}"
    return float((actual - expected).norm() / expected.norm().clamp(min=1e-12))
