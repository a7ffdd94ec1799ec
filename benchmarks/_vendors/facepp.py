"""Face++'s detect: a form with two keys, throttling told with status 403."""

from __future__ import annotations

from starlette.responses import Response

from benchmarks._vendors.base import KEY, SECRET, Asked, Vendor, one_of, say

__all__ = ["FacePlusPlus"]


class FacePlusPlus(Vendor):
    """Tells the gender of every face, without a score; an image below 48 × 48 is refused."""

    name = "facepp"
    document = "https://console.faceplusplus.com/documents/5679127"
    words = ("Female", "Male")
    secret = f"{KEY} {SECRET}"

    def answer(self, asked: Asked) -> Response:
        """Answer detect."""
        self.demand(asked.method == "POST" and asked.path == "/facepp/v3/detect", "API_NOT_FOUND", 404)
        self.demand_query(asked, {})
        shape = {
            "api_key": str,
            "api_secret": str,
            "return_attributes": "gender",
            "return_landmark?": one_of("0", "1", "2"),
            "calculate_all?": one_of("0", "1"),
        }
        image = {"file": "image_file", "text": "image_base64"}
        form = self.demand_upload(asked, shape, **image)
        self.demand((form["api_key"], form["api_secret"]) == (KEY, SECRET), "AUTHENTICATION_ERROR", 401)
        self.admit()
        levels = self.from_upload(form, **image)
        self.demand(min(levels.shape[:2]) >= 48, "INVALID_IMAGE_SIZE: image_file")
        (said,) = self.look(levels)
        box = {"top": 8, "left": 8, "width": 48, "height": 48}
        face = {"face_token": "t", "face_rectangle": box, "attributes": {"gender": {"value": self.words[said.label]}}}
        faces = [] if said.label < 0 else [face]
        return say(
            200,
            {"request_id": "r", "time_used": 9, "image_id": "i", "faces": faces, "face_num": len(faces)},
        )

    def wrong(self, status: int, why: str) -> Response:
        """Return an error message."""
        return say(status, {"request_id": "r", "time_used": 1, "error_message": why})

    def bad_image(self) -> Response:
        """Return what a file that is no image gets."""
        return self.wrong(400, "IMAGE_ERROR_UNSUPPORTED_FORMAT: image_file")

    def too_fast(self) -> Response:
        """Return what one request more than the account may have in flight gets."""
        return say(403, {"request_id": "r", "time_used": 1, "error_message": "CONCURRENCY_LIMIT_EXCEEDED"})

    def not_ready(self) -> Response:
        """Return the same: the document knows no other."""
        return self.too_fast()
