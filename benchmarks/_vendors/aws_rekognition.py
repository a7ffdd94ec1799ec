"""AWS Rekognition's DetectFaces: JSON 1.1, Signature Version 4, throttling told with status 400."""

from __future__ import annotations

from typing import ClassVar

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from starlette.responses import Response

from benchmarks._vendors.base import KEY, SECRET, Asked, Vendor, one_of, say

__all__ = ["AwsRekognition"]

_TARGET = "RekognitionService.DetectFaces"
_ATTRIBUTES = ("DEFAULT", "ALL", "GENDER", "AGE_RANGE", "BEARD", "EMOTIONS", "EYEGLASSES", "SMILE", "SUNGLASSES")


class AwsRekognition(Vendor):
    """Tells the gender of every face, with the confidence in percent of the one that it names."""

    name = "aws-rekognition"
    document = "https://docs.aws.amazon.com/rekognition/latest/APIReference/API_DetectFaces.html"
    words = ("Female", "Male")
    secret = f"{KEY} {SECRET}"
    region: ClassVar[str] = "eu-west-1"

    def answer(self, asked: Asked) -> Response:
        """Answer DetectFaces."""
        self.demand(asked.method == "POST" and asked.path == "/", "UnknownOperationException", 404)
        self._check_signature(asked)
        self.demand(asked.headers.get("x-amz-target") == _TARGET, "UnknownOperationException")
        self.demand_query(asked, {})
        found = self.demand_json(
            asked,
            {"Image": {"Bytes": str}, "Attributes?": [one_of(*_ATTRIBUTES)]},
            media="application/x-amz-json-1.1",
        )
        self.admit()
        (said,) = self.look(self.from_base64(found["Image"]["Bytes"]))
        faces = []
        if said.scores is not None:
            (word, share), *_ = self.ranked(said)
            box = {"Width": 0.5, "Height": 0.5, "Left": 0.25, "Top": 0.25}
            faces.append({"BoundingBox": box, "Confidence": 99.9})
            if {"GENDER", "ALL"} & set(found.get("Attributes", [])):
                faces[0]["Gender"] = {"Value": word, "Confidence": 100 * share}
        return say(200, {"FaceDetails": faces}, x_amzn_RequestId="emulated")

    def _check_signature(self, asked: Asked) -> None:
        """Refuse what botocore's own signer would not have signed so."""
        said = asked.headers.get("authorization", "")
        self.demand(said.startswith("AWS4-HMAC-SHA256 "), "MissingAuthenticationTokenException", 400)
        parts = dict(part.partition("=")[::2] for part in said.removeprefix("AWS4-HMAC-SHA256 ").split(", "))
        self.demand({"Credential", "SignedHeaders", "Signature"} == set(parts), "IncompleteSignatureException")
        access, day, region, service, last = (parts["Credential"].split("/") + [""] * 5)[:5]
        moment = asked.headers.get("x-amz-date", "")
        scoped = (region, service, last) == (self.region, "rekognition", "aws4_request")
        self.demand(access == KEY and scoped and moment.startswith(day), "UnrecognizedClientException")
        signed = parts["SignedHeaders"].split(";")
        self.demand({"host", "x-amz-date", "x-amz-target"} <= set(signed), "IncompleteSignatureException")
        request = AWSRequest(
            asked.method, asked.url, {n: asked.headers[n] for n in signed if n in asked.headers}, asked.body
        )
        request.context["timestamp"] = moment
        signer = SigV4Auth(Credentials(KEY, SECRET), service, region)
        canonical = signer.canonical_request(request)
        wanted = signer.signature(signer.string_to_sign(request, canonical), request)
        self.demand(wanted == parts["Signature"], "InvalidSignatureException")

    def wrong(self, status: int, why: str) -> Response:
        """Return an exception as JSON 1.1 tells it."""
        kind = why if why.endswith("Exception") else "InvalidParameterException"
        return say(status, {"__type": kind, "message": why}, x_amzn_RequestId="emulated")

    def bad_image(self) -> Response:
        """Return what a file that is no image gets."""
        return self.wrong(400, "InvalidImageFormatException")

    def too_fast(self) -> Response:
        """Return the exception, with status 400 and no header that says when."""
        return say(400, {"__type": "ThrottlingException", "message": "Rate exceeded"}, x_amzn_RequestId="emulated")

    def not_ready(self) -> Response:
        """Return what DetectFaces throws where a limit of the service, not of the account, is met."""
        kind = "ProvisionedThroughputExceededException"
        return say(400, {"__type": kind, "message": "Try again later"}, x_amzn_RequestId="emulated")
