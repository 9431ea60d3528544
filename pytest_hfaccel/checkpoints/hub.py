"""The hub: does it answer for a model, and the download."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pytest_hfaccel.checkpoints.hub_errors import short_reason, translated
from pytest_hfaccel.checkpoints.snapshot import CODE, CONFIGS, FOLDERS, PICKLED_WEIGHTS, SAFE_WEIGHTS, has_weights
from pytest_hfaccel.core.errors import CheckpointError
from pytest_hfaccel.core.spec import ModelSpec

_ANSWER_SECONDS = 5.0
"""How long the choice of weights waits for the hub; a download waits as long as huggingface_hub does."""


def hub_refusal(spec: ModelSpec) -> str | None:
    """Return `None` if the hub gives us the model's config, else why not, as half a sentence.

    The config rather than the model's page, because the page of a gated model is public.
    """
    from huggingface_hub import constants, get_hf_file_metadata, hf_hub_url

    if constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set"
    try:
        get_hf_file_metadata(hf_hub_url(spec.hub_id, "config.json", revision=spec.revision), timeout=_ANSWER_SECONDS)
    except Exception as error:
        # Whatever it is, there is an answer to fall back on, and the reason is shown.
        return short_reason(error)
    return None


def download(spec: ModelSpec, *, allow_pickle: bool = False) -> Path:
    """Download what loading the model needs and return the snapshot; what is cached is not downloaded again.

    Shows a progress bar on a terminal. `HF_TOKEN`, `HF_ENDPOINT`, `HF_HOME` and `HF_HUB_OFFLINE` are respected.

    Raises:
        GatedError: The repository wants an accepted licence and a token.
        ConfigError: The hub has no such repository or revision.
        CheckpointError: The repository has no safetensors, or the files cannot be written.
        HubError: The hub did not answer, answered with an error, or is switched off.
    """
    code = CODE if spec.requires_remote_code else ()
    with translated(spec), _progress_on_a_terminal():
        directory = _fetch(spec, *CONFIGS, *SAFE_WEIGHTS, *code)
        if allow_pickle and not has_weights(directory):
            directory = _fetch(spec, *PICKLED_WEIGHTS)
    if not has_weights(directory, allow_pickle=allow_pickle):
        raise CheckpointError(
            f"{spec.hub_id}: the repository has no safetensors weights.",
            hint="HFACCEL_ALLOW_PICKLE=1 also loads pickled weights; unpickling runs code of whoever wrote them.",
        )
    return directory


def download_code(spec: ModelSpec) -> Path:
    """Download the Python files of a repository, for the user to read; raises what `download` raises."""
    with translated(spec):
        return _fetch(spec, *CODE)


def _fetch(spec: ModelSpec, *patterns: str) -> Path:
    from huggingface_hub import snapshot_download

    return Path(
        snapshot_download(
            spec.hub_id, revision=spec.revision, allow_patterns=list(patterns), ignore_patterns=list(FOLDERS)
        )
    )


@contextmanager
def _progress_on_a_terminal() -> Iterator[None]:
    from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    if sys.stderr.isatty() or are_progress_bars_disabled() or "HF_HUB_DISABLE_PROGRESS_BARS" in os.environ:
        yield
        return
    disable_progress_bars()
    try:
        yield
    finally:
        enable_progress_bars()
