"""Nyckel's invoke: OAuth client credentials, a data URL in JSON, one label with its confidence."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from starlette.responses import Response

from benchmarks._vendors.base import KEY, SECRET, Asked, Behavior, Vendor, say

__all__ = ["Nyckel"]


class Nyckel(Vendor):
    """Tells one label and its confidence. A token is good for a while, and a restart forgets none."""

    name = "nyckel"
    document = "https://www.nyckel.com/docs"
    words = ("cat", "dog", "bird")
    secret = f"{KEY} {SECRET}"
    refuses = False
    fills: ClassVar[Mapping[str, str]] = {"YOUR-FUNCTION": "pets"}
    #: Seconds for which a token is good; the document says a day or an hour.
    lasts_s: ClassVar[int] = 3600

    def __init__(self, folder: Path, behavior: Behavior | None = None) -> None:
        super().__init__(folder, behavior)
        self._tokens = folder / "tokens"
        self._tokens.mkdir(exist_ok=True)

    def answer(self, asked: Asked) -> Response:
        """Answer connect/token and invoke."""
        if asked.path == "/connect/token" and asked.method == "POST":
            return self._token(asked)
        if asked.method == "GET" and asked.path == "/v1/functions/pets":
            self._check_token(asked)
            return say(200, {"id": "function_pets", "name": "pets", "input": "Image", "output": "Classification"})
        self.demand(asked.method == "POST" and asked.path == "/v1/functions/pets/invoke", "Not found", 404)
        self._check_token(asked)
        query = self.demand_query(
            asked, {"labelCount?": str, "includeMetadata?": str, "capture?": str, "externalId?": str, "modelId?": str}
        )
        found = self.demand_json(asked, {"data": str})
        self.admit()
        (said,) = self.look(self.from_data_url(found["data"]))
        labels = [{"labelName": word, "confidence": share} for word, share in self.ranked(said)]
        answer: dict[str, object] = {**labels[0], "labelId": f"label_{said.label}"}
        if query.get("labelCount", "1") != "1":
            answer["labelConfidences"] = labels[: int(query["labelCount"])]
        return say(200, answer)

    def _token(self, asked: Asked) -> Response:
        self.demand_query(asked, {})
        form = self.demand_form(
            asked,
            {"grant_type": "client_credentials", "client_id": str, "client_secret": str, "scope?": str},
            media="application/x-www-form-urlencoded",
        )
        self.demand((form["client_id"], form["client_secret"]) == (KEY, SECRET), "invalid_client")
        token = f"emulated-token-{time.time_ns()}"
        (self._tokens / token).write_text(str(time.time() + self.lasts_s), encoding="utf-8")
        return say(200, {"access_token": token, "token_type": "Bearer", "expires_in": self.lasts_s})

    def _check_token(self, asked: Asked) -> None:
        token = Path(asked.headers.get("authorization", "").removeprefix("Bearer ")).name
        good = self._tokens / token
        known = bool(token) and good.is_file() and float(good.read_text(encoding="utf-8")) > time.time()
        self.demand(known, "Unauthorized", 401)

    def wrong(self, status: int, why: str) -> Response:
        """Return an error."""
        return say(status, {"error": why} if status == 400 else {"message": why})

    def too_fast(self) -> Response:
        """Return what one request above the rate gets."""
        return say(429, {"message": "Rate limit exceeded"})
