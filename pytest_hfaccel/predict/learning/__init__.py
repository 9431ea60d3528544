"""Training prediction models on measured rows.

The other files of this folder import numpy and scikit-learn at the top: import them late.
"""

from __future__ import annotations

import io
import os
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pytest_hfaccel.core.config import RunConfig
from pytest_hfaccel.core.errors import ConfigError
from pytest_hfaccel.predict.evidence import MODELS_FOLDER, Evidence, is_database
from pytest_hfaccel.predict.naming import ModelFinder

if TYPE_CHECKING:
    from pytest_hfaccel.benchmark.measurement import Measurement
    from pytest_hfaccel.predict.learning.models import TrainedModels


NAME_IN_DATABASE = "prediction_models"
"""The name under which trained models are kept in a database."""


def train_prediction_models(
    db_path: str | os.PathLike[str], output_dir: str | os.PathLike[str] | None = None
) -> TrainedModels:
    """Train prediction models on measured rows, and keep them.

    One model is trained for each device, precision and mode that has enough rows and a calibration (`hfaccel
    calibrate`); `left_out` of what is returned says why others were not.

    Args:
        db_path: A benchmark database, a Parquet file, a report, or a directory of these.
        output_dir: Where the models are written; by default where predictors look for them.

    Returns:
        The models, for `HardwareModelPredictor.prediction_models`. They are also kept in the database, if it is one.

    Raises:
        ConfigError: There is no such file, it cannot be read, scikit-learn is missing, or the models cannot be written.
    """
    place, cache_dir = Path(db_path).expanduser(), RunConfig.from_values({}).cache_dir
    if not place.exists():
        raise ConfigError(
            f"{place}: there is no such file or directory.",
            hint="Measured rows come from `pytest --hf-performance` or `hfaccel bench`.",
        )
    evidence = Evidence(cache_dir, place)
    rows, calibrations = evidence.rows, evidence.calibrations
    if evidence.notes:
        raise ConfigError("\n".join(evidence.notes))
    try:
        from pytest_hfaccel.predict.learning.training import carried_dims, train
    except ImportError as error:
        raise ConfigError(
            f"training needs scikit-learn: {error}", hint="Install it with: pip install 'pytest-hfaccel[predict]'"
        ) from error
    from pytest_hfaccel.registry import load_registry

    finder = ModelFinder(load_registry(cache_dir=cache_dir))

    def dims_of(row: Measurement) -> Mapping[str, Any] | None:
        """The dimensions a row carries, else those of the model it names."""
        carried = carried_dims(row)
        if carried is not None:
            return carried
        model = finder.find(row.model)
        return model.dims if model.architecture == row.architecture and not model.is_assumed else None

    models = train(rows, calibrations, cache_dir, dims_of)
    models.save(Path(output_dir).expanduser() if output_dir is not None else cache_dir / MODELS_FOLDER)
    if is_database(place) and len(models):
        _keep(models, place, len(rows))
    return models


def _keep(models: TrainedModels, database: Path, rows: int) -> None:
    import joblib

    from pytest_hfaccel.history import BenchmarkDatabase

    payload = io.BytesIO()
    joblib.dump(models, payload)
    BenchmarkDatabase(database).save_prediction_model(
        NAME_IN_DATABASE,
        payload.getvalue(),
        rows=rows,
        metrics={model.name: {"latency_error": model.latency_error, "rows": model.rows} for model in models},
        versions={name: version(name) for name in ("pytest-hfaccel", "scikit-learn", "numpy")},
    )
