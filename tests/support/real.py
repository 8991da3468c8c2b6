"""Real corpora and models, where they are at hand."""

import os
from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parents[3] / "shared"
REAL_MODELS = SHARED / "models"
DEVICE = os.environ.get("PERMAFROST_DEVICE", "cpu")
"""Where the self-check is tried."""

REAL_DATA = Path(os.environ.get("PERMAFROST_DATA", SHARED / "data"))


def real_data(name: str) -> Path:
    """The folder of a real corpus; the test is skipped where it is not."""
    folder = REAL_DATA / name
    if not folder.is_dir():
        pytest.skip(f"real corpus {name} is not at {folder}; set PERMAFROST_DATA")
    return folder


def real_model(name: str) -> Path:
    """The folder of a small real model; the test is skipped where it is not."""
    folder = REAL_MODELS / name
    if not folder.is_dir():
        pytest.skip(f"real model {name} is not at {folder}")
    return folder
