"""What all tests share."""

import pytest


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch, tmp_path_factory):
    """Leave the user's own cache alone."""
    monkeypatch.setenv("CAMANIM_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
