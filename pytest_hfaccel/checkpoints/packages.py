"""Classes that need a package besides transformers and torch."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from pytest_hfaccel.core.errors import HfAccelError, PackageMissing
from pytest_hfaccel.core.spec import ModelSpec

# How transformers words it; the name to install may be another one.
_NEEDED = re.compile(r"requires the (\S+) library")
_INSTALLED_AS = re.compile(r"^`?pip install ([\w-]+)`?\.?(?=\s|$)", re.MULTILINE)


@contextmanager
def packages_named(spec: ModelSpec) -> Iterator[None]:
    """Tell a failure for want of a package from one of the class.

    Raises:
        PackageMissing: With the package's name.
    """
    try:
        yield
    except PackageMissing:
        raise
    except (ImportError, HfAccelError) as error:
        package = missing_package(error)
        if package is None:
            raise
        raise PackageMissing(
            f"{spec.architecture} needs the package {package}, which is not installed.",
            hint=f"Install it with: pip install {package}.",
        ) from error


def missing_package(error: BaseException) -> str | None:
    """Return the package that an error, or one it came from, says is missing, by the name it is installed by."""
    cause: BaseException | None = error
    while cause is not None:
        found = _NEEDED.search(str(cause)) if isinstance(cause, ImportError) else None
        if found:
            installed_as = _INSTALLED_AS.search(str(cause))
            return installed_as[1] if installed_as else found[1]
        cause = cause.__cause__
    return None
