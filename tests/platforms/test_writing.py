"""What a table writes, read by others' parsers: forms, files, messages and numbers."""

from __future__ import annotations

import asyncio
import base64
import io
import json
from collections.abc import AsyncGenerator
from typing import Any
from urllib.parse import parse_qsl

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from starlette.datastructures import FormData, Headers, UploadFile
from starlette.formparsers import FormParser, MultiPartParser

from tests.examples import examples
from tests.platforms.scripted import images
from ttca.lossy import jpeg
from ttca.platforms.protocols import Request
from ttca.platforms.protocols.encoding import Numbers
from ttca.platforms.protocols.writing import Writing

# What a text may hold: lone surrogates cannot be sent at all.
TEXT = st.text(st.characters(codec="utf-8"), max_size=12)
# None of them is "key" or "secret", which no field may be called.
NAME = st.text(st.characters(codec="ascii", categories=("L", "N")), min_size=1, max_size=6).map("f{}".format)


def pixels_of(file: bytes) -> Any:
    return np.asarray(Image.open(io.BytesIO(file)).convert("RGB"))


async def once(body: bytes) -> AsyncGenerator[bytes, None]:
    yield body


@examples(60)
@given(fields=st.dictionaries(NAME, TEXT, max_size=3))
def test_an_urlencoded_form_is_what_others_read(fields: dict[str, str]) -> None:
    """Python's and Starlette's parsers find every field, and the file's base64 whole."""
    fields.pop("image", None)
    request = Writing(send="form", fields=fields).written(images(1), "p")
    found = parse_qsl(request.body.decode("ascii"), keep_blank_values=True, strict_parsing=True)
    form = asyncio.run(FormParser(Headers(request.headers), once(request.body)).parse())
    assert sorted(found) == sorted(form.multi_items())
    file = dict(found).pop("image")
    assert dict(found) == {**fields, "image": file}
    np.testing.assert_array_equal(pixels_of(base64.b64decode(file, validate=True)), images(1)[0])


def parsed(request: Request) -> tuple[dict[str, str], bytes, str | None]:
    """Return the texts, the file and its type of a multipart form, as Starlette reads it."""

    async def read() -> tuple[dict[str, str], bytes, str | None]:
        form: FormData = await MultiPartParser(Headers(request.headers), once(request.body)).parse()
        file = form["f"]
        assert isinstance(file, UploadFile)
        said = await file.read()
        await form.close()
        return {k: v for k, v in form.items() if isinstance(v, str)}, said, file.content_type

    return asyncio.run(read())


@examples(60)
@given(fields=st.dictionaries(NAME, TEXT, max_size=3), quality=st.none() | st.integers(1, 100))
def test_a_multipart_form_is_what_others_read(fields: dict[str, str], quality: int | None) -> None:
    """Starlette's parser finds every field, and the file byte for byte, as the type it says it is."""
    fields.pop("f", None)
    texts, file, kind = parsed(
        Writing(send="multipart", field="f", fields=fields, jpeg_quality=quality).written(images(1), "p")
    )
    assert texts == fields
    assert kind == ("image/png" if quality is None else "image/jpeg")
    expected = images(1) if quality is None else jpeg(images(1), quality=quality)
    np.testing.assert_array_equal(pixels_of(file), expected[0])


@examples(100)
@given(
    levels=st.lists(st.integers(0, 255), min_size=6, max_size=6),
    low=st.floats(-300, 300),
    width=st.floats(0.01, 600),
    mean=st.lists(st.floats(-200, 200), min_size=3, max_size=3) | st.none(),
    std=st.lists(st.floats(0.01, 300), min_size=3, max_size=3) | st.none(),
    bgr=st.booleans(),
)
def test_numbers_are_the_same_as_text_and_as_bytes(
    levels: list[int], low: float, width: float, mean: list[float] | None, std: list[float] | None, bgr: bool
) -> None:
    """A float32 that is read from the text is the one that the binary form carries, and is what was asked for."""
    made = Numbers(range=[low, low + width], mean=mean, std=std, color_order="bgr" if bgr else "rgb")
    made.check_numbers()
    image = np.array(levels, np.uint8).reshape(1, 1, 2, 3)
    text = made.numbers(image, pixels="unit", layout="NHWC", decimal=True)
    raw = made.numbers(image, pixels="unit", layout="NHWC", decimal=False)
    read = np.array(json.loads(json.dumps(text.tolist())))
    np.testing.assert_array_equal(read.astype(np.float32), raw)
    colors = image[..., ::-1] if bgr else image
    expected = (low + colors / 255 * width - (mean or 0)) / (std or 1)
    np.testing.assert_allclose(raw, expected, rtol=1e-5, atol=1e-3)


def test_a_token_goes_where_it_stands_and_no_image_is_searched_for_it() -> None:
    """Alone it keeps its type, within a text it is one, in a path it is quoted; names with it are no keys."""
    table = Writing(
        path="a/{token}/b?token={token}",
        send="json",
        body={"token": "{token}", "more": ["x{token}", 1], "image": "{image}"},
    )
    request = table.written(images(1), table.path, token=7)
    message = json.loads(request.body)
    assert request.path == "a/7/b?token=7"
    assert (message["token"], message["more"]) == (7, ["x7", 1])
    assert table.written(images(1), table.path, token="a/b c").path == "a/a%2Fb%20c/b?token=a%2Fb%20c"
    assert table.has_token


@pytest.mark.parametrize(
    ("options", "kind"),
    [
        ({"send": "png"}, "image/png"),
        ({"send": "jpeg", "jpeg_quality": 90}, "image/jpeg"),
        ({"send": "base64"}, "text/plain"),
        ({"send": "base64", "headers": {"content-type": "application/x"}}, "application/x"),
        ({"send": "json", "body": "{image}"}, "application/json"),
    ],
)
def test_a_body_says_what_it_is_once(options: dict[str, Any], kind: str) -> None:
    """The type is the table's own where it states one, in whatever case, and never said twice."""
    headers = Writing(**options).written(images(1), "p").headers
    assert [value for name, value in headers.items() if name.lower() == "content-type"] == [kind]
