"""Hugging Face's image classification: the body is the image, the answer a list of labels and scores."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from starlette.responses import Response

from benchmarks._vendors.base import KEY, Asked, Vendor, say

__all__ = ["HuggingFace"]


class HuggingFace(Vendor):
    """Tells the top labels; a model that is loading says for how long."""

    name = "huggingface"
    document = "https://huggingface.co/docs/inference-providers/tasks/image-classification"
    words = ("cat", "dog", "bird")
    model: ClassVar[str] = "me/pets"
    fills: ClassVar[Mapping[str, str]] = {"YOUR-ACCOUNT/YOUR-MODEL": model}

    def answer(self, asked: Asked) -> Response:
        """Answer the task of one model."""
        known = (f"/hf-inference/models/{self.model}", f"/models/{self.model}")
        self.demand(asked.method == "POST" and asked.path in known, "Not Found", 404)
        self.demand(asked.headers.get("authorization") == f"Bearer {KEY}", "Invalid credentials", 401)
        self.demand_query(asked, {})
        most = 5
        if asked.content_type == "application/json":
            found = self.demand_json(
                asked, {"inputs": str, "parameters?": {"top_k?": int, "function_to_apply?": (str, None)}}
            )
            most = found.get("parameters", {}).get("top_k", most)
            self.admit()
            levels = self.from_base64(found["inputs"])
        else:
            media = ("", "image/png", "image/jpeg", "application/octet-stream")
            self.demand(asked.content_type in media, "Content type")
            self.admit()
            levels = self.levels(asked.body)
        (said,) = self.look(levels)
        if said.scores is None:
            return say(400, {"error": "No face detected in the image"})
        return say(200, [{"label": word, "score": score} for word, score in self.ranked(said)][:most])

    def wrong(self, status: int, why: str) -> Response:
        """Return an error."""
        return say(status, {"error": why})

    def too_fast(self) -> Response:
        """Return what one request above the rate gets."""
        return say(429, {"error": "Rate limit reached. Please try again later."}, Retry_After="1")

    def not_ready(self) -> Response:
        """Return what a model that is loading says, with the seconds that it takes."""
        return say(503, {"error": f"Model {self.model} is currently loading", "estimated_time": 0.5})
