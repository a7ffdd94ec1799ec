"""Three services of Azure: Image Analysis 4.0, Face detection, Custom Vision prediction. Keys travel in headers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from starlette.responses import Response

from benchmarks._vendors.base import KEY, Asked, File, Vendor, one_of, say

__all__ = ["AzureCustomVision", "AzureFace", "AzureVision"]


class _Azure(Vendor):
    """What the three have in common."""

    header: ClassVar[str] = "ocp-apim-subscription-key"

    def admit_key(self, asked: Asked) -> None:
        """Refuse a request without the key."""
        self.demand(asked.headers.get(self.header) == KEY, "Access denied due to invalid subscription key.", 401)

    def wrong(self, status: int, why: str) -> Response:
        """Return the error as all three write it."""
        code = {401: "401", 404: "ResourceNotFound"}.get(status, "InvalidRequest")
        return say(status, {"error": {"code": code, "message": why}})

    def too_fast(self) -> Response:
        """Return what a full tier gets: when to come back is in the header, too."""
        said = "Requests have exceeded the call rate limit of your current tier. Please retry after 1 second."
        return say(429, {"error": {"code": "429", "message": said}}, Retry_After="1")

    def image_of(self, asked: Asked) -> bytes:
        """Return the body that is the image."""
        self.demand(asked.content_type == "application/octet-stream", "UnsupportedMediaType", 415)
        return asked.body


class AzureVision(_Azure):
    """Tags with confidences, among them some that nobody asked about; an image below 50 × 50 is refused."""

    name = "azure-vision"
    document = "https://learn.microsoft.com/rest/api/computervision/image-analysis/analyze-image"
    words = ("cat", "dog", "bird")

    def answer(self, asked: Asked) -> Response:
        """Answer imageanalysis:analyze."""
        self.demand(asked.path == "/computervision/imageanalysis:analyze" and asked.method == "POST", "Not found", 404)
        self.admit_key(asked)
        self.demand_query(
            asked,
            {
                "api-version": one_of("2024-02-01", "2023-10-01"),
                "features": "tags",
                "language?": str,
                "model-version?": str,
                "gender-neutral-caption?": str,
            },
        )
        file = self.image_of(asked)
        self.admit()
        levels = self.levels(file)
        self.demand(min(levels.shape[:2]) >= 50, "The image size is not allowed to be smaller than 50 x 50.")
        (said,) = self.look(levels)
        values = []
        if said.scores is not None:
            values = [{"name": word, "confidence": score} for word, score in self.ranked(said)]
            values.append({"name": "animal", "confidence": 0.99})
            values.sort(key=lambda value: -float(str(value["confidence"])))
        height, width = levels.shape[:2]
        return say(
            200,
            {
                "modelVersion": "2023-10-01",
                "metadata": {"width": width, "height": height},
                "tagsResult": {"values": values},
            },
        )


class AzureFace(_Azure):
    """Tells the kind of glasses of every face, without a score."""

    name = "azure-face"
    document = "https://learn.microsoft.com/rest/api/face/face-detection-operations/detect"
    words = ("NoGlasses", "ReadingGlasses", "Sunglasses", "SwimmingGoggles")

    def answer(self, asked: Asked) -> Response:
        """Answer detect."""
        paths = [f"/face/v{version}/detect" for version in ("1.0", "1.1-preview.1", "1.2-preview.1", "1.2")]
        self.demand(asked.method == "POST" and asked.path in paths, "Not found", 404)
        self.admit_key(asked)
        self.demand_query(
            asked,
            {
                "returnFaceAttributes": "glasses",
                "returnFaceId?": one_of("false", "False"),
                "detectionModel?": one_of("detection_01", "detection_02", "detection_03"),
                "recognitionModel?": one_of(*(f"recognition_0{i}" for i in range(1, 5))),
                "returnFaceLandmarks?": one_of("false", "False"),
                "returnRecognitionModel?": one_of("false", "False"),
                "faceIdTimeToLive?": str,
            },
        )
        file = self.image_of(asked)
        self.admit()
        (said,) = self.look(self.levels(file))
        box = {"top": 8, "left": 8, "width": 48, "height": 48}
        faces = [{"faceRectangle": box, "faceAttributes": {"glasses": self.words[said.label]}}]
        return say(200, [] if said.label < 0 else faces)


class AzureCustomVision(_Azure):
    """Tells a probability for each of a project's tags."""

    name = "azure-custom-vision"
    document = "https://learn.microsoft.com/rest/api/customvision/prediction/classify-image/classify-image"
    words = ("ripe", "unripe", "overripe")
    header = "prediction-key"
    project: ClassVar[str] = "64b822c5-8082-4b36-a426-225f4f2aa600"
    fills: ClassVar[Mapping[str, str]] = {"YOUR-PROJECT-ID": project, "YOUR-PUBLISHED-NAME": "Iteration1"}

    def answer(self, asked: Asked) -> Response:
        """Answer ClassifyImage, and the form of it that keeps nothing."""
        path = f"/prediction/{self.project}/classify/iterations/Iteration1/image"
        known = [f"/customvision/v3.{minor}{path.lower()}" for minor in (0, 1)]
        asks = asked.path.lower().removesuffix("/nostore")
        self.demand(asked.method == "POST" and asks in known, "Not found", 404)
        self.admit_key(asked)
        self.demand_query(asked, {"application?": str})
        if asked.content_type == "multipart/form-data":
            form = self.demand_form(asked, {"imageData": File})
            file = form["imageData"].content
        else:
            file = self.image_of(asked)
        self.admit()
        (said,) = self.look(self.levels(file))
        if said.scores is None:
            # The project's tag for whatever is none of its classes.
            ranked = [("Negative", 1.0), *((word, 0.0) for word in self.words)]
        else:
            ranked = [*self.ranked(said), ("Negative", 0.0)]
        tags = [{"probability": p, "tagId": self.project, "tagName": w, "tagType": "Regular"} for w, p in ranked]
        head = {"id": self.project, "project": self.project, "iteration": self.project}
        return say(200, {**head, "created": "2026-01-01T00:00:00.000Z", "predictions": tags})

    def wrong(self, status: int, why: str) -> Response:
        """Return the error as Custom Vision writes it."""
        return say(status, {"code": "BadRequestImageFormat" if status == 400 else "NotFound", "message": why})
