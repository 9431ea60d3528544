"""The registry's requests to the hub: one config.json, or a list of models. huggingface_hub is imported on first use.

`HF_TOKEN`, `HF_HUB_OFFLINE` and `HF_ENDPOINT` are huggingface_hub's to read, so they hold here as everywhere.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from pytest_hfaccel.upstream.huggingface_hub import hub_errors

CONFIG = "config.json"

_WITHOUT_HUB = "A registered model (`hfaccel registry list`) or a local directory needs no hub."
_OTHER_HUB = "HTTPS_PROXY names a proxy on the way to it, HF_ENDPOINT another hub."

_ANSWER_SECONDS = 10.0
"""How long to wait for the hub, as huggingface_hub does before a download."""

_CONNECT_SECONDS = 2.0
"""How long a listing waits for a connection, and then for the first answer."""

_SEARCHED = 1000
"""How many of the hub's models of a task are looked through for those of one class, the most downloaded first."""


class HubModel(NamedTuple):
    """A model the hub lists.

    Attributes:
        hub_id: Its repository.
        architectures: The classes that its config.json names.
        parameters: Number of parameters in its safetensors files, where the hub knows it.
        gated: Whether it wants an accepted licence.
        own_code: Whether its repository carries code of its own.
    """

    hub_id: str
    architectures: tuple[str, ...]
    parameters: int | None
    gated: bool
    own_code: bool


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
    with hub_errors(hub_id, revision=revision, hint=_WITHOUT_HUB):
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


def reach_hub() -> None:
    """Connect to the hub once.

    Raises:
        HubError: It did not answer within seconds, or is switched off.
    """
    with hub_errors("hub", hint=_OTHER_HUB):
        _demand_a_connection()


def _demand_a_connection() -> None:
    """Connect to the hub once. Its listing would go on trying for half a minute where there is no network at all."""
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
    with hub_errors(architecture, hint=_OTHER_HUB):
        _demand_a_connection()
        return list(islice((model for model in list_models(tags) if architecture in model.architectures), limit))


def list_models(tags: list[str], most: int = _SEARCHED) -> Iterator[HubModel]:
    """List the models that carry some tags, the most downloaded first; pages are asked for as they are needed.

    The hub's client waits as long as the hub says where it answers "too many requests". Raises what it raises.
    """
    from huggingface_hub import HfApi

    wanted = ["config", "gated", "safetensors", "tags"]
    for info in HfApi().list_models(filter=tags, sort="downloads", limit=most, expand=wanted):
        config = info.config or {}
        yield HubModel(
            info.id,
            tuple(config.get("architectures") or ()),
            info.safetensors.total if info.safetensors else None,
            bool(info.gated),
            "custom_code" in (info.tags or ()) or "auto_map" in config,
        )
