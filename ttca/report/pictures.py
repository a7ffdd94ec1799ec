"""The report's pictures, as PNG bytes: shares with their intervals, inputs enlarged, differences magnified."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ttca.errors import MissingExtraError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["LAYOUTS", "THEMES", "Layout", "Share", "ShareGroup", "Theme", "draw_shares", "enlarged", "magnified"]

Role = Literal["reference", "before", "after", "control", "warning"]

# Shape says the same as color, for those who cannot tell the colors apart and for gray printers.
_MARKERS: dict[Role, str] = {"reference": "s", "before": "o", "after": "D", "control": "^", "warning": "X"}
_TICKS = [0, 0.25, 0.5, 0.75, 1]
#: Inches above and below the plot, and for a group's title.
_TOP, _BOTTOM, _TITLE = 0.08, 0.32, 0.36
_FONT = "DejaVu Sans"  # comes with matplotlib: the same picture on every machine


@dataclass(frozen=True)
class Share:
    """One line of the chart, of one condition: a share 0..1 with its interval; NaN where it is not defined."""

    name: str
    label: str
    role: Role
    rate: float
    low: float
    high: float
    text: str


@dataclass(frozen=True)
class ShareGroup:
    """Lines of the chart that are read together."""

    title: str
    shares: tuple[Share, ...]


@dataclass(frozen=True)
class Theme:
    """Colours of a chart: the page's own, so that the picture lies in it without a seam."""

    paper: str
    ink: str
    quiet: str
    line: str
    roles: dict[Role, str]


THEMES = {
    "light": Theme(
        paper="#ffffff",
        ink="#1d2733",
        quiet="#55616d",
        line="#e1e5e9",
        roles={
            "reference": "#3d4a57",
            "before": "#b3471d",
            "after": "#0a6a8a",
            "control": "#6d5a96",
            "warning": "#96690a",
        },
    ),
    "dark": Theme(
        paper="#1b2128",
        ink="#e8ebee",
        quiet="#a9b4bf",
        line="#343d47",
        roles={
            "reference": "#c3ccd5",
            "before": "#f0916a",
            "after": "#5fc0e0",
            "control": "#b8a6e0",
            "warning": "#e3bb5c",
        },
    ),
}


@dataclass(frozen=True)
class Layout:
    """Where things stand in a chart, in inches of 100 CSS pixels each; labels stand ``label_up`` above the dots."""

    width: float
    left: float
    right: float
    line: float
    label_x: float
    label_up: float

    @property
    def plot_width(self) -> float:
        """Where dots may stand."""
        return self.width - self.left - self.right


LAYOUTS = {
    # Labels left of the dots, values right of them.
    "wide": Layout(width=8.8, left=2.75, right=0.95, line=0.3, label_x=0.1, label_up=0.0),
    # On a phone the dots need the whole width, so that labels and values stand above them.
    "narrow": Layout(width=3.4, left=0.12, right=0.12, line=0.47, label_x=0.02, label_up=0.21),
}


