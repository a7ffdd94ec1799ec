"""`python clients.py VENDOR URL IMAGE…`: the vendor's own client asks about image files, one line of JSON for each.

It runs in an environment of its own, with what ``NEEDS`` names, and imports nothing of ttca. A line is the answer as
``[[word, score or null], …]``, best first; ``[]`` where nothing was found; ``{"refused": text}`` where it raised.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

KEY, SECRET = "emulated-key-0001", "emulated-secret-0001"
_GENERAL = ("boto3==1.44.8", "google-cloud-vision==3.16.0")
_AZURE = (
    "azure-ai-vision-imageanalysis==1.0.0",
    "azure-ai-vision-face==1.0.0b2",
    "azure-cognitiveservices-vision-customvision==3.1.1",
)
_MODELS = ("openai==3.57.0", "anthropic==2.14.0", "replicate==1.0.7", "huggingface_hub==2.4.0")
_SMALL = ("sightengine==1.4.0", "python-facepp==0.1.0a5", "ximilar-client==1.39.0", "nyckel==0.4.23")
#: What to install for each vendor with a client on PyPI. Hive and Imagga document curl alone, and gradio is started.
NEEDS: dict[str, tuple[str, ...]] = {
    "aws-rekognition": _GENERAL,
    "google-vision": _GENERAL,
    "azure-vision": _AZURE,
    "azure-face": _AZURE,
    "azure-custom-vision": _AZURE,
    "clarifai": ("clarifai-grpc==12.6.0", "requests"),
    "sightengine": _SMALL,
    "facepp": _SMALL,
    "ximilar": _SMALL,
    "roboflow": ("inference-sdk==1.8.3",),
    "nyckel": _SMALL,
    "replicate": _MODELS,
    "huggingface": _MODELS,
    "openai-chat": _MODELS,
    "anthropic-messages": _MODELS,
}
Answer = list[tuple[str, float | None]]


def aws_rekognition(url: str) -> Callable[[Path], Answer]:
    """boto3."""
    import boto3
    from botocore.config import Config

    client = boto3.client(
        "rekognition",
        endpoint_url=url,
        region_name="eu-west-1",
        aws_access_key_id=KEY,
        aws_secret_access_key=SECRET,
        config=Config(retries={"total_max_attempts": 1}),
    )

    def ask(file: Path) -> Answer:
        faces = client.detect_faces(Image={"Bytes": file.read_bytes()}, Attributes=["GENDER"])["FaceDetails"]
        return [(face["Gender"]["Value"], face["Gender"]["Confidence"] / 100) for face in faces]

    return ask


def google_vision(url: str) -> Callable[[Path], Answer]:
    """google-cloud-vision, over REST."""
    from google.auth.credentials import AnonymousCredentials
    from google.cloud import vision_v1
    from google.cloud.vision_v1.services.image_annotator.transports import ImageAnnotatorRestTransport

    scheme, _, host = url.partition("://")
    transport = ImageAnnotatorRestTransport(host=host, url_scheme=scheme, credentials=AnonymousCredentials())
    client = vision_v1.ImageAnnotatorClient(transport=transport)

    def ask(file: Path) -> Answer:
        image = vision_v1.Image(content=file.read_bytes())
        feature = vision_v1.Feature(type_=vision_v1.Feature.Type.LABEL_DETECTION, max_results=10)
        request = vision_v1.AnnotateImageRequest(image=image, features=[feature])
        reply = client.batch_annotate_images(requests=[request], metadata=[("x-goog-api-key", KEY)], retry=None)
        (one,) = reply.responses
        if one.error.code:
            raise RuntimeError(one.error.message)
        return [(label.description, label.score) for label in one.label_annotations]

    return ask


def azure_vision(url: str) -> Callable[[Path], Answer]:
    """azure-ai-vision-imageanalysis."""
    from azure.ai.vision.imageanalysis import ImageAnalysisClient
    from azure.ai.vision.imageanalysis.models import VisualFeatures
    from azure.core.credentials import AzureKeyCredential

    client = ImageAnalysisClient(endpoint=url, credential=AzureKeyCredential(KEY), retry_total=0)

    def ask(file: Path) -> Answer:
        found = client.analyze(image_data=file.read_bytes(), visual_features=[VisualFeatures.TAGS])
        return [(tag.name, tag.confidence) for tag in found.tags.list]

    return ask


def azure_face(url: str) -> Callable[[Path], Answer]:
    """azure-ai-vision-face."""
    from azure.ai.vision.face import FaceClient
    from azure.ai.vision.face.models import (
        FaceAttributeTypeDetection01,
        FaceDetectionModel,
        FaceRecognitionModel,
    )
    from azure.core.credentials import AzureKeyCredential

    client = FaceClient(endpoint=url, credential=AzureKeyCredential(KEY), retry_total=0)

    def ask(file: Path) -> Answer:
        faces = client.detect(
            file.read_bytes(),
            detection_model=FaceDetectionModel.DETECTION01,
            recognition_model=FaceRecognitionModel.RECOGNITION04,
            return_face_id=False,
            return_face_attributes=[FaceAttributeTypeDetection01.GLASSES],
        )
        return [(_text(face.face_attributes.glasses), None) for face in faces]

    return ask


def _text(value: Any) -> str:
    """Return an enumeration's text, or the text."""
    return str(getattr(value, "value", value))


