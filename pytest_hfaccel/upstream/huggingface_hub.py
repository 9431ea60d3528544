"""huggingface_hub, seen in 2.4.0: what its exceptions mean, as errors of ours.

No message of ours carries what the hub's client says literally: that may hold a signed URL.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from pytest_hfaccel.core.errors import CheckpointError, ConfigError, GatedError, HfAccelError, HubError

_LICENCE = "Accept the licence on the model's page on the hub, then set HF_TOKEN to a token of that account."
_SPELLING = "Mind the spelling; a private model needs HF_TOKEN."


@contextmanager
def hub_errors(what: str, *, revision: str | None = None, hint: str = "") -> Iterator[None]:
    """Raise our errors for what goes wrong with the hub inside.

    Args:
        what: What was asked for, as messages name it: a repository.
        revision: Its revision.
        hint: What to do without the hub.

    Raises:
        GatedError: The repository wants an accepted licence and a token.
        ConfigError: The name cannot be a repository's, or the hub has no such repository, revision or file.
        CheckpointError: The files cannot be written.
        HubError: The hub did not answer, answered with an error, or is switched off.
    """
    from huggingface_hub import errors

    try:
        yield
    except HfAccelError:
        raise
    # `from None`: the chained exceptions would be printed with their URLs.
    except errors.HFValidationError:
        text = f"{what!r} is neither a registered model nor a directory, and cannot be a hub id."
        raise ConfigError(text) from None
    except Exception as error:
        text = f"{what}: {reason_of(error, revision)}"
        if isinstance(error, errors.GatedRepoError):
            raise GatedError(f"{text}.", hint=_LICENCE) from None
        if isinstance(error, errors.RepositoryNotFoundError):
            raise ConfigError(f"{text}.", hint=_SPELLING) from None
        if isinstance(error, (errors.RevisionNotFoundError, errors.RemoteEntryNotFoundError)):
            raise ConfigError(f"{text}.") from None
        if isinstance(error, OSError) and error.errno is not None:
            raise CheckpointError(
                f"{what}: what was downloaded cannot be written: {error.strerror}: {error.filename or 'the cache'}.",
                hint="Free space or change the permissions, or set HF_HOME to another directory.",
            ) from None
        uncached = ", and the local hub cache does not hold it" if isinstance(error, FileNotFoundError) else ""
        raise HubError(f"{text}{uncached}.", hint=hint) from None


def reason_of(error: BaseException, revision: str | None = None) -> str:
    """Say as a clause why the hub did not give what was asked for."""
    from huggingface_hub import constants, errors

    if constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE switches the hub off"
    root = _root_of(error)
    response = getattr(root, "response", None)
    status = f"HTTP {response.status_code}" if response is not None else type(root).__name__
    reasons = (
        (errors.GatedRepoError, f"the hub wants an accepted licence and a token ({status})"),
        (errors.RevisionNotFoundError, f"the hub has the model, but no revision {revision or 'main'!r} of it"),
        (errors.RepositoryNotFoundError, f"the hub has no such model, or not for this user ({status})"),
        (errors.RemoteEntryNotFoundError, "its repository has no config.json"),
        (errors.HfHubHTTPError, f"the hub at {constants.ENDPOINT} answered with an error ({status})"),
    )
    known = next((text for kind, text in reasons if isinstance(error, kind) or isinstance(root, kind)), None)
    return known or f"the hub at {constants.ENDPOINT} did not answer ({status})"


def seconds_to_wait(error: BaseException) -> float | None:
    """Return how long a hub that is busy (HTTP 429) asks to be left alone, 1 where it does not say; else `None`.

    The client waits by itself when it fetches files, not when it asks what a repository contains.
    """
    response = getattr(_root_of(error), "response", None)
    if response is None or response.status_code != 429:
        return None
    try:
        return max(0.0, float(response.headers.get("Retry-After", 1)))
    except ValueError:  # a date
        return 1.0


def _root_of(error: BaseException) -> BaseException:
    """Return the error everything began with; the one that has the hub's answer, where it answered."""
    while getattr(error, "response", None) is None and (before := error.__cause__ or error.__context__) is not None:
        error = before
    return error
