"""Google Cloud Vision's images:annotate: many images a request, a key in the query or a header, errors per image."""

from __future__ import annotations

from starlette.responses import Response

from benchmarks._vendors.base import KEY, Asked, Said, Vendor, one_of, say

__all__ = ["GoogleVision"]

_LABELS = 4  # LABEL_DETECTION among the enum's numbers


class GoogleVision(Vendor):
    """Tells labels and scores, some of them of things that nobody asked about."""

    name = "google-vision"
    document = "https://cloud.google.com/vision/docs/reference/rest/v1/images/annotate"
    words = ("Cat", "Dog", "Bird")
    most_images = 16

    def answer(self, asked: Asked) -> Response:
        """Answer images:annotate."""
        self.demand(asked.method == "POST" and asked.path == "/v1/images:annotate", "Not found", 404)
        query = self.demand_query(asked, {"key?": str, "$alt?": str, "alt?": "json", "prettyPrint?": str})
        given = query.get("key") or asked.headers.get("x-goog-api-key")
        self.demand(given == KEY, "API key not valid. Please pass a valid API key.")
        found = self.demand_json(
            asked,
            {
                "requests": [
                    {
                        "image": {"content": str},
                        "features": [{"type": one_of("LABEL_DETECTION", _LABELS), "maxResults?": int, "model?": str}],
                        "imageContext?": {"languageHints?": [str]},
                    }
                ],
                "parent?": str,
            },
        )
        self.demand(len(found["requests"]) <= self.most_images, "Too many images per request.")
        self.admit()
        images = [self.from_base64(one["image"]["content"]) for one in found["requests"]]
        most = [one["features"][0].get("maxResults", 10) for one in found["requests"]]
        answers = [self._one(said, n) for said, n in zip(self.look(*images), most, strict=True)]
        return say(200, {"responses": answers})

    def _one(self, said: Said, most: int) -> dict[str, object]:
        if said.scores is None:
            return {"error": {"code": 3, "message": "Bad image data."}}
        labels = [
            {"mid": f"/m/0{word.lower()}", "description": word, "score": score, "topicality": score}
            for word, score in [*self.ranked(said), ("Whiskers", 0.51)]
        ]
        labels.sort(key=lambda label: -float(str(label["score"])))
        return {"labelAnnotations": labels[:most]}

    def wrong(self, status: int, why: str) -> Response:
        """Return a google.rpc.Status."""
        return say(status, {"error": {"code": status, "message": why, "status": "INVALID_ARGUMENT"}})

    def too_fast(self) -> Response:
        """Return what a full quota of a minute gets."""
        said = "Quota exceeded for quota metric 'Requests' and limit 'Requests per minute'."
        return say(429, {"error": {"code": 429, "message": said, "status": "RESOURCE_EXHAUSTED"}})

    def not_ready(self) -> Response:
        """Return the older form of the same, which is a 403 that names its reason."""
        one = {"domain": "usageLimits", "reason": "rateLimitExceeded", "message": "Rate Limit Exceeded"}
        return say(
            403,
            {
                "error": {
                    "code": 403,
                    "message": "Rate Limit Exceeded",
                    "errors": [one],
                    "status": "RESOURCE_EXHAUSTED",
                }
            },
        )
