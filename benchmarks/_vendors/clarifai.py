"""Clarifai's predict: many inputs a request, a status of its own for each, throttling by a code of its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from starlette.responses import Response

from benchmarks._vendors.base import ANYTHING, KEY, Asked, Said, Vendor, say

__all__ = ["Clarifai"]

_OK = {"code": 10000, "description": "Ok"}


class Clarifai(Vendor):
    """Tells concepts and their values."""

    name = "clarifai"
    document = "https://docs.clarifai.com/api-guide/predict/images"
    words = ("cat", "dog", "bird")
    most_images = 128
    fills: ClassVar[Mapping[str, str]] = {"YOUR-MODEL": "pet-model", "YOUR-USER": "me", "YOUR-APP": "pets"}

    def answer(self, asked: Asked) -> Response:
        """Answer PostModelOutputs."""
        base = "/v2/users/me/apps/pets/models/pet-model"
        known = ("/v2/models/pet-model/outputs", f"{base}/outputs", f"{base}/versions/1/outputs")
        self.demand(asked.method == "POST" and asked.path in known, "Model does not exist", 404)
        self.demand(asked.headers.get("authorization") == f"Key {KEY}", "Invalid API key", 401)
        self.demand_query(asked, {})
        one = {"id?": str, "data": {"image": {"base64": str, "allow_duplicate_url?": bool}}}
        found = self.demand_json(
            asked,
            {
                "inputs": [one],
                "user_app_id?": {"user_id": str, "app_id": str},
                "model_id?": str,
                "version_id?": str,
                "model?": ANYTHING,
            },
        )
        self.demand(len(found["inputs"]) <= self.most_images, "Too many inputs")
        self.admit()
        images = [self.from_base64(one["data"]["image"]["base64"]) for one in found["inputs"]]
        outputs = [self._one(said) for said in self.look(*images)]
        failed = [o for o in outputs if o["status"] != _OK]
        status = {"code": 10010, "description": "Mixed Success"} if failed else _OK
        return say(200, {"status": status, "outputs": outputs})

    def _one(self, said: Said) -> dict[str, object]:
        if said.scores is None:
            return {"id": "o", "status": {"code": 30002, "description": "Failure to decode image"}, "data": {}}
        concepts = [{"id": f"ai_{w}", "name": w, "value": score, "app_id": "pets"} for w, score in self.ranked(said)]
        return {"id": "o", "status": _OK, "data": {"concepts": concepts}}

    def wrong(self, status: int, why: str) -> Response:
        """Return a status of Clarifai's."""
        code = {401: 11001, 404: 21200}.get(status, 11102)
        return say(status, {"status": {"code": code, "description": why, "details": why}})

    def too_fast(self) -> Response:
        """Return the code that means too many requests, and no header."""
        said = {
            "code": 11005,
            "description": "Making too many requests",
            "details": "exceeded limit of 15 requests per second",
        }
        return say(429, {"status": said})

    def not_ready(self) -> Response:
        """Return what a model that is being deployed gets, with status 200's code in the body."""
        return say(200, {"status": {"code": 21303, "description": "Model is deploying"}})
