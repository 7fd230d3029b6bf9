"""Figures, looked at as they are drawn."""

import pytest

from probes.plots import style


@pytest.fixture
def drawn(monkeypatch):
    """The figures themselves, as they are written."""
    kept, figures = [], style.Figure

    def figure(*args, **kwargs):
        kept.append(figures(*args, **kwargs))
        return kept[-1]

    monkeypatch.setattr(style, "Figure", figure)
    return kept
