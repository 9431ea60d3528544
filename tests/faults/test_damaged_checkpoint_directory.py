"""A checkpoint directory with something wrong in it: a status, a stage and a reason, and no other model suffers."""

from __future__ import annotations

import json
import os
import re
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pytest_hfaccel.checkpoints import CheckpointStore
from pytest_hfaccel.core.results import NOT_REACHED, Stage, Status
from pytest_hfaccel.core.spec import ModelSpec, Weights, WeightsChoice
from tests.harness import HfRun, Project

pytestmark = pytest.mark.slow

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
ONE = "bert.encoder.layer.0.output.dense.weight"
USAGE_ERROR = 4
LARGEST_BYTES = 12 * 2**30
"""Of virtual memory, which torch and its friends take much of without using it."""


def configure(**changes: Any) -> Callable[[Path], None]:
    def change(directory: Path) -> None:
        path = directory / "config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))

    return change


def write(name: str, content: bytes) -> Callable[[Path], int]:
    return lambda directory: (directory / name).write_bytes(content)


def tensors(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    def changed(directory: Path) -> None:
        from safetensors.torch import load_file, save_file

        held = load_file(directory / WEIGHTS)
        change(held)
        save_file(held, directory / WEIGHTS, {"format": "pt"})

    return changed


def header(change: Callable[[dict[str, Any]], None], length: int | None = None) -> Callable[[Path], None]:
    """Change what the header of the weights' file says, and perhaps how long it says that it is."""

    def changed(directory: Path) -> None:
        content = (directory / WEIGHTS).read_bytes()
        size = struct.unpack("<Q", content[:8])[0]
        said = json.loads(content[8 : 8 + size])
        change(said)
        new = json.dumps(said).encode()
        (directory / WEIGHTS).write_bytes(struct.pack("<Q", length or len(new)) + new + content[8 + size :])

    return changed


def shards(second: str, *, is_there: bool, doubled: bool = False) -> Callable[[Path], None]:
    """Split the weights over two files and an index."""

    def split(directory: Path) -> None:
        from safetensors.torch import load_file, save_file

        held = load_file(directory / WEIGHTS)
        (directory / WEIGHTS).unlink()
        save_file(held if doubled else {n: t for n, t in held.items() if n != ONE}, directory / "model-1.safetensors")
        if is_there:
            save_file({ONE: held[ONE]}, directory / second)
        files = {name: second if name == ONE else "model-1.safetensors" for name in held}
        (directory / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": files}))

    return split


def link(name: str, target: str) -> Callable[[Path], None]:
    def linked(directory: Path) -> None:
        (directory / name).unlink(missing_ok=True)
        (directory / name).symlink_to(target)

    return linked


def pipe(name: str) -> Callable[[Path], None]:
    def piped(directory: Path) -> None:
        (directory / name).unlink(missing_ok=True)
        os.mkfifo(directory / name)

    return piped


def name_twice(directory: Path) -> None:
    content = (directory / WEIGHTS).read_bytes()
    size = struct.unpack("<Q", content[:8])[0]
    said = content[8 : 8 + size].rstrip()
    entry = json.dumps({ONE: json.loads(said)[ONE]})[1:-1].encode()
    new = said[:-1] + b", " + entry + b"}"
    (directory / WEIGHTS).write_bytes(struct.pack("<Q", len(new)) + new + content[8 + size :])


def other_tokenizer(directory: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = [f"[unused{index}]" for index in range(5000)]
    words += ["[UNK]", "[PAD]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghijklmnopqrstuvwxyz.,'"]
    tokenizer = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, unk_token=words[5000]))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(directory / "tokenizer.json"))


def cut(part: float) -> Callable[[Path], None]:
    def shortened(directory: Path) -> None:
        content = (directory / WEIGHTS).read_bytes()
        (directory / WEIGHTS).write_bytes(content[: int(part * len(content))])

    return shortened


def to_integers(held: dict[str, Any]) -> None:
    held[ONE] = (held[ONE] * 100).int()


