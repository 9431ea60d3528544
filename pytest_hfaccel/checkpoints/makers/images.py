"""Image processors that bring any picture to the size a model takes."""

from __future__ import annotations

from typing import Any


def square(config: Any, class_name: str, *, crops: bool = False) -> list[Any]:
    """Make a processor for a model of square images, perhaps with a crop after resizing."""
    side = {"height": config.image_size, "width": config.image_size}
    return [_processor(class_name, size=side, **({"crop_size": side} if crops else {}))]


def any_size(config: Any) -> list[Any]:
    """Make DETR's processor, whose images have any size: small ones here."""
    del config
    return [_processor("DetrImageProcessor", size={"shortest_edge": 64, "longest_edge": 96})]


def with_prompts(config: Any) -> list[Any]:
    """Make SAM's processor: pictures padded to a square, with points or boxes, and masks a quarter as large."""
    import transformers

    side = config.vision_config.image_size
    processor = _processor(
        "SamImageProcessor",
        size={"longest_edge": side},
        pad_size={"height": side, "width": side},
        mask_size={"longest_edge": side // 4},
        mask_pad_size={"height": side // 4, "width": side // 4},
    )
    return [transformers.SamProcessor(image_processor=processor)]


def cropping(class_name: str, side: int, **options: Any) -> Any:
    """Make a processor that scales the shorter edge and cuts out the middle, as CLIP's does."""
    return _processor(class_name, size={"shortest_edge": side}, crop_size={"height": side, "width": side}, **options)


def like_the_class(class_name: str, side: int) -> Any:
    """Make a processor in the form in which its class states sizes: height and width, or the shorter edge."""
    import transformers

    usual = getattr(transformers, class_name)()
    options = {name: _resized(getattr(usual, name, None), side) for name in ("size", "crop_size", "pad_size")}
    return _processor(class_name, **{name: value for name, value in options.items() if value})


def _resized(size: Any, side: int) -> dict[str, int]:
    return {edge: side for edge, pixels in dict(size or {}).items() if pixels}


def _processor(class_name: str, **options: Any) -> Any:
    # Without torchvision this name gives the class that works with PIL.
    import transformers

    return getattr(transformers, class_name)(**options)
