"""The hub: which files of a repository are used, whether they are in the local cache, and the download."""

from __future__ import annotations

import io
import os
import sys
import time
from pathlib import Path
from typing import Any

from pytest_hfaccel.checkpoints.integrity import missing_weights
from pytest_hfaccel.core.errors import CheckpointError, format_bytes
from pytest_hfaccel.core.spec import ModelSpec
from pytest_hfaccel.core.stages import note_detail
from pytest_hfaccel.upstream.huggingface_hub import hub_errors, reason_of, seconds_to_wait

_CONFIGS = ("*.json", "*.jinja", "*.txt", "*.model", "*.spm", "*.tiktoken")
"""Configs, tokenizers and chat templates."""

_CODE = ("*.py",)

_SAFE_WEIGHTS = ("model.safetensors", "model-*-of-*.safetensors")
_PICKLED_WEIGHTS = ("pytorch_model.bin", "pytorch_model-*-of-*.bin")
"""The names that `from_pretrained` reads; repositories often hold the same weights in other formats besides."""

_FOLDERS = ("*/*",)
"""Folders hold other formats (onnx, coreml, original) and other models."""

_WITHOUT_HUB = "--hf-weights tiny or random needs no hub."

_PATIENCE_S = 120.0
"""How long a download waits in all for a hub that says it is busy, as it does to many jobs that begin at once."""

_ANSWER_SECONDS = 5.0
"""How long the choice of weights waits for the hub; a download waits as long as huggingface_hub does."""


def cached_snapshot(spec: ModelSpec, *, allow_pickle: bool = False) -> Path | None:
    """Return the model's snapshot in the local cache, if it has config and weights."""
    from huggingface_hub import try_to_load_from_cache

    config = try_to_load_from_cache(spec.hub_id, "config.json", revision=spec.revision)
    if not isinstance(config, str):
        return None
    directory = Path(config).parent
    return directory if _has_weights(directory, allow_pickle=allow_pickle) else None


def _has_weights(directory: Path, *, allow_pickle: bool = False) -> bool:
    """Whether a directory holds complete weights: a single file, or an index with all files it names."""
    forms = [("model", ".safetensors"), *([("pytorch_model", ".bin")] if allow_pickle else [])]
    try:
        return any(missing_weights(directory, stem, suffix) is None for stem, suffix in forms)
    except ValueError:
        # An index that is not JSON was cut off while it was written: download it again.
        return False


def hub_refusal(spec: ModelSpec) -> str | None:
    """Return `None` if the hub gives us the model's config, else why not, as a clause.

    The config rather than the model's page, because the page of a gated model is public.
    """
    from huggingface_hub import get_hf_file_metadata, hf_hub_url

    try:
        get_hf_file_metadata(hf_hub_url(spec.hub_id, "config.json", revision=spec.revision), timeout=_ANSWER_SECONDS)
    except Exception as error:
        # Whatever it is, there is an answer to fall back on, and the reason is shown.
        return reason_of(error, spec.revision)
    return None


def download(spec: ModelSpec, *, allow_pickle: bool = False) -> Path:
    """Download what loading the model needs and return the snapshot; what is cached is not downloaded again.

    Shows progress bars where standard error is a terminal; else the progress of the run shows the bytes. `HF_TOKEN`,
    `HF_ENDPOINT`, `HF_HOME` and `HF_HUB_OFFLINE` are respected.

    Raises:
        GatedError: The repository wants an accepted licence and a token.
        ConfigError: The hub has no such repository or revision.
        CheckpointError: The repository has no safetensors, or the files cannot be written.
        HubError: The hub did not answer, answered with an error, or is switched off.
    """
    code = _CODE if spec.requires_remote_code else ()
    with hub_errors(spec.hub_id, revision=spec.revision, hint=_WITHOUT_HUB):
        directory = _fetch(spec, *_CONFIGS, *_SAFE_WEIGHTS, *code)
        if allow_pickle and not _has_weights(directory):
            directory = _fetch(spec, *_PICKLED_WEIGHTS)
    if not _has_weights(directory, allow_pickle=allow_pickle):
        raise CheckpointError(
            f"{spec.hub_id}: the repository has no safetensors weights.",
            hint="HFACCEL_ALLOW_PICKLE=1 also loads pickled weights; unpickling can run code of their author.",
        )
    return directory


def download_code(spec: ModelSpec) -> Path:
    """Download the Python files of a repository, for the user to read; raises what `download` raises."""
    with hub_errors(spec.hub_id, revision=spec.revision):
        return _fetch(spec, *_CODE)


def _fetch(spec: ModelSpec, *patterns: str) -> Path:
    from huggingface_hub import snapshot_download

    before = time.monotonic()
    while True:
        try:
            return Path(
                snapshot_download(
                    spec.hub_id,
                    revision=spec.revision,
                    allow_patterns=list(patterns),
                    ignore_patterns=list(_FOLDERS),
                    tqdm_class=_progress_bar(),
                )
            )
        except Exception as error:
            seconds = seconds_to_wait(error)
            if seconds is None or time.monotonic() - before + seconds > _PATIENCE_S:
                raise
            note_detail(f"the hub is busy: {seconds:.0f} s")
            time.sleep(seconds)
        finally:
            note_detail("")


def _progress_bar() -> Any:
    """Return the hub's class of progress bars; where no terminal would show them, one that notes the bytes instead."""
    from huggingface_hub.utils import are_progress_bars_disabled
    from huggingface_hub.utils.tqdm import tqdm

    if sys.stderr.isatty() and not are_progress_bars_disabled() and "HF_HUB_DISABLE_PROGRESS_BARS" not in os.environ:
        return tqdm

    from tqdm import tqdm as plain

    class Noted(plain):  # type: ignore[misc]  # it is Any to mypy
        """Tells the progress of the run (`core.stages`) what a bar would have shown."""

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **{**kwargs, "gui": False, "file": io.StringIO()})

        def display(self, *_: Any, **__: Any) -> bool:
            if self.unit == "B" and self.n:
                of = f" of {format_bytes(int(self.total))}" if self.total else ""
                note_detail(f"download {format_bytes(int(self.n))}{of}")
            return True

    return Noted
