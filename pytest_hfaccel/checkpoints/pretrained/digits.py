"""The digits that come with scikit-learn, and small vision models that are trained on them here, in seconds.

1,797 scans of 8 x 8 pixels in 17 shades of grey (UCI, Optical Recognition of Handwritten Digits). No package carries
trained vision models this small; what they have and seeded weights lack: margins between their answers, and statistics
of their normalisations.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pytest_hfaccel.core.errors import CheckpointError, PackageMissing
from pytest_hfaccel.core.spec import ModelSpec

if TYPE_CHECKING:
    from PIL.Image import Image

NAMES = tuple("0123456789")

LEAST_ACCURACY = 0.95
"""What a trained model must reach on the held-out pictures."""

_HELD_OUT = 5  # every fifth picture
_WHITE = 16

_SEED = 0
_EPOCHS = 40
_BATCH = 64
_PEAK_RATE = 3e-3
_WEIGHT_DECAY = 0.1
_SHIFT = 2
"""Pixels by which a picture is moved at most, so that few scans teach more."""
_SIDE = 32
"""Pixels per side where a config states none."""


def lacks_scikit_learn() -> bool:
    """Whether scikit-learn, which has the digits, is not installed; imports nothing."""
    from importlib.util import find_spec

    return find_spec("sklearn") is None


def training_digits() -> tuple[list[Image], list[int]]:
    """Return the pictures to train on, in RGB, and which digits they show; `PackageMissing` without scikit-learn."""
    return _digits(held_out=False)


def held_out_digits() -> tuple[list[Image], list[int]]:
    """Return the pictures that no model is trained on, like `training_digits`."""
    return _digits(held_out=True)


def _digits(*, held_out: bool) -> tuple[list[Image], list[int]]:
    from PIL import Image

    if lacks_scikit_learn():
        raise PackageMissing("the digits are scikit-learn's, which is not installed.", hint="pip install scikit-learn")
    from sklearn.datasets import load_digits

    data = load_digits()
    chosen = [number for number in range(len(data.target)) if (number % _HELD_OUT == 0) == held_out]
    grey = (data.images * (255 / _WHITE)).round().astype("uint8")
    return [Image.fromarray(grey[number]).convert("RGB") for number in chosen], [int(data.target[i]) for i in chosen]


def train_digits(spec: ModelSpec, directory: Path) -> None:
    """Train an image classifier on the digits and save it with its image processor into an empty directory.

    The same machine gives the same weights. Another one may round otherwise, so that the weights differ; that every
    kept model recognises `LEAST_ACCURACY` of the held-out digits does not.

    Raises:
        PackageMissing: scikit-learn is not installed.
        CheckpointError: The model did not learn enough.
    """
    import torch
    from torch.nn.functional import cross_entropy
    from transformers import ViTImageProcessor

    from pytest_hfaccel.checkpoints.configs import model_class, real_config

    config = real_config(spec)
    side = getattr(config, "image_size", None) or _SIDE
    processor = ViTImageProcessor(size={"height": side, "width": side})
    pictures, answers = training_digits()
    images, labels = processor(images=pictures, return_tensors="pt")["pixel_values"], torch.tensor(answers)
    steps = _EPOCHS * -(-len(labels) // _BATCH)
    threads = torch.get_num_threads()
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.manual_seed(_SEED)
        torch.set_num_threads(1)  # sums in another order per number of threads would give other weights
        try:
            model = model_class(spec)(config).train()
            optimizer = torch.optim.AdamW(model.parameters(), weight_decay=_WEIGHT_DECAY)
            schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, _PEAK_RATE, total_steps=steps)
            for _ in range(_EPOCHS):
                for rows in torch.randperm(len(labels)).split(_BATCH):
                    moves = torch.randint(-_SHIFT, _SHIFT + 1, (len(rows), 2)).tolist()
                    moved = [images[row].roll(move, dims=(1, 2)) for row, move in zip(rows, moves, strict=True)]
                    loss = cross_entropy(model(pixel_values=torch.stack(moved)).logits, labels[rows])
                    optimizer.zero_grad()
                    loss.backward()
                    optimizer.step()
                    schedule.step()
        finally:
            torch.set_num_threads(threads)
    model.eval()
    pictures, answers = held_out_digits()
    with torch.no_grad():
        predicted = model(**processor(images=pictures, return_tensors="pt")).logits.argmax(-1)
    accuracy = float((predicted == torch.tensor(answers)).float().mean())
    if accuracy < LEAST_ACCURACY:
        raise CheckpointError(
            f"{spec.name}: trained on digits, it recognises {accuracy:.1%} of the held-out ones; "
            f"{LEAST_ACCURACY:.0%} is demanded.",
            hint="Its dims are too small to learn from, or this torch computes gradients wrongly.",
        )
    model.save_pretrained(directory)
    processor.save_pretrained(directory)
