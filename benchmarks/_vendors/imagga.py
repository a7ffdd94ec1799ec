"""Imagga's tags: Basic authorization, a file in a form, tags by language, confidences in percent."""

from __future__ import annotations

import base64

from starlette.responses import Response

from benchmarks._vendors.base import KEY, SECRET, Asked, Vendor, say

__all__ = ["Imagga"]


class Imagga(Vendor):
    """Tells tags, among them some that nobody asked about."""

    name = "imagga"
    document = "https://docs.imagga.com/#tags"
    words = ("cat", "dog", "bird")
    secret = f"{KEY} {SECRET}"

    def answer(self, asked: Asked) -> Response:
        """Answer tags."""
        self.demand(asked.method == "POST" and asked.path == "/v2/tags", "Not found", 404)
        wanted = base64.b64encode(f"{KEY}:{SECRET}".encode()).decode()
        self.demand(asked.headers.get("authorization") == f"Basic {wanted}", "Could not authorize", 403)
        names = {"language?": str, "limit?": str, "threshold?": str, "verbose?": str}
        self.demand_query(asked, names)
        image = {"file": "image", "text": "image_base64"}
        form = self.demand_upload(asked, names, **image)
        self.admit()
        (said,) = self.look(self.from_upload(form, **image))
        tags = []
        if said.scores is not None:
            found = [("feline", 31.0), *((word, 100 * score) for word, score in self.ranked(said))]
            found.sort(key=lambda pair: -pair[1])
            tags = [{"confidence": percent, "tag": {"en": word}} for word, percent in found]
        return say(200, {"result": {"tags": tags}, "status": {"text": "", "type": "success"}})

    def wrong(self, status: int, why: str) -> Response:
        """Return an error's status."""
        return say(status, {"status": {"text": why, "type": "error"}})

    def too_fast(self) -> Response:
        """Return what a request above the plan's concurrency gets."""
        return self.wrong(429, "You have exceeded your concurrency limit.")
