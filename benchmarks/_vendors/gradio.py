"""gradio's queue: a call gets an event, whose answer comes as server-sent events."""

from __future__ import annotations

import json
import uuid
from pathlib import Path
from typing import Any

from starlette.responses import Response

from benchmarks._vendors.base import KEY, Asked, Behavior, Said, Vendor, say

__all__ = ["Gradio"]


class Gradio(Vendor):
    """Tells what a Label shows: the best label, and confidences. A restart forgets the queue, and so does reading."""

    name = "gradio"
    document = "https://www.gradio.app/guides/querying-gradio-apps-with-curl"
    words = ("cat", "dog", "bird")

    def __init__(self, folder: Path, behavior: Behavior | None = None) -> None:
        super().__init__(folder, behavior)
        self._events: dict[str, str] = {}

    def answer(self, asked: Asked) -> Response:
        """Answer call and the events of a call."""
        start = "/gradio_api/call/predict"
        self.demand(asked.headers.get("authorization") == f"Bearer {KEY}", "Unauthorized", 401)
        self.demand_query(asked, {})
        if asked.method == "GET" and asked.path.startswith(f"{start}/"):
            return self._read(Path(asked.path).name)
        self.demand(asked.method == "POST" and asked.path == start, "Not Found", 404)
        image = {"url": str, "path?": (str, None), "orig_name?": str, "mime_type?": str, "meta?": {"_type": str}}
        found = self.demand_json(asked, {"data": [image], "session_hash?": str})
        self.demand(len(found["data"]) == 1, "needed 1 input")
        self.admit()
        (said,) = self.look(self.from_data_url(found["data"][0]["url"]))
        event = uuid.uuid4().hex
        self._events[event] = self._stream(said)
        return say(200, {"event_id": event})

    def _read(self, event: str) -> Response:
        stream = self._events.pop(event, None)
        self.demand(stream is not None, "Session not found.", 404)
        return Response(stream, 200, media_type="text/event-stream")

    def _stream(self, said: Said) -> str:
        if said.scores is None:
            # What gr.Error("No face detected") puts into the stream.
            return 'event: error\ndata: {"error": "No face detected", "visible": true, "title": "Error"}\n\n'
        ranked: list[dict[str, Any]] = [{"label": w, "confidence": s} for w, s in self.ranked(said)]
        data = json.dumps([{"label": ranked[0]["label"], "confidences": ranked}])
        return f"event: heartbeat\ndata: null\n\nevent: complete\ndata: {data}\n\n"

    def wrong(self, status: int, why: str) -> Response:
        """Return what FastAPI says."""
        return say(status, {"detail": why})

    def too_fast(self) -> Response:
        """Return what a full queue says."""
        return say(503, {"detail": "Queue is full. Max size is 32 and size is 32."})
