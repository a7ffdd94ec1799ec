"""Sightengine's check.json: a form with a file and two keys, errors with a type."""

from __future__ import annotations

from starlette.responses import Response

from benchmarks._vendors.base import KEY, SECRET, Asked, File, Vendor, say

__all__ = ["Sightengine"]


class Sightengine(Vendor):
    """Tells whether an image is a photograph or an illustration: an object of names and scores."""

    name = "sightengine"
    document = "https://sightengine.com/docs/illustration-photo-detection"
    words = ("photo", "illustration")
    secret = f"{KEY} {SECRET}"
    refuses = False

    def answer(self, asked: Asked) -> Response:
        """Answer check.json with the model ``type``."""
        self.demand(asked.method == "POST" and asked.path == "/1.0/check.json", "Unknown endpoint", 404)
        self.demand_query(asked, {})
        form = self.demand_form(asked, {"media": File, "models": "type", "api_user": str, "api_secret": str})
        self.demand((form["api_user"], form["api_secret"]) == (KEY, SECRET), "Incorrect API user or API secret")
        self.admit()
        (said,) = self.look(self.levels(form["media"].content))
        return say(
            200,
            {
                "status": "success",
                "request": {"id": "req_1", "timestamp": 1.5e9, "operations": 1},
                "type": dict(self.ranked(said)),
                "media": {"id": "med_1", "uri": "image.png"},
            },
        )

    def wrong(self, status: int, why: str) -> Response:
        """Return a failure; ``operations`` says that nothing was billed."""
        return self._failed(status, "argument_error", 1, why)

    def bad_image(self) -> Response:
        """Return what a file that is no image gets."""
        return self._failed(400, "media_error", 20, "Invalid image file")

    def _failed(self, status: int, kind: str, code: int, why: str) -> Response:
        request = {"id": "req_1", "timestamp": 1.5e9, "operations": 0}
        error = {"type": kind, "code": code, "message": why}
        return say(status, {"status": "failure", "request": request, "error": error})

    def too_fast(self) -> Response:
        """Return what a request above the concurrency of the plan gets."""
        return self._failed(429, "usage_limit", 32, "Too many concurrent requests")
