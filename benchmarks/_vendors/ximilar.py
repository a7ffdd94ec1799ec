"""Ximilar's classify: many records a request, a status for each, no throttling by status but by its own code."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from starlette.responses import Response

from benchmarks._vendors.base import KEY, Asked, Said, Vendor, say

__all__ = ["Ximilar"]


class Ximilar(Vendor):
    """Tells the labels of a task with their probabilities, and the best one."""

    name = "ximilar"
    document = "https://docs.ximilar.com/platform/classification"
    words = ("cat", "dog", "bird")
    most_images = 10
    task: ClassVar[str] = "0a8c8186-aee8-47c8-9eaf-348103feb14d"
    fills: ClassVar[Mapping[str, str]] = {"YOUR-TASK-ID": task}

    def answer(self, asked: Asked) -> Response:
        """Answer classify."""
        path = asked.path.rstrip("/")
        self.demand(asked.method == "POST" and path == "/recognition/v2/classify", "Not found.", 404)
        self.demand(asked.headers.get("authorization") == f"Token {KEY}", "Invalid token.", 401)
        self.demand_query(asked, {})
        found = self.demand_json(
            asked,
            {
                "task_id": self.task,
                "records": [{"_base64": str, "_id?": str, "_file?": str}],
                "version?": (int, None),
                "store_images?": (bool, None),
            },
        )
        self.demand(len(found["records"]) <= self.most_images, "Too many records.")
        self.admit()
        images = [self.from_base64(one["_base64"]) for one in found["records"]]
        records = [self._one(said) for said in self.look(*images)]
        return say(
            200,
            {
                "task_id": self.task,
                "records": records,
                "status": {"code": 200, "text": "OK", "request_id": "r"},
                "statistics": {"processing time": 0.08},
            },
        )

    def _one(self, said: Said) -> dict[str, object]:
        if said.scores is None:
            return {"_status": {"code": 400, "text": "Not possible to read the image."}}
        labels = [{"name": word, "prob": score, "id": word} for word, score in self.ranked(said)]
        return {"_status": {"code": 200, "text": "OK"}, "best_label": labels[0], "labels": labels}

    def wrong(self, status: int, why: str) -> Response:
        """Return a status."""
        return say(status, {"status": {"code": status, "text": why, "request_id": "r"}})

    def too_fast(self) -> Response:
        """Return what too many requests at once get."""
        return self.wrong(429, "Too many requests.")
