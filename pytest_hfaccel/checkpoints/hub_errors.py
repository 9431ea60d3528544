"""huggingface_hub's errors as ours.

No text of ours carries what the hub's client says literally: a message of its may hold a signed URL.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from pytest_hfaccel.core.errors import CheckpointError, ConfigError, GatedError, HfAccelError, HubError
from pytest_hfaccel.core.spec import ModelSpec


@contextmanager
def translated(spec: ModelSpec) -> Iterator[None]:
    """Turn what goes wrong during a download into `GatedError`, `ConfigError`, `CheckpointError` or `HubError`."""
    try:
        yield
    except HfAccelError:
        raise
    except Exception as error:
        # `from None`: the chained exceptions would be printed with their URLs.
        raise _ours(spec, error) from None


def short_reason(error: BaseException) -> str:
    """Say in half a sentence why the hub does not give a model."""
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        OfflineModeIsEnabled,
        RemoteEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    reasons = (
        (GatedRepoError, "the hub wants an accepted licence and a token for it"),
        (RevisionNotFoundError, "the hub does not have this revision of it"),
        (RepositoryNotFoundError, "the hub does not know it, or not for this user"),
        (RemoteEntryNotFoundError, "its repository has no config.json"),
        (OfflineModeIsEnabled, "HF_HUB_OFFLINE is set"),
        (HfHubHTTPError, f"the hub answered with an error ({_status(error)})"),
    )
    root = _root(error)
    found = next((text for kind, text in reasons if isinstance(error, kind)), None)
    return found or f"the hub did not answer ({_status(root)})"


def _ours(spec: ModelSpec, error: Exception) -> HfAccelError:
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    if isinstance(error, GatedRepoError):
        return GatedError(
            f"{spec.hub_id}: the hub wants an accepted licence and a token ({_status(error)}).",
            hint="Accept the licence on the model's page on the hub, then set HF_TOKEN.",
        )
    if isinstance(error, RevisionNotFoundError):
        return ConfigError(
            f"{spec.hub_id}: the hub has no revision {spec.revision or 'main'!r}.", hint=f"See {spec.source}."
        )
    if isinstance(error, RepositoryNotFoundError):
        return ConfigError(
            f"{spec.hub_id}: the hub has no such model, or not for this user ({_status(error)}).",
            hint="Mind the spelling; a private model needs HF_TOKEN.",
        )
    if isinstance(error, OSError) and error.errno is not None:
        return CheckpointError(
            f"{spec.hub_id}: the download cannot be written: {error.strerror}: {error.filename or 'the cache'}.",
            hint="Free space or change the permissions, or set HF_HOME to another directory.",
        )
    return HubError(
        f"{spec.hub_id} is not in the local cache, and {short_reason(_root(error))}.",
        hint="--hf-weights tiny or random needs no hub.",
    )


def _status(error: BaseException) -> str:
    response = getattr(error, "response", None)
    return f"HTTP {response.status_code}" if response is not None else type(error).__name__


def _root(error: BaseException) -> BaseException:
    """The error everything began with; what the hub answered, where it answered."""
    while getattr(error, "response", None) is None and (before := error.__cause__ or error.__context__) is not None:
        error = before
    return error
