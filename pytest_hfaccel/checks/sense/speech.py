"""Claims about models that transcribe speech."""

from __future__ import annotations

import hashlib
import wave
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_hfaccel.checks.base import CheckContext
from pytest_hfaccel.checks.claims import Claim
from pytest_hfaccel.core.errors import CheckpointError, PackageMissing

if TYPE_CHECKING:
    import numpy as np

_PACKAGE = "moonshine_voice"
_INSTALL = "pip install --no-deps moonshine-voice==0.1.5"
_RECORDING = "assets/two_cities.wav"
_SHA256 = "f3348494d77cb74a02862f5e685ed09faf3e75832c5cc5c80703282c2cd8b52e"
_SECONDS = 4
"""How much of A Tale of Two Cities, read aloud, is transcribed; an exported model encodes it anew for each token."""

# What is said in these seconds; the smallest of models get a word wrong now and then.
_SAID = "it was the best of times it was the worst of times"
_TELLING = ("best", "times", "worst")


def transcribes_speech(context: CheckContext) -> Iterator[Claim]:
    """The transcript of English that was spoken by a person has the telling words, in their order.

    Raises:
        PackageMissing: The package that carries the recording is not installed.
        CheckpointError: The recording is another one.
    """
    rate = context.pipe.feature_extractor.sampling_rate
    transcript = str(context.pipe({"raw": _speech(rate), "sampling_rate": rate})["text"])
    heard = "".join(letter if letter.isalpha() else " " for letter in transcript.lower()).split()
    places = [heard.index(word) if word in heard else -1 for word in _TELLING]
    yield Claim(
        f"hears {', '.join(_TELLING)} in {_SAID!r}",
        -1 not in places and places == sorted(places),
        {"transcript": transcript},
    )


def _speech(rate: int) -> np.ndarray[Any, Any]:
    """Return the recording in fp32 between -1 and 1, at a rate that divides its own."""
    import numpy as np

    found = find_spec(_PACKAGE)
    if found is None or not found.submodule_search_locations:
        raise PackageMissing("recorded speech comes with a package that is not installed.", hint=_INSTALL)
    path = Path(found.submodule_search_locations[0]) / _RECORDING
    if (given := hashlib.sha256(path.read_bytes()).hexdigest()) != _SHA256:
        raise CheckpointError(f"{path}: its SHA-256 is {given}, expected is {_SHA256}.", hint=_INSTALL)
    with wave.open(str(path)) as file:
        recorded = file.getframerate()
        samples = np.frombuffer(file.readframes(_SECONDS * recorded), np.int16).astype(np.float32) / 2**15
    # The mean of neighbouring samples is a filter and a change of rate in one, where the rates divide.
    step = recorded // rate
    mean: np.ndarray[Any, Any] = samples[: len(samples) // step * step].reshape(-1, step).mean(1)
    return mean