def misshape(held: dict[str, Any]) -> None:
    held[ONE] = held[ONE][:, :-1].contiguous()


def lie_about_offsets(said: dict[str, Any]) -> None:
    start, end = said[ONE]["data_offsets"]
    said[ONE]["data_offsets"] = [start + 10**12, end + 10**12]


def lie_about_shape(said: dict[str, Any]) -> None:
    said[ONE]["shape"][0] *= 10**6


# What is wrong with the directory, and what is said of it when the model is loaded.
DAMAGED: dict[str, tuple[Callable[[Path], Any], str]] = {
    "weights-of-zero-bytes": (write(WEIGHTS, b""), "not a sound safetensors file (0 bytes)"),
    "weights-cut-in-the-header": (cut(0.001), "not a sound safetensors file"),
    "weights-cut-in-the-data": (cut(0.5), "not a sound safetensors file"),
    "header-that-lies-about-its-length": (header(lambda _: None, 10**17), "not a sound safetensors file"),
    "header-that-lies-about-offsets": (header(lie_about_offsets), "not a sound safetensors file"),
    "header-that-lies-about-a-shape": (header(lie_about_shape), "not a sound safetensors file"),
    "tensor-named-twice-in-a-header": (name_twice, f"it names {ONE} twice"),
    "tensor-in-two-shards": (shards("model-2.safetensors", is_there=True, doubled=True), f"{ONE} is in model-1.safe"),
    "shard-missing": (shards("model-2.safetensors", is_there=False), "model-2.safetensors is missing"),
    "shard-outside": (shards("../elsewhere.safetensors", is_there=True), "'../elsewhere.safetensors', which is no"),
    "index-that-is-a-list": (lambda d: (d / WEIGHTS).rename(d / "x") and (d / INDEX).write_text("[]"), "no weight_map"),
    "link-to-nowhere": (link(WEIGHTS, "../gone/model.safetensors"), "is a link to ../gone/model.safetensors, which is"),
    "link-to-a-device": (link(WEIGHTS, "/dev/zero"), f"{WEIGHTS} is neither a file nor a directory"),
    "tokenizer-that-is-a-pipe": (pipe("tokenizer.json"), "tokenizer.json is neither a file nor a directory"),
    "tokenizer-of-another-model": (other_tokenizer, "rows: it is the tokenizer of another model"),
    "integers-for-weights": (
        tensors(to_integers),
        f"integers in the files, floating-point numbers by the class: {ONE} (I32)",
    ),
    "weight-of-another-shape": (tensors(misshape), f"{ONE} is (64, 127) in the files, (64, 128) by"),
    "hidden-size-of-a-billion": (configure(hidden_size=10**9, num_attention_heads=1), "hidden_size is 1000000000"),
    "hidden-size-of-a-million": (configure(hidden_size=2**20, num_attention_heads=1), "it describes "),
    "a-billion-layers": (configure(num_hidden_layers=10**9), "num_hidden_layers is 1000000000"),
    "type-of-another-model": (configure(model_type="gpt2"), "model_type is 'gpt2', and BertForMaskedLM takes 'bert'"),
    "type-unknown": (configure(model_type="bert9"), "model_type 'bert9' is unknown to transformers"),
}

# What loads, and fails by name at the class level.
INCOMPLETE: dict[str, tuple[Callable[[Path], Any], str]] = {
    "tensor-missing": (tensors(lambda held: held.pop(ONE)), f"missing keys: {ONE}"),
    "tensor-too-many": (
        tensors(lambda held: held.update({ONE.replace("layer.0", "layer.99"): held[ONE].clone()})),
        f"unexpected keys: {ONE.replace('layer.0', 'layer.99')}",
    ),
}

# What is no fault.
SOUND: dict[str, Callable[[Path], Any]] = {
    "sound": lambda _: None,
    "sharded": shards("model-2.safetensors", is_there=True),
    "link-to-the-weights": lambda d: link(WEIGHTS, str((d / WEIGHTS).rename(d.parent / "weights-elsewhere")))(d),
    "more-heads-than-the-class-has": tensors(
        lambda held: held.update({"bert.pooler.dense.bias": held["bert.embeddings.LayerNorm.bias"].clone()})
    ),
}

