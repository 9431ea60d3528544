"""The registry's requests to the hub: one config.json, or a list of models. huggingface_hub is imported on first use.

`HF_TOKEN`, `HF_HUB_OFFLINE` and `HF_ENDPOINT` are huggingface_hub's to read, so they hold here as everywhere.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from pytest_hfaccel.core.errors import CheckpointError, ConfigError, GatedError, HubError

CONFIG = "config.json"

_ANSWER_SECONDS = 10.0
"""How long to wait for the hub, as huggingface_hub does before a download."""

_CONNECT_SECONDS = 2.0
"""How long a listing waits for a connection, and then for the first answer."""

_SEARCHED = 1000
"""How many of the hub's models of a task are looked through for those of one class, the most downloaded first."""


@dataclass(frozen=True)
class HubModel:
    """A model the hub lists.

    Attributes:
        hub_id: Its repository.
        downloads: Downloads in the last 30 days.
        parameters: Number of parameters its safetensors files hold, where the hub knows.
        gated: Whether it wants an accepted licence.
    """

    hub_id: str
    downloads: int
    parameters: int | None
    gated: bool


def fetch_config(hub_id: str, revision: str | None = None) -> tuple[Path, str]:
    """Get a repository's config.json: from the local hub cache, else from the hub.

    Returns:
        The file, and where it was found: `local hub cache` or `hub`.

    Raises:
        ConfigError: `hub_id` cannot be a repository, there is none of that name, or it has no config.json.
        GatedError: The repository wants an accepted licence and a token.
        HubError: The hub did not answer, answered with an error, or is switched off.
        CheckpointError: The answer could not be written to the cache.
    """
    with _hub_errors(hub_id):
        from huggingface_hub import hf_hub_download, try_to_load_from_cache

        cached = try_to_load_from_cache(hub_id, CONFIG, revision=revision)
        if isinstance(cached, str):
            return Path(cached), "local hub cache"
        _demand_an_answer(hub_id, revision)
        return Path(hf_hub_download(hub_id, CONFIG, revision=revision)), "hub"


def _demand_an_answer(hub_id: str, revision: str | None) -> None:
    """Ask the hub once. A download would go on asking for 23 s, for each model, where there is no network at all."""
    from huggingface_hub import errors, get_hf_file_metadata, hf_hub_url

    # Switched off, or an error of the hub: the download says it better.
    with suppress(errors.OfflineModeIsEnabled, errors.HfHubHTTPError):
        get_hf_file_metadata(hf_hub_url(hub_id, CONFIG, revision=revision), timeout=_ANSWER_SECONDS)


def _demand_a_connection() -> None:
    """Connect to the hub once. Its listing would go on trying for half a minute where there is no network at all.

    Raises:
        OfflineModeIsEnabled: The hub is switched off.
        LocalEntryNotFoundError: There is no connection within `_CONNECT_SECONDS`.
    """
    from huggingface_hub import constants, errors
    from huggingface_hub.utils import get_session

    if constants.HF_HUB_OFFLINE:
        raise errors.OfflineModeIsEnabled
    # Any answer will do, also one that says "not found": it came from the hub, or from the proxy before it.
    get_session().head(constants.ENDPOINT, timeout=_CONNECT_SECONDS)


def popular_models(architecture: str, tags: list[str], limit: int) -> list[HubModel]:
    """List the most downloaded models of an architecture class.

    The hub cannot filter by class, so this looks through the models that carry `tags`.

    Raises:
        HubError: The hub did not answer, answered with an error, or is switched off.
    """
    with _hub_errors(architecture):
        from huggingface_hub import HfApi

        _demand_a_connection()
        listed = HfApi().list_models(
            filter=tags,
            sort="downloads",
            limit=_SEARCHED,
            expand=["config", "downloads", "gated", "safetensors"],
        )
        fitting = (info for info in listed if architecture in ((info.config or {}).get("architectures") or ()))
        return [
            HubModel(
                hub_id=info.id,
                downloads=info.downloads or 0,
                parameters=info.safetensors.total if info.safetensors else None,
                gated=bool(info.gated),
            )
            for info in islice(fitting, limit)
        ]


@contextmanager
def _hub_errors(what: str) -> Iterator[None]:
    """Turn huggingface_hub's exceptions into ours."""
    from huggingface_hub import errors

    # huggingface_hub's errors derive from those of its HTTP library, which differs between its versions.
    network_error = next(base for base in errors.HfHubHTTPError.__mro__ if base.__name__ == "HTTPError")
    try:
        yield
    except errors.HFValidationError as error:
        raise ConfigError(f"{what!r} is neither a registered model nor a directory, and cannot be a hub id.") from error
    except errors.GatedRepoError as error:
        raise GatedError(
            f"{what}: its repository wants an accepted licence.",
            hint=f"Accept it on the hub's page of {what}, and set HF_TOKEN to a token of that account.",
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise ConfigError(
            f"{what}: the hub has no such model, or it is private.", hint="Set HF_TOKEN if it is yours."
        ) from error
    except errors.RevisionNotFoundError as error:
        raise ConfigError(f"{what}: the hub has the model, but not the revision.") from error
    except errors.RemoteEntryNotFoundError as error:
        raise ConfigError(f"{what}: its repository has no config.json.") from error
    except (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled, network_error) as error:
        raise HubError(f"{what}: {_why_no_answer(error)}", hint=_NO_ANSWER_HINT) from error
    except OSError as error:
        raise CheckpointError(f"{what}: {error}", stage="resolve") from error


_NO_ANSWER_HINT = "A registered model (`hfaccel registry list`) or a local directory needs no hub."


def _why_no_answer(error: BaseException) -> str:
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        uncached = ", and the local hub cache does not hold it" if isinstance(error, FileNotFoundError) else ""
        return f"HF_HUB_OFFLINE switches the hub off{uncached}."
    cause = error.__cause__ or error
    return f"the hub at {constants.ENDPOINT} did not answer ({type(cause).__name__}: {cause})."
