"""Emulators of vendors' image APIs that no package serves, each made from its vendor's document."""

from __future__ import annotations

from benchmarks._vendors.aws_rekognition import AwsRekognition
from benchmarks._vendors.azure import AzureCustomVision, AzureFace, AzureVision
from benchmarks._vendors.base import Vendor
from benchmarks._vendors.chat import AnthropicMessages, OpenAIChat
from benchmarks._vendors.clarifai import Clarifai
from benchmarks._vendors.facepp import FacePlusPlus
from benchmarks._vendors.google_vision import GoogleVision
from benchmarks._vendors.gradio import Gradio
from benchmarks._vendors.hive import Hive
from benchmarks._vendors.huggingface import HuggingFace
from benchmarks._vendors.imagga import Imagga
from benchmarks._vendors.nyckel import Nyckel
from benchmarks._vendors.replicate import Replicate
from benchmarks._vendors.roboflow import Roboflow
from benchmarks._vendors.sightengine import Sightengine
from benchmarks._vendors.ximilar import Ximilar

__all__ = ["EMULATORS"]

#: The emulators by the name of their table.
EMULATORS: dict[str, type[Vendor]] = {
    vendor.name: vendor
    for vendor in (
        AwsRekognition,
        GoogleVision,
        AzureVision,
        AzureFace,
        AzureCustomVision,
        Clarifai,
        FacePlusPlus,
        Sightengine,
        Imagga,
        Hive,
        Ximilar,
        Roboflow,
        Nyckel,
        Replicate,
        Gradio,
        HuggingFace,
        OpenAIChat,
        AnthropicMessages,
    )
}
