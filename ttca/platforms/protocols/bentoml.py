"""A BentoML service, asked from our side: one image as a file of a multipart form.

Source: https://docs.bentoml.com/en/latest/build-with-bentoml/iotypes.html (files as multipart/form-data), and the
OpenAPI description that every service gives at ``/docs.json``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from ttca.errors import ConfigError, TransportError
from ttca.images import Images
from ttca.platforms.protocols import Fetch, Request
from ttca.platforms.protocols.encoding import as_multipart
from ttca.platforms.protocols.reading import UnreadableError, excerpt, read_json
from ttca.platforms.protocols.single_image import SingleImage, SingleImageWire, options_identity

__all__ = ["BentoML", "BentoMLWire"]


@dataclass(frozen=True, kw_only=True)
class BentoML(SingleImage):
    """Options of a BentoML service.

    Parameters
    ----------
    route : str
        The API method's route.
    field : str
        The name of its image parameter.
    fields : mapping of str to str
        Its other parameters.
    image_shape, classes, scores_are, …
        See :class:`~ttca.platforms.protocols.single_image.SingleImage`. ``model`` and ``version`` only name the
        service in the platform's identity.

    Raises
    ------
    ConfigError
        If a value is not allowed.
    """

    route: str = "classify"
    field: str = "image"
    fields: Mapping[str, str] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("route", "field"):
            if not getattr(self, name):
                raise ConfigError(f"Expected {name} as a name, got an empty one. Set it.")
        if self.fields and not all(isinstance(v, str) for v in self.fields.values()):
            raise ConfigError("Expected fields as a table of texts, got other values. Put numbers in quotes.")

    def describe(self, fetch: Fetch) -> BentoMLWire:
        """Read the service's OpenAPI description, where it gives one, and check the route and the field."""
        route = self.route.strip("/")
        try:
            self._check(read_json(fetch("docs.json").body), f"/{route}")
        except UnreadableError:
            pass
        except TransportError as error:
            # The description is a courtesy that some gateways do not pass on.
            if error.retryable:
                raise
        return BentoMLWire(
            options=self,
            image_shape=self.shape,
            path=quote(route),
            identity=options_identity(self, route=route, field=self.field, fields=dict(self.fields or {})),
            reading_identity=self.reading_identity,
            field_name=self.field,
            fields=dict(self.fields or {}),
        )

    def _check(self, described: object, route: str) -> None:
        paths = _inside(described, "paths")
        if not paths:
            return
        posts = sorted(p for p, methods in paths.items() if isinstance(methods, Mapping) and "post" in methods)
        if route not in posts:
            raise ConfigError(
                f"Expected the service to have the route {route}, got {', '.join(excerpt(p, 40) for p in posts)}. "
                "Correct route."
            )
        content = _inside(paths, route, "post", "requestBody", "content")
        if content and "multipart/form-data" not in content:
            raise ConfigError(
                f"Expected {route} to take multipart/form-data, got {', '.join(excerpt(c, 40) for c in content)}. "
                "Ask an API method that takes an image file, or use the protocol template."
            )
        schema = _inside(content, "multipart/form-data", "schema")
        if isinstance(schema.get("$ref"), str):
            schema = _inside(described, *schema["$ref"].removeprefix("#/").split("/"))
        known = _inside(schema, "properties")
        for name in (self.field, *(self.fields or {})):
            if known and name not in known:
                raise ConfigError(
                    f"Expected {route} to have the parameter {name!r}, got {', '.join(excerpt(k, 40) for k in known)}. "
                    "Correct field or fields."
                )


def _inside(value: object, *keys: str) -> Mapping[str, Any]:
    """Return the object at these keys, an empty one where there is none."""
    for key in keys:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value if isinstance(value, Mapping) else {}


@dataclass(frozen=True, kw_only=True)
class BentoMLWire(SingleImageWire):
    """The protocol as agreed with one service; built by :meth:`BentoML.describe`."""

    field_name: str
    fields: dict[str, str]

    def request(self, images: Images, *, request_id: str) -> Request:
        """Return a POST of a form with the image as a PNG file."""
        body, content_type = as_multipart(images[0], field=self.field_name, fields=self.fields)
        return Request("POST", self.path, {"Content-Type": content_type, "Accept": "application/json"}, body)
