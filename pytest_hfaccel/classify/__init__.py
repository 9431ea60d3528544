"""Which family a model belongs to, and how sure that is.

Reads transformers' tables without importing transformers; needs neither torch nor the network.
"""

from __future__ import annotations

from pytest_hfaccel.classify.classifier import TEMPLATE_FOLDER, ModelFamilyClassifier, classify_model
from pytest_hfaccel.classify.database import DamagedDatabaseWarning
from pytest_hfaccel.classify.definitions import MODEL_FAMILIES, MODEL_SUBFAMILIES
from pytest_hfaccel.classify.records import UNKNOWN, Analysis, Classification

__all__ = [
    "MODEL_FAMILIES",
    "MODEL_SUBFAMILIES",
    "TEMPLATE_FOLDER",
    "UNKNOWN",
    "Analysis",
    "Classification",
    "DamagedDatabaseWarning",
    "ModelFamilyClassifier",
    "classify_model",
]
