"""Models and datasets, and pages of them."""

from datetime import datetime
from typing import Literal

from pydantic import ConfigDict, Field

from api.schemas.described import Answer
from api.schemas.errors import Failure
from api.schemas.examples import DATASET_ID, MODEL_ID, SHA, WHEN
from api.schemas.pages import Page
from pruning.facts import DatasetFacts, ModelFacts

UploadState = Literal["checking", "ready", "rejected"]


class _Upload(Answer):
    id: str
    name: str
    state: UploadState
    bytes: int
    sha256: str
    error: Failure | None = Field(None, description="Why it was rejected.")
    created_at: datetime
    updated_at: datetime


class ModelFile(Answer):
    """One of several files of a model."""

    path: str
    bytes: int
    sha256: str


class Model(_Upload):
    """An uploaded network; immutable."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "id": MODEL_ID,
                "object": "model",
                "name": "lenet.onnx",
                "state": "checking",
                "format": None,
                "bytes": 178110,
                "sha256": SHA,
                "files": [],
                "facts": None,
                "error": None,
                "created_at": WHEN,
                "updated_at": WHEN,
            }
        }
    )

    object: Literal["model"] = "model"
    format: str | None = None
    files: list[ModelFile] = Field([], description="The files, if it was uploaded as several.")
    facts: ModelFacts | None = Field(None, description="What intake learned of it.")


class Dataset(_Upload):
    """Uploaded arrays, texts or images; immutable."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "id": DATASET_ID,
                "object": "dataset",
                "name": "digits.npz",
                "state": "ready",
                "format": "npz",
                "bytes": 460000,
                "sha256": SHA,
                "facts": {
                    "format": "npz",
                    "samples": 1437,
                    "arrays": [{"name": "x", "dtype": "float32", "shape": [1437, 1, 8, 8]}],
                    "target": {"dtype": "int64", "shape": [1437], "classes": 10},
                    "bytes": 379368,
                },
                "error": None,
                "created_at": WHEN,
                "updated_at": WHEN,
            }
        }
    )

    object: Literal["dataset"] = "dataset"
    format: str | None = None
    facts: DatasetFacts | None = Field(None, description="What intake learned of it.")


class ModelPage(Page[Model]):
    """One page of models, newest first."""


class DatasetPage(Page[Dataset]):
    """One page of datasets, newest first."""
