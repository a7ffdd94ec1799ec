"""Two servers that are not ours, each in a process of its own on loopback: Triton, and an image API on Node's http."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import requests

from benchmarks._instant_server import CLASSES, IMAGE_SHAPE, MODEL
from benchmarks._peers import environment
from benchmarks._processes import free_port, started_in_node
from ttca.errors import TTCAError

__all__ = ["TRITON", "node", "triton"]

#: The package that holds Triton's own binary, which runs on a processor alone too.
TRITON = "nvidia-pytriton==0.7.0"
_HERE = Path(__file__).parent
_START_S = 60.0
_MAX_BATCH = 64


@contextmanager
def node() -> Iterator[str]:
    """Start the image API on Node, give its URL, and end it afterwards.

    Raises
    ------
    TTCAError
        If there is no Node, or it does not start.
    """
    with started_in_node("_face_api.mjs", str(len(CLASSES))) as url:
        yield url


@contextmanager
def triton() -> Iterator[str]:
    """Start Triton with a small model of its Python backend, give its URL, and end it afterwards.

    Raises
    ------
    TTCAError
        If it cannot be installed or does not start.
    """
    python = environment(TRITON)
    packages = python.parents[1] / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"
    home = packages / "pytriton" / "tritonserver"
    with tempfile.TemporaryDirectory() as folder:
        models, backends = Path(folder, "models"), Path(folder, "backends")
        (models / MODEL / "1").mkdir(parents=True)
        shutil.copy(_HERE / "_triton_model.py", models / MODEL / "1" / "model.py")
        (models / MODEL / "config.pbtxt").write_text(_config(), encoding="utf-8")
        shutil.copytree(home / "backends" / "python", backends / "python")
        # Of the programs that run a model's Python, the one of this Python.
        stubs = home / "python_backend_stubs" / f"{sys.version_info.major}.{sys.version_info.minor}"
        shutil.copy(stubs / "triton_python_backend_stub", backends / "python")
        port = free_port()
        command = [str(home / "bin" / "tritonserver"), f"--model-repository={models}", f"--http-port={port}"]
        command += [f"--backend-directory={backends}", "--http-address=127.0.0.1"]
        command += ["--allow-grpc=false", "--allow-metrics=false"]
        variables = {
            **os.environ,
            "PATH": f"{python.parent}{os.pathsep}{os.environ.get('PATH', '')}",
            "PYTHONPATH": str(packages),
            "LD_LIBRARY_PATH": str(packages / "nvidia_pytriton.libs"),
        }
        log = Path(folder, "log")
        with log.open("wb") as out, subprocess.Popen(command, env=variables, stdout=out, stderr=out) as process:
            try:
                url = f"http://127.0.0.1:{port}"
                _wait_until_ready(process, f"{url}/v2/health/ready", log)
                yield url
            finally:
                process.terminate()
                try:
                    process.wait(timeout=30)
                except subprocess.TimeoutExpired:
                    process.kill()


def _config() -> str:
    height, width, channels = IMAGE_SHAPE
    return (
        f'name: "{MODEL}"\nbackend: "python"\nmax_batch_size: {_MAX_BATCH}\n'
        f'input [{{ name: "images", data_type: TYPE_UINT8, dims: [{height}, {width}, {channels}] }}]\n'
        f'output [{{ name: "scores", data_type: TYPE_FP32, dims: [{len(CLASSES)}] }}]\n'
        "instance_group [{ kind: KIND_CPU, count: 1 }]\n"
    )


def _wait_until_ready(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    until = time.monotonic() + _START_S
    while process.poll() is None and time.monotonic() < until:
        try:
            if requests.get(url, timeout=5).status_code == 200:
                return
        except requests.ConnectionError:
            pass
        time.sleep(0.1)
    said = log.read_text(encoding="utf-8", errors="replace")[-500:]
    raise TTCAError(f"Expected Triton to be ready within {_START_S:g} s, got none that is: {said}. Read what it says.")
