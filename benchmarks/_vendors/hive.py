"""Hive's synchronous task: a file in a form, a token, classes and scores for every frame."""

from __future__ import annotations

from typing import Any

from starlette.responses import Response

from benchmarks._vendors.base import KEY, Asked, File, Vendor, say

__all__ = ["Hive"]


class Hive(Vendor):
    """Tells the scores of one head among those of others: what Hive calls a class is of several questions."""

    name = "hive"
    document = "https://docs.thehive.ai/reference/submit-a-task-synchronously"
    words = ("ai_generated", "not_ai_generated")
    refuses = False

    def answer(self, asked: Asked) -> Response:
        """Answer task/sync."""
        self.demand(asked.method == "POST" and asked.path == "/api/v2/task/sync", "Not found", 404)
        scheme, _, token = asked.headers.get("authorization", "").partition(" ")
        self.demand(scheme.lower() == "token" and token == KEY, "Invalid token", 403)
        self.demand_query(asked, {})
        form = self.demand_form(asked, {"media": File, "options?": str, "metadata?": str})
        self.demand(form["media"].content_type.startswith("image/"), "media is no image")
        self.admit()
        (said,) = self.look(self.levels(form["media"].content))
        answers = [*self.ranked(said), ("none", 0.97), ("midjourney", 0.03)]
        classes = [{"class": word, "score": share} for word, share in answers]
        response: dict[str, Any] = {"input": {"id": "i", "model": "ai_image", "media": {"type": "image"}}, "output": []}
        response["output"] = [{"time": 0, "classes": classes}]
        one = {"status": {"code": "0", "message": "SUCCESS"}, "response": response}
        return say(200, {"id": "t", "code": 200, "project_id": 1, "user_id": 1, "status": [one], "from_cache": False})

    def wrong(self, status: int, why: str) -> Response:
        """Return a status with a message."""
        return say(status, {"status": status, "message": why})

    def too_fast(self) -> Response:
        """Return what a request above the project's rate gets."""
        return say(429, {"status": 429, "message": "Too Many Requests", "return_code": 9}, Retry_After="1")
