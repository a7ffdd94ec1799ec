"""What protocols that take one image a request have in common: no metadata to speak of, and one answer to read."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field

from ttca.answers import Answers
from ttca.errors import ConfigError
from ttca.images import ImageShape
from ttca.platforms.protocols import Protocol, Response, Wire
from ttca.platforms.protocols.encoding import check_image_shape
from ttca.platforms.protocols.reading import Reading, UnreadableError, excerpt, read_json

__all__ = ["SingleImage", "SingleImageWire", "options_identity", "unnest"]


@dataclass(frozen=True, kw_only=True)
class SingleImage(Reading, Protocol):
    """Options of a platform that is asked about one image a request.

    Parameters
    ----------
    image_shape : (H, W, 3)
        The size the platform takes. No metadata says it, so it must be given.
    model, version : str, optional
        As the protocol needs them.
    classes, scores_are, resolution, missing_score, refused_labels, refused_errors
        See :class:`~ttca.platforms.protocols.reading.Reading`.

    Raises
    ------
    ConfigError
        If a value is not allowed.
    """

    image_shape: ImageShape | Sequence[int] | None = None
    model: str | None = None
    version: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_image_shape(self.image_shape)

    @property
    def shape(self) -> ImageShape:
        """The size the platform takes, checked."""
        return check_image_shape(self.image_shape)

    def checked_model(self) -> str:
        """Return the model's name, which this protocol's URL needs."""
        if not isinstance(self.model, str) or not self.model:
            raise ConfigError(f"Expected model to be the model's name on the server, got {self.model!r}. Set it.")
        return self.model


@dataclass(frozen=True, kw_only=True)
class SingleImageWire(Wire):
    """A wire that asks about one image at a time and finds the one answer in the JSON that comes back."""

    options: SingleImage
    image_shape: ImageShape
    path: str
    identity: dict[str, str] = field(default_factory=dict)
    reading_identity: dict[str, str] | None = None
    max_batch: int | None = 1

    def parse(self, response: Response, n: int) -> Answers:
        """Read the one answer. It is good, a refusal, or unreadable as a whole."""
        try:
            if n != 1:
                raise UnreadableError(f"Expected to be asked for one answer, got asked for {n}.")
            return self.options.rows([self.find(response)])
        except UnreadableError as error:
            raise response.unreadable(str(error)) from None

    def find(self, response: Response) -> object:
        """Return the part of a response that answers, in a form that :meth:`Reading.row` reads."""
        return unnest(read_json(response.body))


def unnest(said: object) -> object:
    """Return the one answer of a list that holds one per image ([[…]] or [{…}])."""
    if isinstance(said, list) and len(said) == 1 and isinstance(said[0], list | dict):
        inner = said[0]
        # A list of one labeled score is itself the answer: the top 1. A pair of a label and a score is one, too.
        top = len(inner) == 1 if isinstance(inner, dict) else len(inner) == 2 and isinstance(inner[0], str)
        return said if top else inner
    return said


def options_identity(options: SingleImage, **more: object) -> dict[str, str]:
    """Return what of a platform's identity the options decide; ``more`` are those of one protocol."""
    return {
        "model": options.model or "",
        "version": options.version or "",
        "image_shape": excerpt(options.shape),
        **{k: v if isinstance(v, str) else json.dumps(v, sort_keys=True, default=str) for k, v in more.items()},
    }
