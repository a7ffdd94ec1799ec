"""Which of several things found in an image is the one that was asked about: the largest, or the one in the middle."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal

from ttca.images import ImageShape
from ttca.platforms.protocols.unreadable import UnreadableError, excerpt

__all__ = ["Pick", "picked"]

Pick = Literal["largest", "nearest-center"]

#: Larger numbers are pixels: nothing of so few pixels is found in an image.
_LARGEST_SHARE = 2.0
_BOX = (
    "{left, top, right, bottom}, {left, top, width, height}, {center_x, center_y, width, height}, or a list of the "
    "corners {x, y}; a multiselect such as faces[*].box.{left: x, top: y, width: w, height: h} names them so"
)


def picked(boxes: object, pick: Pick, image_shape: ImageShape) -> int:
    """Return which of several things is picked.

    Parameters
    ----------
    boxes : JSON value
        A list of boxes, all in pixels of the image that was sent or all in shares of its width and height, told apart
        by their numbers. A box has the names ``left``, ``top`` and ``right``, ``bottom`` or ``width``, ``height`` (or
        ``center_x``, ``center_y`` with those), in upper or lower case; or it is a list of its corners ``x`` and ``y``.
    pick : {'largest', 'nearest-center'}
        By area, or by the distance of the box's middle from the image's.
    image_shape : (H, W, 3)

    Raises
    ------
    UnreadableError
        If a box is none of these, or two things are picked alike.
    """
    if not isinstance(boxes, list) or not boxes:
        raise UnreadableError(f"Expected a list of boxes, one for each thing found, got {excerpt(boxes)!r}.")
    edges = [_edges(box) for box in boxes]
    height, width, _ = image_shape
    if max(max(map(abs, e)) for e in edges) <= _LARGEST_SHARE:
        edges = [(left * width, top * height, right * width, bottom * height) for left, top, right, bottom in edges]
    if pick == "largest":
        ranks = [-(right - left) * (bottom - top) for left, top, right, bottom in edges]
    else:
        ranks = [math.hypot((e[0] + e[2] - width) / 2, (e[1] + e[3] - height) / 2) for e in edges]
    best = min(range(len(ranks)), key=ranks.__getitem__)
    if ranks.count(ranks[best]) > 1:
        raise UnreadableError(f"Expected one thing to be the {pick}, got {ranks.count(ranks[best])} alike.")
    return best


def _edges(box: object) -> tuple[float, float, float, float]:
    """Return left, top, right and bottom."""
    if isinstance(box, Sequence) and not isinstance(box, str):
        corners = [_numbers(corner) for corner in box]
        xs, ys = [c.get("x", math.nan) for c in corners], [c.get("y", math.nan) for c in corners]
        found = (min(xs), min(ys), max(xs), max(ys)) if len(corners) > 2 and all(map(math.isfinite, xs + ys)) else ()
    else:
        found = _sides(_numbers(box))
    if not found or not (found[2] > found[0] and found[3] > found[1]):
        raise UnreadableError(f"Expected a box as {_BOX}, got {excerpt(box)!r}.")
    return found


def _sides(said: Mapping[str, float]) -> tuple[float, float, float, float] | tuple[()]:
    names = set(said)
    if {"left", "top", "right", "bottom"} <= names:
        return said["left"], said["top"], said["right"], said["bottom"]
    if not {"width", "height"} <= names:
        return ()
    width, height = said["width"], said["height"]
    if {"center_x", "center_y"} <= names:
        left, top = said["center_x"] - width / 2, said["center_y"] - height / 2
    elif {"left", "top"} <= names:
        left, top = said["left"], said["top"]
    else:
        return ()
    return left, top, left + width, top + height


def _numbers(said: object) -> dict[str, float]:
    """Return the finite numbers of an object under their names in lower case; none where a name comes twice."""
    if not isinstance(said, Mapping) or len({str(k).casefold() for k in said}) != len(said):
        return {}
    return {
        str(k).casefold(): float(v)
        for k, v in said.items()
        if type(v) in (int, float) and abs(v) < 1e9  # NaN is not
    }
