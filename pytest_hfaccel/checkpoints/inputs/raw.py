"""The raw material: sentences, pictures, sounds, videos. Deterministic, and any two samples differ."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pytest_hfaccel.core.errors import LoadError

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image

    from pytest_hfaccel.checkpoints.checkpoint import Checkpoint

SENTENCES = ("Paris is the capital of France.", "The quick brown fox jumps over the lazy dog.")
MASKED = ("Paris is the {mask} of France.", "The quick brown {mask} jumps over the lazy dog.")
REACTIONS = ("CC(=O)O.OCC>>CC(=O)OCC", "Brc1ccccc1.OB(O)c1ccccc1>>c1ccc(-c2ccccc2)cc1")
MASKED_REACTIONS = ("CC(=O)O.OCC>>CC(=O){mask}CC", "Br{mask}1ccccc1.OB(O)c1ccccc1>>c1ccc(-c2ccccc2)cc1")
"""Reactions in SMILES: an esterification and a Suzuki coupling."""
CAPTIONS = ("a photo of a cat", "a photo of a red circle on a white background")
SOUNDS = ("the sound of a dog barking", "the sound of rain falling")
QUESTION = "What is in the image?"
IMAGE_SIZE = (96, 80)
VIDEO_FPS = 8


def need(checkpoint: Checkpoint, name: str) -> Any:
    """Return a part of the checkpoint's processors.

    Raises:
        LoadError: The checkpoint does not have it.
    """
    found = checkpoint.processors()
    if name not in found:
        raise LoadError(
            f"{checkpoint.directory} has no {name}, which {checkpoint.spec.task} needs.",
            hint=f"It has: {', '.join(found) or 'neither tokenizer nor processor'}. Save it beside the weights.",
        )
    return found[name]


def picture(shift: int = 0) -> Image:
    """Draw a picture with shapes and a gradient; `shift` moves and recolours them."""
    import numpy as np
    from PIL import Image, ImageDraw

    width, height = IMAGE_SIZE
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    pixels = np.stack([(2 * x + 40 * shift) % 256, (3 * y) % 256, (x + y + 90 * shift) % 256], axis=-1)
    image = Image.fromarray(pixels.astype("uint8"))
    draw = ImageDraw.Draw(image)
    draw.ellipse((20 + 9 * shift, 15, 60 + 9 * shift, 55), fill=(220, 30 + 60 * shift, 30))
    draw.rectangle((55, 40 - 7 * shift, 90, 70 - 7 * shift), fill=(30, 60, 200))
    return image


def sound(rate: int, variant: int = 0, seconds: float = 1.0) -> np.ndarray[Any, Any]:
    """Make a waveform in fp32: a rising tone with a tremolo and a little noise, between -1 and 1."""
    import numpy as np

    time = np.arange(int(rate * seconds)) / rate
    tone = np.sin(2 * np.pi * (220 * (variant + 1) + 200 * time) * time)
    noise = np.random.default_rng(variant).standard_normal(time.shape)
    wave: np.ndarray[Any, Any] = (0.6 * tone * (1 + 0.3 * np.sin(2 * np.pi * 3 * time)) + 0.02 * noise) / 1.2
    return wave.astype(np.float32)


def video(frames: int, variant: int = 0) -> list[Image]:
    """Make a video: the picture's shapes move from frame to frame."""
    return [picture(variant + 2 * frame) for frame in range(frames)]
