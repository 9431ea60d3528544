"""The hub: is a model in the local cache, does the hub answer, download it."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pytest_hfaccel.errors import CheckpointError, ConfigError, GatedError, HubError
from pytest_hfaccel.spec import ModelSpec

_CONFIGS = ("*.json", "*.jinja", "*.txt", "*.model", "*.spm", "*.tiktoken", "merges.txt", "vocab.*")
_SAFE_WEIGHTS = ("*.safetensors",)
_PICKLED_WEIGHTS = ("*.bin", "*.pt", "*.pth")
_ANSWER_SECONDS = 5.0
"""How long the choice of weights waits for the hub; a download waits as long as huggingface_hub does."""


def cached_snapshot(spec: ModelSpec, *, allow_pickle: bool = False) -> Path | None:
    """Return the model's snapshot in the local cache, if it has config and weights."""
    from huggingface_hub import try_to_load_from_cache

    config = try_to_load_from_cache(spec.hub_id, "config.json", revision=spec.revision)
    if not isinstance(config, str):
        return None
    directory = Path(config).parent
    return directory if has_weights(directory, allow_pickle=allow_pickle) else None


def has_weights(directory: Path, *, allow_pickle: bool = False) -> bool:
    """Whether a directory holds complete weights: a single file, or an index with all files it names."""
    import json

    suffixes = [".safetensors", *([".bin"] if allow_pickle else [])]
    for suffix in suffixes:
        stem = "model" if suffix == ".safetensors" else "pytorch_model"
        if (directory / f"{stem}{suffix}").is_file():
            return True
        index = directory / f"{stem}{suffix}.index.json"
        if index.is_file():
            files = set(json.loads(index.read_text(encoding="utf-8")).get("weight_map", {}).values())
            return bool(files) and all((directory / name).is_file() for name in files)
    return False


def hub_answers(spec: ModelSpec) -> str | None:
    """Return `None` if the hub has the model for us, else why not, as half a sentence."""
    from huggingface_hub import HfApi, constants
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, OfflineModeIsEnabled, RepositoryNotFoundError

    if constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set"
    try:
        HfApi().model_info(spec.hub_id, revision=spec.revision, timeout=_ANSWER_SECONDS)
    except GatedRepoError:
        return "the hub wants an accepted licence and a token for it"
    except RepositoryNotFoundError:
        return "the hub does not know it"
    except OfflineModeIsEnabled:
        return "the hub is switched off"
    except HfHubHTTPError as error:
        return f"the hub answered with an error ({_status(error)})"
    except (OSError, RuntimeError, Exception) as error:
        return f"the hub did not answer ({type(error).__name__})"
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
    from huggingface_hub import snapshot_download

    weights = _SAFE_WEIGHTS + (_PICKLED_WEIGHTS if allow_pickle else ())
    with _translated(spec), _progress_on_a_terminal():
        directory = Path(
            snapshot_download(spec.hub_id, revision=spec.revision, allow_patterns=[*_CONFIGS, *weights, *_code(spec)])
        )
    if not has_weights(directory, allow_pickle=allow_pickle):
        raise CheckpointError(
            f"{spec.hub_id}: the repository has no safetensors weights.",
            hint="HFACCEL_ALLOW_PICKLE=1 also loads pickled weights; unpickling runs code of whoever wrote them.",
        )
    return directory


def _code(spec: ModelSpec) -> tuple[str, ...]:
    return ("*.py",) if spec.requires_remote_code else ()


@contextmanager
def _translated(spec: ModelSpec) -> Iterator[None]:
    """Turn huggingface_hub's errors into ours; none of the texts carries the token."""
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        yield
    except GatedRepoError as error:
        raise GatedError(
            f"{spec.hub_id}: the hub wants an accepted licence and a token.",
            hint=f"Accept the licence on the model's page of the hub, then set HF_TOKEN ({_status(error)}).",
        ) from None
    except RevisionNotFoundError:
        raise ConfigError(f"{spec.hub_id}: the hub has no revision {spec.revision!r}.") from None
    except RepositoryNotFoundError:
        raise ConfigError(
            f"{spec.hub_id}: the hub has no such model, or not for you.", hint="A private model needs HF_TOKEN."
        ) from None
    except (LocalEntryNotFoundError, OfflineModeIsEnabled) as error:
        raise HubError(
            f"{spec.hub_id} is not in the local cache, and the hub did not answer: {_why(error)}",
            hint="--hf-weights tiny needs no hub.",
        ) from None
    except HfHubHTTPError as error:
        raise HubError(f"{spec.hub_id}: the hub answered with an error ({_status(error)}).") from None
    except OSError as error:
        if error.errno is None:
            raise HubError(f"{spec.hub_id}: the hub did not answer: {_why(error)}") from None
        raise CheckpointError(
            f"{spec.hub_id}: the download cannot be written: {error.strerror}: {error.filename or 'the cache'}",
            hint="Free space, or set HF_HOME to a directory with more.",
        ) from None


def _status(error: Exception) -> str:
    response = getattr(error, "response", None)
    return f"HTTP {response.status_code}" if response is not None else type(error).__name__


def _why(error: BaseException) -> str:
    """The root cause in a few words: its type only, because messages may carry URLs with credentials."""
    while error.__cause__ is not None:
        error = error.__cause__
    return type(error).__name__


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