def draw_shares(groups: Sequence[ShareGroup], *, reference: float, theme: Theme, layout: Layout) -> bytes:
    """Return a chart of dots and whiskers as PNG.

    Parameters
    ----------
    groups : sequence of ShareGroup
        From top to bottom.
    reference : float
        The share at which a broken line is drawn to compare with; NaN for none.
    theme : Theme
    layout : Layout

    Raises
    ------
    MissingExtraError
        If matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError("The report", "learn") from error

    height = _TOP + sum(_TITLE + layout.line * len(g.shares) for g in groups) + _BOTTOM + 0.08
    figure = Figure(figsize=(layout.width, height), dpi=200, facecolor=theme.paper)
    FigureCanvasAgg(figure)
    chart = _Chart(_framed(figure, height, theme, layout), theme, layout)
    y = 0.0
    for group in groups:
        chart.write(group.title, layout.label_x, y + _TITLE * 0.6, fontsize=9, fontweight="bold", color=theme.quiet)
        y += _TITLE
        for share in group.shares:
            chart.line(share, y, reference)
            y += layout.line
    buffer = io.BytesIO()
    # Without matplotlib's version in it, the same numbers give the same bytes.
    figure.savefig(
        buffer, format="png", facecolor=theme.paper, metadata={"Software": None}, pil_kwargs={"optimize": True}
    )
    return buffer.getvalue()


def _framed(figure: Figure, height: float, theme: Theme, layout: Layout) -> Axes:
    """Return empty axes on which y is inches, downward: text and lines keep their distance at any number of lines."""
    box = (
        layout.left / layout.width, _BOTTOM / height,
        layout.plot_width / layout.width, 1 - (_BOTTOM + _TOP) / height,
    )  # fmt: skip
    axes = figure.add_axes(box)
    axes.set_xlim(0, 1)
    axes.set_ylim(height - _BOTTOM - _TOP, 0)
    axes.set_facecolor(theme.paper)
    axes.spines[:].set_visible(False)
    axes.set_yticks([])
    words = [f"{100 * t:g} %" for t in _TICKS]
    axes.set_xticks(_TICKS, words, fontfamily=_FONT, fontsize=8.5, color=theme.quiet)
    # The outer two would hang over the edge of a narrow chart.
    outer = axes.get_xticklabels()
    outer[0].set_horizontalalignment("left")
    outer[-1].set_horizontalalignment("right")
    axes.tick_params(axis="x", length=0, pad=5)
    return axes


@dataclass(frozen=True)
class _Chart:
    """Axes on which words, dots and whiskers are put, line by line."""

    axes: Axes
    theme: Theme
    layout: Layout

    def write(self, text: str, x: float, y: float, **style: Any) -> None:
        """Write at x inches from the figure's left edge and y inches down the plot."""
        self.axes.text(
            (x - self.layout.left) / self.layout.plot_width,
            y,
            text,
            fontfamily=_FONT,
            va="center",
            zorder=4,
            clip_on=False,
            parse_math=False,  # A guest's label is words, whatever signs stand in it.
            **style,
        )

    def line(self, share: Share, y: float, reference: float) -> None:
        """Draw one share with its words, whiskers and dot in the line that begins y inches down."""
        theme, layout = self.theme, self.layout
        middle = y + layout.line / 2 + layout.label_up / 2
        words = middle - layout.label_up
        self.write(share.label, layout.label_x, words, fontsize=9.5, color=theme.ink)
        self.write(share.text, layout.width - 0.04, words, ha="right", fontsize=9.5, fontweight="bold", color=theme.ink)
        # Lines are drawn where dots are, so that none runs through words.
        reach = (layout.line - layout.label_up) / 2
        low, high = middle - reach, middle + reach
        self.axes.vlines(_TICKS, low, high, colors=theme.line, linewidth=0.8, zorder=0)
        if math.isfinite(reference):
            broken: dict[str, Any] = {"linewidth": 1, "linestyles": (0, (3, 2)), "zorder": 1}
            self.axes.vlines(reference, low, high, colors=theme.roles["reference"], **broken)
        if math.isfinite(share.rate):
            self._mark(share, middle)

    def _mark(self, share: Share, middle: float) -> None:
        color = self.theme.roles[share.role]
        whisker: dict[str, Any] = {"colors": color, "linewidth": 1.7, "zorder": 2, "clip_on": False}
        self.axes.hlines(middle, share.low, share.high, **whisker)
        self.axes.vlines([share.low, share.high], middle - 0.05, middle + 0.05, **whisker)
        hollow = share.role == "before"
        self.axes.plot(
            [share.rate],
            [middle],
            linestyle="none",
            marker=_MARKERS[share.role],
            markersize=9 if share.role == "warning" else 7.5,
            markerfacecolor=self.theme.paper if hollow else color,
            markeredgecolor=color if hollow else self.theme.paper,
            markeredgewidth=1.8 if hollow else 0.7,
            zorder=3,
            clip_on=False,
        )


def magnified(difference: NDArray[np.signedinteger[Any]], epsilon: int) -> NDArray[np.uint8]:
    """Return a difference in pixel levels as an image: 0 is mid-gray, −ε black and +ε white, channel by channel.

    Parameters
    ----------
    difference : signed integer array, shape (…, 3)
        Within [−ε, ε].
    epsilon : int
    """
    levels: NDArray[np.float64] = np.rint(127.5 + 127.5 / epsilon * difference).clip(0, 255)
    return levels.astype(np.uint8)


def enlarged(image: NDArray[np.uint8], *, least: int = 128) -> bytes:
    """Return an image, uint8 (H, W, 3), as PNG of ``least`` pixels a side or more, each pixel a square of pixels."""
    times = max(1, math.ceil(least / max(image.shape[:2])))
    buffer = io.BytesIO()
    Image.fromarray(image.repeat(times, axis=0).repeat(times, axis=1)).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()
