"""Two chat models that look at images and answer in words: OpenAI's chat completions and Anthropic's messages."""

from __future__ import annotations

from typing import Any, ClassVar

from starlette.responses import Response

from benchmarks._vendors.base import KEY, Asked, Vendor, one_of, say

__all__ = ["AnthropicMessages", "OpenAIChat"]


class _Chat(Vendor):
    """What the two have in common."""

    words = ("cat", "dog", "bird")

    def the_part(self, messages: list[dict[str, Any]], kind: str) -> dict[str, Any]:
        """Return the one part of this type in all messages."""
        contents = [message["content"] for message in messages if isinstance(message["content"], list)]
        parts = [part for content in contents for part in content if part["type"] == kind]
        self.demand(len(parts) == 1, "Expected one image")
        found: dict[str, Any] = parts[0]
        return found

    def sentence(self, label: int) -> str:
        """Return a class as a chat model writes it: not twice the same way."""
        word = self.words[label]
        return (f"{word.capitalize()}.", f"It is a {word}.")[label % 2]


class OpenAIChat(_Chat):
    """Tells one word, sometimes in a sentence; a refusal is a field of its own."""

    name = "openai-chat"
    document = "https://platform.openai.com/docs/api-reference/chat/create"
    model: ClassVar[str] = "gpt-4.1-mini-2025-04-14"

    def answer(self, asked: Asked) -> Response:
        """Answer chat/completions."""
        self.demand(asked.method == "POST" and asked.path == "/v1/chat/completions", "Unknown request URL", 404)
        self.demand(asked.headers.get("authorization") == f"Bearer {KEY}", "Incorrect API key provided", 401)
        self.demand_query(asked, {})
        image = {"url": str, "detail?": one_of("auto", "low", "high")}
        parts = [({"type": "text", "text": str}, {"type": "image_url", "image_url": image})]
        roles = one_of("system", "developer", "user")
        found = self.demand_json(
            asked,
            {
                "model": self.model,
                "messages": [{"role": roles, "content": (str, parts)}],
                "temperature?": (int, float),
                "max_tokens?": int,
                "max_completion_tokens?": int,
                "seed?": int,
                "n?": 1,
                "store?": bool,
                "stream?": False,
            },
        )
        url = self.the_part(found["messages"], "image_url")["image_url"]["url"]
        self.admit()
        (said,) = self.look(self.from_data_url(url))
        if said.label < 0:
            spoken = {"content": None, "refusal": "I'm sorry, I can't help with that."}
        else:
            spoken = {"content": self.sentence(said.label), "refusal": None}
        message: dict[str, Any] = {"role": "assistant", **spoken, "annotations": []}
        return say(
            200,
            {
                "id": "chatcmpl-1",
                "object": "chat.completion",
                "created": 1,
                "model": self.model,
                "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}],
                "usage": {"prompt_tokens": 90, "completion_tokens": 3, "total_tokens": 93},
            },
            x_ratelimit_limit_requests="500",
            x_ratelimit_remaining_requests="499",
            x_ratelimit_reset_requests="120ms",
        )

    def wrong(self, status: int, why: str) -> Response:
        """Return an error."""
        return self._error(status, why, "invalid_request_error", None)

    def _error(self, status: int, why: str, kind: str, code: str | None, **headers: str) -> Response:
        return say(status, {"error": {"message": why, "type": kind, "param": None, "code": code}}, **headers)

    def too_fast(self) -> Response:
        """Return what one request above the rate gets."""
        said = "Rate limit reached for requests per minute. Please try again in 1s."
        return self._error(429, said, "requests", "rate_limit_exceeded", Retry_After="1", Retry_After_Ms="400")

    def used_up(self) -> Response:
        """Return what an account without money gets, with the same status."""
        said = "You exceeded your current quota, please check your plan and billing details."
        return self._error(429, said, "insufficient_quota", "insufficient_quota")

    def not_ready(self) -> Response:
        """Return what an overloaded engine says."""
        said = "The engine is currently overloaded, please try again later"
        return self._error(503, said, "server_error", None, Retry_After="1")


class AnthropicMessages(_Chat):
    """Tells one word, sometimes in a sentence; a refusal is a reason to stop."""

    name = "anthropic-messages"
    document = "https://platform.claude.com/docs/en/api/messages"
    model: ClassVar[str] = "claude-haiku-4-5-20251001"

    def answer(self, asked: Asked) -> Response:
        """Answer messages."""
        self.demand(asked.method == "POST" and asked.path == "/v1/messages", "Not found", 404)
        given = asked.headers.get("authorization", "").removeprefix("Bearer ") or asked.headers.get("x-api-key")
        self.demand(given == KEY, "invalid x-api-key", 401)
        version = asked.headers.get("anthropic-version")
        self.demand(version in ("2023-06-01", "2026-10-21"), "anthropic-version: header is required")
        # The newer version takes no temperature.
        sampling = {"temperature?": (int, float)} if version == "2023-06-01" else {}
        self.demand_query(asked, {})
        source = {"type": "base64", "media_type": one_of("image/png", "image/jpeg"), "data": str}
        parts = [({"type": "text", "text": str}, {"type": "image", "source": source})]
        found = self.demand_json(
            asked,
            {
                "model": self.model,
                "max_tokens": int,
                "messages": [{"role": "user", "content": parts}],
                "system?": str,
                "stream?": False,
                **sampling,
            },
        )
        data = self.the_part(found["messages"], "image")["source"]["data"]
        self.admit()
        (said,) = self.look(self.from_base64(data))
        content = [] if said.label < 0 else [{"type": "text", "text": self.sentence(said.label)}]
        return say(
            200,
            {
                "id": "msg_1",
                "type": "message",
                "role": "assistant",
                "model": self.model,
                "content": content,
                "stop_reason": "refusal" if said.label < 0 else "end_turn",
                "stop_sequence": None,
                "usage": {"input_tokens": 90, "output_tokens": 3},
            },
        )

    def wrong(self, status: int, why: str) -> Response:
        """Return an error."""
        kind = {401: "authentication_error", 404: "not_found_error"}.get(status, "invalid_request_error")
        return self._error(status, kind, why)

    def _error(self, status: int, kind: str, why: str, **headers: str) -> Response:
        said = {"type": "error", "error": {"type": kind, "message": why}, "request_id": "req_1"}
        return say(status, said, **headers)

    def too_fast(self) -> Response:
        """Return what one request above the rate gets."""
        return self._error(429, "rate_limit_error", "This request would exceed your rate limit.", Retry_After="1")

    def not_ready(self) -> Response:
        """Return what an API under heavy load says, with a status of its own."""
        return self._error(529, "overloaded_error", "Overloaded")