def azure_custom_vision(url: str) -> Callable[[Path], Answer]:
    """azure-cognitiveservices-vision-customvision."""
    from azure.cognitiveservices.vision.customvision.prediction import CustomVisionPredictionClient
    from msrest.authentication import ApiKeyCredentials

    credentials = ApiKeyCredentials(in_headers={"Prediction-key": KEY})
    client = CustomVisionPredictionClient(url, credentials)
    client.config.retry_policy.retries = 0

    def ask(file: Path) -> Answer:
        project = "64b822c5-8082-4b36-a426-225f4f2aa600"
        found = client.classify_image(project, "Iteration1", file.read_bytes())
        return [(tag.tag_name, tag.probability) for tag in found.predictions]

    return ask


def clarifai(url: str) -> Callable[[Path], Answer]:
    """clarifai-grpc: its messages, written and read as the JSON that the REST API documents."""
    import base64

    import requests
    from clarifai_grpc.grpc.api import resources_pb2, service_pb2
    from google.protobuf import json_format

    def ask(file: Path) -> Answer:
        image = resources_pb2.Image(base64=file.read_bytes())
        message = service_pb2.PostModelOutputsRequest(
            user_app_id=resources_pb2.UserAppIDSet(user_id="me", app_id="pets"),
            model_id="pet-model",
            inputs=[resources_pb2.Input(data=resources_pb2.Data(image=image))],
        )
        body = json_format.MessageToDict(message, preserving_proto_field_name=True)
        assert body["inputs"][0]["data"]["image"]["base64"] == base64.b64encode(file.read_bytes()).decode()
        address = f"{url}/v2/users/me/apps/pets/models/pet-model/outputs"
        reply = requests.post(address, json=body, headers={"Authorization": f"Key {KEY}"}, timeout=30)
        found = json_format.Parse(reply.content, service_pb2.MultiOutputResponse())
        if found.status.code != 10000:
            raise RuntimeError(found.outputs[0].status.description if found.outputs else found.status.description)
        return [(concept.name, concept.value) for concept in found.outputs[0].data.concepts]

    return ask


def sightengine(url: str) -> Callable[[Path], Answer]:
    """sightengine, whose client knows one address: it is told another."""
    from sightengine.check import Check

    check = Check(KEY, SECRET, "type")
    check.endpoint = f"{url}/1.0/"

    def ask(file: Path) -> Answer:
        found = check.set_file(str(file))
        if found["status"] != "success":
            raise RuntimeError(found["error"]["message"])
        return _ranked(found["type"])

    return ask


def _ranked(scores: dict[str, float]) -> Answer:
    return sorted(scores.items(), key=lambda pair: -(pair[1] or 0))


def facepp(url: str) -> Callable[[Path], Answer]:
    """python-facepp's engine, which adds the keys and sends the file."""
    from facepplib import FacePP

    client = FacePP(KEY, SECRET, url=url)

    def ask(file: Path) -> Answer:
        data = {"image_file": str(file), "return_attributes": "gender"}
        found = client.engine.request("post", f"{url}/facepp/v3/detect", data=data)
        return [(face["attributes"]["gender"]["value"], None) for face in found["faces"]]

    return ask


