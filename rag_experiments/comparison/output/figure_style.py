"""The look that all Plotly figures share."""

from __future__ import annotations

import html
from typing import Any

import plotly.graph_objects as go

COLOURS = ("#3b7dd8", "#e07b39", "#2fa56d", "#b652c9", "#c94f5c", "#1f9ab5", "#a08a2c", "#7a6ff0")
GREY = "rgba(128,128,128,0.28)"


def base(title: str, height: int = 380, **layout: Any) -> go.Figure:
    """An empty figure in the house's look."""
    axis = {"gridcolor": GREY, "zerolinecolor": "rgba(128,128,128,0.7)", "automargin": True}
    return go.Figure(
        layout={
            "title": {"text": escaped(title), "font": {"size": 14}},
            "height": height,
            "margin": {"l": 60, "r": 20, "t": 48, "b": 48},
            "paper_bgcolor": "rgba(0,0,0,0)",
            "plot_bgcolor": "rgba(0,0,0,0)",
            "colorway": COLOURS,
            "template": None,
            "hovermode": "closest",
            "font": {"family": "system-ui, sans-serif", "size": 12, "color": "#808890"},
            "legend": {"orientation": "h", "y": -0.2},
            "xaxis": dict(axis),
            "yaxis": dict(axis),
        }
    ).update_layout(**layout)


def escaped(text: str) -> str:
    """Text that Plotly shows as it stands."""
    return html.escape(str(text), quote=False)
