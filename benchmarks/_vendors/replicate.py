"""Replicate's predictions: created with status 201, then polled at the address that the answer names."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from starlette.responses import Response

from benchmarks._vendors.base import KEY, Asked, Behavior, Said, Vendor, say

__all__ = ["Replicate"]


class Replicate(Vendor):
    """Tells what a model put out, once it has. Predictions outlive a restart."""

    name = "replicate"
    document = "https://replicate.com/docs/reference/http#predictions.create"
    words = ("cat", "dog", "bird")
    version: ClassVar[str] = "5c7d5dc6dd8bf75c1acaa8565735e7986bc5b66206b55cca93cb72c9bf15ccaa"
    fills: ClassVar[Mapping[str, str]] = {"THE-MODEL'S-VERSION": version}
    #: Seconds until a prediction has succeeded.
    takes_s: ClassVar[float] = 0.05

    def __init__(self, folder: Path, behavior: Behavior | None = None) -> None:
        super().__init__(folder, behavior)
        self._kept = folder / "predictions"
        self._kept.mkdir(exist_ok=True)

    def answer(self, asked: Asked) -> Response:
        """Answer predictions.create and predictions.get."""
        known = asked.headers.get("authorization") in (f"Bearer {KEY}", f"Token {KEY}")
        self.demand(known, "You did not pass a valid authentication token", 401)
        self.demand_query(asked, {})
        if asked.method == "GET" and asked.path.startswith("/v1/predictions/"):
            return self._get(asked, Path(asked.path).name)
        self.demand(asked.method == "POST" and asked.path == "/v1/predictions", "Not found", 404)
        found = self.demand_json(
            asked, {"version": self.version, "input": {"image": str}, "stream?": bool, "webhook?": str}
        )
        self.admit()
        (said,) = self.look(self.from_data_url(found["input"]["image"]))
        name = uuid.uuid4().hex
        outcome = {"created": time.time(), **self._outcome(said)}
        (self._kept / name).write_text(json.dumps(outcome), encoding="utf-8")
        return say(201, self._message(asked, name, {"status": "starting", "output": None, "error": None}))

    def _get(self, asked: Asked, name: str) -> Response:
        file = self._kept / name
        self.demand(file.is_file(), "Prediction not found", 404)
        outcome = json.loads(file.read_text(encoding="utf-8"))
        if time.time() < outcome.pop("created") + self.takes_s:
            outcome = {"status": "processing", "output": None, "error": None}
        return say(200, self._message(asked, name, outcome))

    def _outcome(self, said: Said) -> dict[str, Any]:
        if said.scores is None:
            return {"status": "failed", "output": None, "error": "No face detected"}
        output = [{"label": word, "score": score} for word, score in self.ranked(said)]
        return {"status": "succeeded", "output": output, "error": None}

    def _message(self, asked: Asked, name: str, outcome: dict[str, Any]) -> dict[str, Any]:
        home = asked.url.partition("/v1/")[0]
        urls = {"get": f"{home}/v1/predictions/{name}", "cancel": f"{home}/v1/predictions/{name}/cancel"}
        head = {"id": name, "model": "me/pets", "version": self.version, "urls": urls, "logs": "", "input": {}}
        return {**head, "created_at": "2026-01-01T00:00:00.000Z", "data_removed": False, "metrics": {}, **outcome}

    def wrong(self, status: int, why: str) -> Response:
        """Return a problem."""
        return say(status, {"title": why, "detail": why, "status": status})

    def too_fast(self) -> Response:
        """Return what one prediction above the rate gets: when to come back is in the text alone."""
        said = "Request was throttled. Your rate limit resets in ~1s."
        return say(429, {"title": "Too many requests", "detail": said, "status": 429})
