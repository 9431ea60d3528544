"""Where plots go, and what must be installed to make them."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

from pytest_hfaccel.errors import ConfigError

SUFFIXES = (".png", ".svg")


def require_plotting() -> None:
    """Import what draws.

    Raises:
        ConfigError: matplotlib or seaborn is not installed, or cannot be imported.
    """
    for package in ("matplotlib", "seaborn"):
        try:
            import_module(package)
        except ImportError as error:
            raise ConfigError(
                f"plots: {package} cannot be imported: {error}",
                hint="Install it: pip install 'pytest-hfaccel[predict]'",
            ) from error


def prepare_directory(output_dir: str | Path) -> Path:
    """Make the directory of the plots.

    Raises:
        ConfigError: It cannot be made.
    """
    directory = Path(output_dir)
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{directory}: plots cannot be written there: {error.strerror}") from error
    return directory


def check_suffix(suffix: str) -> str:
    """Return the suffix in lower case.

    Raises:
        ConfigError: It is not one of `SUFFIXES`.
    """
    if suffix.lower() not in SUFFIXES:
        raise ConfigError(f"plots: suffix {suffix!r} is not known. Allowed: {', '.join(SUFFIXES)}.")
    return suffix.lower()
