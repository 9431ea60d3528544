"""Which template of a model class module fits a family and subfamily."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

GENERAL_TEMPLATE = "hf_template.py"
"""For models of unknown family, and for families of the user's own."""

TEMPLATE_FOLDER = Path(__file__).parents[1] / "generator" / "templates"
"""Where the templates lie; a `jinja2.FileSystemLoader` over it finds every name given here."""

_FAMILIES = ("embedding", "text_generation", "vision", "audio", "multimodal", "video", "time_series")

# A family's template is made for its usual subfamily; the others have their own, named after them.
_OWN: Mapping[str, tuple[str, ...]] = {
    "embedding": ("sentence_transformer", "token_classifier"),
    "text_generation": ("seq2seq", "chat_model"),
    "vision": ("object_detector", "segmentation", "depth_estimation"),
    "audio": ("audio_classifier", "text_to_speech"),
    "multimodal": ("image_text_encoder", "document_qa"),
    "video": ("video_text_encoder",),
}


def template_for(family: str | None, subfamily: str | None = None) -> str:
    """Return the file name of the template for a family and, where it has its own, the subfamily."""
    if family not in _FAMILIES:
        return GENERAL_TEMPLATE
    if subfamily in _OWN.get(family, ()):
        return f"hf_{subfamily}_template.py"
    return f"hf_{family}_template.py"
