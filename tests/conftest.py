"""What all tests share."""

import pytest


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Compare pictures with the kept ones, as the option --mpl of pytest-mpl does."""
    if hasattr(config.option, "mpl"):
        config.option.mpl = True


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch, tmp_path_factory):
    """Leave the user's own cache alone."""
    monkeypatch.setenv("CAMANIM_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