UNRESOLVABLE: dict[str, tuple[Callable[[Path], Any], str]] = {
    "empty": (lambda d: list(map(Path.unlink, d.iterdir())), "has no config.json"),
    "no-config": (lambda d: (d / "config.json").unlink(), "has no config.json"),
    "config-cut": (write("config.json", b'{"hidden_size": '), "is not JSON"),
    "config-that-is-a-list": (write("config.json", b"[1]"), "is not a JSON object"),
    "config-that-is-a-device": (link("config.json", "/dev/zero"), "config.json is not a file"),
    "config-of-no-class": (configure(architectures=[]), "names no architecture class"),
}


@pytest.fixture(scope="module")
def built(shared_cache: Path) -> Path:
    spec = ModelSpec(name="bert", architecture="BertForMaskedLM", task="fill-mask")
    return CheckpointStore(shared_cache / "hfaccel").prepare(spec, WeightsChoice(Weights.TINY, "for a test")).directory


@pytest.fixture(scope="module")
def run(built: Path, shared_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> HfRun:
    """One run over all directories whose class is known before their weights are looked at."""
    project = Project(tmp_path_factory.mktemp("project"), shared_cache)
    changes = {name: change for name, (change, _) in {**DAMAGED, **INCOMPLETE}.items()}
    models = []
    for name, change in {**SOUND, **changes}.items():
        shutil.copytree(built, project.directory / name)
        change(project.directory / name)
        models += ["--hf-model", f"./{name}"]
    return project.run("--hf-device", "cpu", "-k", "not task_sense", *models, largest_memory=LARGEST_BYTES)


@pytest.mark.parametrize("name", DAMAGED)
def test_it_fails_by_name_before_anything_runs(run: HfRun, name: str) -> None:
    first, *others = run.results[f"{name}-cpu-fp32"].checks
    assert (first.status, first.stage) == (Status.ERROR, Stage.LOAD), run.output
    reason = first.reason or ""
    assert DAMAGED[name][1] in reason
    assert name in reason, "the place"
    assert not re.search(r'Traceback|File ".*", line', reason)
    assert all((check.reason or "").startswith(NOT_REACHED) for check in others)


@pytest.mark.parametrize("name", INCOMPLETE)
def test_tensors_that_are_missing_or_too_many_are_named(run: HfRun, name: str) -> None:
    statuses = {check.name: check for check in run.results[name].checks}
    assert statuses["from_pretrained"].status == Status.FAILED, run.output
    assert INCOMPLETE[name][1] in (statuses["from_pretrained"].reason or "")
    # What it lacks was drawn, for the reference alike: no device is blamed.
    assert {check.status for check in run.results[f"{name}-cpu-fp32"].checks} == {Status.PASSED}


@pytest.mark.parametrize("name", SOUND)
def test_what_is_no_fault_passes_among_them(run: HfRun, name: str) -> None:
    checks = [*run.results[name].checks, *run.results[f"{name}-cpu-fp32"].checks]
    assert {check.status for check in checks} == {Status.PASSED}, run.output


def test_heads_that_the_class_leaves_alone_are_recorded(run: HfRun) -> None:
    checks = {check.name: check for check in run.results["more-heads-than-the-class-has"].checks}
    assert checks["from_pretrained"].measures["other_heads"] == ["bert.pooler.dense.bias"]


@pytest.mark.parametrize("name", UNRESOLVABLE)
def test_without_a_config_it_is_a_usage_error(project: Project, built: Path, name: str) -> None:
    change, said = UNRESOLVABLE[name]
    shutil.copytree(built, project.directory / name)
    change(project.directory / name)
    done = project.run("--hf-model", f"./{name}", timeout=60)
    assert done.code == USAGE_ERROR, done.output
    assert said in done.output
    assert name in done.output
    assert "Traceback" not in done.output
