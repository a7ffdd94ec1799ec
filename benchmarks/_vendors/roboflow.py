"""Roboflow's hosted classification: the body is base64 text, the key in the query or a header."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from starlette.responses import Response

from benchmarks._vendors.base import KEY, Asked, Vendor, say

__all__ = ["Roboflow"]


class Roboflow(Vendor):
    """Tells every class with its confidence, rounded to four places, and the best one."""

    name = "roboflow"
    document = "https://docs.roboflow.com/deployment/legacy/legacy-serverless/classification"
    words = ("real-image", "illustration")
    fills: ClassVar[Mapping[str, str]] = {"YOUR-DATASET": "image-kinds", 'version = "1"': 'version = "2"'}
    reads_forms: ClassVar[bool] = False
    refuses = False

    def answer(self, asked: Asked) -> Response:
        """Answer the inference of one version of a model."""
        if asked.method == "GET" and asked.path == "/model/registry":
            return say(200, {"models": []})
        self.demand(asked.method == "POST" and asked.path == "/image-kinds/2", "Not found", 404)
        names = {"confidence?": str, "overlap?": str, "name?": str, "format?": "json", "stroke?": str, "labels?": str}
        # What inference-sdk says beside, on every request.
        client = {"disable_active_learning?": str, "allow_reduced_mask_resolution?": str, "source?": str}
        query = self.demand_query(asked, {"api_key?": str, "image_type?": str, **names, **client})
        bearer = asked.headers.get("authorization", "").removeprefix("Bearer ")
        self.demand((query.get("api_key") or bearer) == KEY, "This API key does not exist", 403)
        media = ("application/x-www-form-urlencoded", "application/json")
        self.demand(asked.content_type in media, "The body must be base64", 415)
        self.admit()
        levels = self.from_base64(asked.body.decode("ascii", "replace"))
        (said,) = self.look(levels)
        found = [
            {"class": word, "class_id": self.words.index(word), "confidence": round(share, 4)}
            for word, share in self.ranked(said)
        ]
        height, width = levels.shape[:2]
        return say(
            200,
            {
                "time": 0.02,
                "image": {"width": width, "height": height},
                "predictions": found,
                "top": found[0]["class"],
                "confidence": found[0]["confidence"],
                "image_path": "/image.png",
                "prediction_type": "ClassificationModel",
            },
        )

    def wrong(self, status: int, why: str) -> Response:
        """Return a message."""
        return say(status, {"message": why})

    def too_fast(self) -> Response:
        """Return what the gateway says to one request too many."""
        return say(429, {"message": "Too Many Requests"})