def ximilar(url: str) -> Callable[[Path], Answer]:
    """ximilar-client."""
    from ximilar.client import RecognitionClient

    client = RecognitionClient(KEY, endpoint=f"{url}/", resource_name=None)

    def ask(file: Path) -> Answer:
        task = "0a8c8186-aee8-47c8-9eaf-348103feb14d"
        found = client.classify_on_task([{"_file": str(file)}], task_id=task)
        if found is None:
            raise RuntimeError("no answer")
        (record,) = found["records"]
        if record["_status"]["code"] != 200:
            raise RuntimeError(record["_status"]["text"])
        return [(label["name"], label["prob"]) for label in record["labels"]]

    return ask


def roboflow(url: str) -> Callable[[Path], Answer]:
    """inference-sdk."""
    from inference_sdk import InferenceHTTPClient

    client = InferenceHTTPClient(api_url=url, api_key=KEY)
    client.select_api_v0()

    def ask(file: Path) -> Answer:
        found = client.infer(str(file), model_id="image-kinds/2")
        return [(one["class"], one["confidence"]) for one in found["predictions"]]

    return ask


def nyckel(url: str) -> Callable[[Path], Answer]:
    """nyckel."""
    from nyckel import Credentials
    from nyckel.functions.classification.image_classification import ImageClassificationFunction

    function = ImageClassificationFunction("pets", Credentials(KEY, SECRET, url))

    def ask(file: Path) -> Answer:
        (found,) = function.invoke([str(file)])
        return [(found.label_name, found.confidence)]

    return ask


def replicate(url: str) -> Callable[[Path], Answer]:
    """replicate."""
    from replicate.client import Client

    client = Client(api_token=KEY, base_url=url)
    version = "5c7d5dc6dd8bf75c1acaa8565735e7986bc5b66206b55cca93cb72c9bf15ccaa"

    def ask(file: Path) -> Answer:
        with file.open("rb") as opened:
            made = client.predictions.create(version=version, input={"image": opened}, file_encoding_strategy="base64")
        made.wait()
        if made.status != "succeeded":
            raise RuntimeError(made.error)
        return [(one["label"], one["score"]) for one in made.output]

    return ask


def huggingface(url: str) -> Callable[[Path], Answer]:
    """huggingface_hub."""
    from huggingface_hub import InferenceClient

    client = InferenceClient(provider="hf-inference", token=KEY)

    def ask(file: Path) -> Answer:
        found = client.image_classification(file.read_bytes(), model=f"{url}/hf-inference/models/me/pets")
        return [(one.label, one.score) for one in found]

    return ask


def openai_chat(url: str) -> Callable[[Path], Answer]:
    """openai."""
    import base64

    from openai import OpenAI

    client = OpenAI(api_key=KEY, base_url=f"{url}/v1", max_retries=0)

    def ask(file: Path) -> Answer:
        image = {"url": "data:image/png;base64," + base64.b64encode(file.read_bytes()).decode(), "detail": "low"}
        content: Any = [{"type": "text", "text": "cat, dog or bird?"}, {"type": "image_url", "image_url": image}]
        found = client.chat.completions.create(
            model="gpt-4.1-mini-2025-04-14", messages=[{"role": "user", "content": content}], max_completion_tokens=5
        )
        message = found.choices[0].message
        if message.refusal:
            raise RuntimeError(message.refusal)
        return [(_word(message.content or ""), None)]

    return ask


def _word(sentence: str) -> str:
    """Return the last word of a sentence."""
    return sentence.rstrip(".").split()[-1].lower()


def anthropic_messages(url: str) -> Callable[[Path], Answer]:
    """anthropic."""
    import base64

    from anthropic import Anthropic

    client = Anthropic(api_key=KEY, base_url=url, max_retries=0)

    def ask(file: Path) -> Answer:
        data = base64.b64encode(file.read_bytes()).decode()
        source: Any = {"type": "base64", "media_type": "image/png", "data": data}
        content: Any = [{"type": "image", "source": source}, {"type": "text", "text": "cat, dog or bird?"}]
        found = client.messages.create(
            model="claude-haiku-4-5-20251001", max_tokens=5, messages=[{"role": "user", "content": content}]
        )
        if found.stop_reason == "refusal":
            raise RuntimeError("refusal")
        return [(_word(found.content[0].text), None)]

    return ask


def main(vendor: str, url: str, *files: str) -> None:
    """Ask about each file, and write a line of JSON for each."""
    ask = globals()[vendor.replace("-", "_")](url)
    for file in files:
        try:
            said: Any = ask(Path(file))
        except Exception as error:
            said = {"refused": f"{type(error).__name__}: {error}"}
        sys.stdout.write(json.dumps(said) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
