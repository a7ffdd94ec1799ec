"""Model servers that are not ours, started and asked as docs/servers.md says, answer as their model does in process."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import tomllib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import psutil
import pytest
import requests
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from benchmarks._peers import environment
from ttca.answers import Answers, Status
from ttca.errors import ChargeState, TransportError
from ttca.images import Images
from ttca.platforms.base import Credential
from ttca.platforms.http import HttpPlatform, NotSentError, Transport
from ttca.platforms.local import LocalPlatform
from ttca.platforms.retry import RetryPolicy

pytestmark = [pytest.mark.e2e, pytest.mark.full]

ROOT = Path(__file__).parents[2]
DOCUMENT = (ROOT / "docs" / "servers.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"^```(\w+)([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
READY = {
    "MLServer": "v2/health/ready",
    "BentoML": "readyz",
    "LitServe": "health",
    "KServe": "v2/health/ready",
    "Ray Serve": "-/healthz",
    "gradio": "gradio_api/info",
    "cog": "health-check",
    "OpenAI-compatible": "health",
}
#: Of these, what works on one image at a time and turns others away.
ALONE = ("cog",)
#: What answers in words, without scores.
WORDS = ("OpenAI-compatible",)
START_SECONDS = 120
ADA = Credential("ada")
CLASSES = ("ant", "bee", "cat", "dog", "eel", "fox")
SHAPE = (16, 16, 3)
COUNT = 224  # images


def network(bias: NDArray[np.floating]) -> onnx.ModelProto:
    """Return a convolution, a pooling and a linear layer with seeded weights: float32 (N, 3, 16, 16) to logits."""
    rng = np.random.default_rng(0)
    weights = {
        "kernels": rng.normal(0, 0.5, (8, 3, 3, 3)),
        "shifts": rng.normal(0, 0.1, 8),
        "rows": rng.normal(0, 0.5, (len(CLASSES), 8 * 4 * 4)),
        "bias": bias,
    }
    nodes = [
        helper.make_node("Conv", ["image", "kernels", "shifts"], ["maps"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["maps"], ["positive"]),
        helper.make_node("MaxPool", ["positive"], ["pooled"], kernel_shape=[4, 4], strides=[4, 4]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("Gemm", ["flat", "rows", "bias"], ["logits"], transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "classifier",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 3, 16, 16])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", len(CLASSES)])],
        [numpy_helper.from_array(values.astype(np.float32), name) for name, values in weights.items()],
    )
    # Versions that every onnxruntime of the last years reads, not the newest that onnx can write.
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.checker.check_model(model)
    return model


def pictures() -> Images:
    """Return noisy mosaics, uint8 (N, 16, 16, 3)."""
    rng = np.random.default_rng(1)
    mosaics = rng.integers(0, 256, (COUNT, 4, 4, 3)).repeat(4, axis=1).repeat(4, axis=2)
    return np.clip(mosaics + rng.normal(0, 20, mosaics.shape), 0, 255).astype(np.uint8)


IMAGES = pictures()
DARK: Images = np.zeros((1, *SHAPE), np.uint8)


@pytest.fixture(scope="module")
def model_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the ONNX file that all servers serve, its classes about equally frequent."""
    pixels = IMAGES.transpose(0, 3, 1, 2).astype(np.float32) / np.float32(255)
    uneven = onnxruntime.InferenceSession(network(np.zeros(len(CLASSES))).SerializeToString())
    path = tmp_path_factory.mktemp("model") / "model.onnx"
    onnx.save(network(-np.mean(uneven.run(None, {"image": pixels})[0], axis=0)), path)
    return path


@pytest.fixture(scope="module")
def expected(model_file: Path) -> Answers:
    """Return what the model says in process: every class often, and never two classes by a hair."""
    platform = LocalPlatform.from_onnx(model_file, classes=CLASSES, image_shape=SHAPE)
    answers = platform.attempt(IMAGES, ADA, request_id="reference")
    assert np.bincount(answers.labels, minlength=len(CLASSES)).min() >= 20
    best = np.sort(answers.scores, axis=1)
    assert (best[:, -1] - best[:, -2]).min() > 1e-4
    return answers


@dataclass
class Server:
    """A server that runs: its process, its own log, and the ``[platform]`` table that asks it."""

    process: subprocess.Popen[bytes]
    log: Path
    table: dict[str, Any]

    def platform(self, **changes: Any) -> HttpPlatform:
        """Return the platform of the table, with some keys or options changed."""
        values = {k: v for k, v in self.table.items() if k != "options"} | self.table.get("options", {}) | changes
        return HttpPlatform(**values, transport=Transport(metadata_retry=RetryPolicy(attempts=1)))

    @property
    def said(self) -> str:
        """What it wrote to its standard output and error so far."""
        return self.log.read_text(encoding="utf-8", errors="replace")

    @property
    def posts(self) -> int:
        """The queries it received, by its own log."""
        return self.said.count("POST")

    def end(self, *, patience: float) -> None:
        """End it and everything that it started: as by Ctrl-C, and whatever is left after so many seconds at once."""
        family = psutil.Process(self.process.pid).children(recursive=True) if self.process.poll() is None else []
        if patience:
            self.process.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(patience)
        self.process.kill()
        for member in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                member.kill()
        self.process.wait()
        psutil.wait_procs(family, timeout=10)


def free_ports(n: int) -> list[int]:
    """Return ports of this machine that nobody listens at."""
    with contextlib.ExitStack() as stack:
        taken = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(n)]
        return [int(t.getsockname()[1]) for t in taken]


def section(name: str) -> list[tuple[str, str, str]]:
    """Return language, remark and text of the blocks about one server, its ports replaced by free ones."""
    (text,) = re.findall(rf"^## {name}\n(.*?)(?=^## |\Z)", DOCUMENT, re.MULTILINE | re.DOTALL)
    port = re.compile(r"\b[38]0\d\d\b")
    printed = sorted(set(port.findall(text)))
    free = dict(zip(printed, free_ports(len(printed)), strict=True))
    text = port.sub(lambda found: str(free[found[0]]), text)
    return [(m[1], m[2].strip(), m[3]) for m in BLOCK.finditer(text)]


@contextlib.contextmanager
def running(name: str, model_file: Path, home: Path) -> Iterator[Server]:
    """Start a server by its section's commands, in an environment of what the section installs."""
    commands: list[str] = []
    table: dict[str, Any] = {}
    for file in (model_file, *(ROOT / "tests" / "e2e" / "servers").glob("*.py")):
        shutil.copy(file, home)
    for language, remark, text in section(name):
        if language == "json":
            (home / remark.removeprefix("file=")).write_text(text, encoding="utf-8")
        elif language == "toml":
            table = tomllib.loads(text)["platform"]
        else:
            commands += text.splitlines()
    install, start = commands
    python = environment(*install.removeprefix("pip install ").split())
    log = home / "log"
    # A short path, because sockets lie in it; what a killed server leaves there goes with it.
    with tempfile.TemporaryDirectory() as scratch:
        variables = {
            **{k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")},
            "PATH": f"{python.parent}{os.pathsep}{os.environ['PATH']}",
            "TMPDIR": scratch,
            "OMP_NUM_THREADS": "1",
            "BENTOML_HOME": str(home / "bentoml"),
            "BENTOML_DO_NOT_TRACK": "True",
        }
        with log.open("wb") as out:
            process = subprocess.Popen(
                ["/bin/sh", "-c", f"exec env {start}"],
                cwd=home,
                env=variables,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        server = Server(process, log, table)
        try:
            wait_until_ready(server, f"{table['url']}/{READY[name]}")
            yield server
        finally:
            server.end(patience=10)


def wait_until_ready(server: Server, url: str) -> None:
    """Return once a server says that it is ready; fail with its own words when it ends or takes too long."""
    deadline = time.monotonic() + START_SECONDS
    while server.process.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(requests.RequestException):
            reply = requests.get(url, timeout=5)
            # cog says 200 whatever it says.
            if reply.status_code == 200 and "STARTING" not in reply.text:
                return
        time.sleep(0.05)
    got = "no answer" if server.process.poll() is None else f"an end with {server.process.returncode}"
    pytest.fail(f"Expected {url} to answer within {START_SECONDS} s, got {got}. The server said:\n{server.said}")


@pytest.fixture(scope="module")
def started(model_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Server]]:
    """Return what starts each server once, when the first test asks for it."""
    servers: dict[str, Server] = {}
    with contextlib.ExitStack() as stack:

        def start(name: str) -> Server:
            if name not in servers:
                home = tmp_path_factory.mktemp(name)
                servers[name] = stack.enter_context(running(name, model_file, home))
            return servers[name]

        yield start


@pytest.fixture
def serve(started: Callable[[str], Server]) -> Iterator[Callable[[str], Server]]:
    """Return what gives a server by name; what it said meanwhile is shown with a failure."""
    used: dict[str, tuple[Server, int]] = {}

    def give(name: str) -> Server:
        server = started(name)
        used[name] = (server, len(server.said))
        return server

    yield give
    for name, (server, before) in used.items():
        sys.stderr.write(f"{name} said:\n{server.said[before:]}")


@pytest.fixture
def mlserver(serve: Callable[[str], Server]) -> Server:
    """Return the running MLServer."""
    return serve("MLServer")


@pytest.fixture
def bentoml(serve: Callable[[str], Server]) -> Server:
    """Return the running BentoML service."""
    return serve("BentoML")


@pytest.fixture
def litserve(serve: Callable[[str], Server]) -> Server:
    """Return the running LitServe server."""
    return serve("LitServe")


def ask_all(
    platform: HttpPlatform, images: Images, *, batch: int = 16, threads: int = 4, retry: RetryPolicy | None = None
) -> Answers:
    """Return the answers to all images, asked in batches by several threads at once, again where the policy says so."""
    policy = retry or RetryPolicy(attempts=1)
    size = min(batch, platform.info.max_batch)
    parts = [images[start : start + size] for start in range(0, len(images), size)]
    with ThreadPoolExecutor(threads) as pool:

        def ask(k: int) -> Answers:
            return policy.run(lambda _: platform.attempt(parts[k], ADA, request_id=f"r{k}"))

        answers = list(pool.map(ask, range(len(parts))))
    return Answers.concatenate(answers, classes=len(CLASSES))


def fail(platform: HttpPlatform, images: Images = IMAGES[:1]) -> TransportError:
    """Return the error of one attempt."""
    with platform, pytest.raises(TransportError) as caught:
        platform.attempt(images, ADA, request_id="r")
    return caught.value


def check_agreement(found: Answers, expected: Answers, *, scores: bool = True) -> None:
    """Check label by label, and the scores, which must be there unless it is said that there are none."""
    assert found.answered.all()
    np.testing.assert_array_equal(found.labels, expected.labels)
    wanted = expected.scores if scores else np.full_like(expected.scores, np.nan)
    np.testing.assert_allclose(found.scores, wanted, atol=1e-5)


@pytest.mark.parametrize("name", list(READY))
def test_every_answer_is_the_models_own(name: str, serve: Callable[[str], Server], expected: Answers) -> None:
    """Asked as the document says, by four threads at once, each server gives every image the model's own answer."""
    with serve(name).platform() as platform:
        assert platform.info.image_shape == SHAPE
        retry = RetryPolicy(deadline_s=60.0, base_s=0.02, cap_s=0.2) if name in ALONE else RetryPolicy(attempts=1)
        check_agreement(ask_all(platform, IMAGES, retry=retry), expected, scores=name not in WORDS)


@pytest.mark.parametrize("name", [name for name in READY if name not in ("MLServer", "KServe")])
def test_an_image_that_is_refused_is_an_answer(name: str, serve: Callable[[str], Server]) -> None:
    """A dark image is refused in each server's own way: by a field, an error, an event, a status or a sentence."""
    with serve(name).platform() as platform:
        assert platform.attempt(DARK, ADA, request_id="r").status.tolist() == [Status.REFUSED]


@pytest.mark.parametrize("name", [name for name in READY if name not in ALONE])
def test_a_server_killed_midway_labels_nothing(name: str, model_file: Path, tmp_path: Path, expected: Answers) -> None:
    """What was answered before the kill stands; everything after it is an error that may be tried again."""
    answers: dict[int, Answers] = {}
    errors: dict[int, TransportError] = {}
    enough, killed = threading.Event(), threading.Event()

    def ask(k: int) -> None:
        # Some are in flight when the server is killed, and many are left, however slowly that goes.
        if len(answers) >= COUNT // 2:
            killed.wait(60)
        try:
            answers[k] = platform.attempt(IMAGES[k : k + 1], ADA, request_id=f"r{k}")
        except TransportError as error:
            errors[k] = error
        if len(answers) == 40:
            enough.set()

    with running(name, model_file, tmp_path) as server, server.platform() as platform, ThreadPoolExecutor(4) as pool:
        done = [pool.submit(ask, k) for k in range(COUNT)]
        assert enough.wait(60), server.said
        server.end(patience=0)
        killed.set()
        for d in done:
            d.result()
    rows = np.array(sorted(answers))
    found = Answers.concatenate([answers[k] for k in rows], classes=len(CLASSES))
    check_agreement(found, expected[rows], scores=name not in WORDS)
    assert errors
    assert len(answers) + len(errors) == COUNT
    assert all(e.retryable for e in errors.values())
    # A connection that was refused cost nothing; one that was cut off may have.
    assert {e.charge for e in errors.values()} <= {ChargeState.REFUNDED, ChargeState.UNKNOWN}
    assert errors[max(errors)].charge is ChargeState.REFUNDED


@pytest.fixture(scope="module")
def raw(started: Callable[[str], Server]) -> dict[str, Any]:
    """Load a second model into the running MLServer, numbers in and names out; return what asks it."""
    server = started("MLServer")
    home = server.log.parent / "raw"
    home.mkdir()
    settings = {
        "name": "raw",
        "implementation": "mlserver_runtime.OnnxRuntime",
        "parameters": {"uri": "../model.onnx", "extra": {"classes": CLASSES}},
        "inputs": [{"name": "pixels", "datatype": "FP32", "shape": [-1, 3, -1, -1]}],
        "outputs": [
            {"name": "logits", "datatype": "FP32", "shape": [-1, len(CLASSES)]},
            {"name": "label", "datatype": "BYTES", "shape": [-1]},
        ],
    }
    shutil.copy(ROOT / "tests" / "e2e" / "servers" / "mlserver_runtime.py", home)
    (home / "model-settings.json").write_text(json.dumps(settings), encoding="utf-8")
    requests.post(f"{server.table['url']}/v2/repository/models/raw/load", timeout=30).raise_for_status()
    return {"model": "raw", "image_shape": SHAPE, "refused_labels": ["too dark"]}


class TestMLServer:
    """KServe V2, with metadata that says what the model takes and gives."""

    def test_numbers_in_and_names_out_agree_too(self, mlserver: Server, raw: dict[str, Any], expected: Answers) -> None:
        """A model that takes float32 with channels first and names its labels agrees; a dark image is refused alone."""
        with mlserver.platform(**raw) as platform:
            assert platform.info.identity["input"] == "pixels FP32 NCHW unit"
            found = ask_all(platform, np.concatenate([IMAGES, DARK]))
        check_agreement(found[:COUNT], expected)
        assert found.status[COUNT:].tolist() == [Status.REFUSED]

    def test_a_model_that_raises_may_have_charged(self, mlserver: Server, raw: dict[str, Any]) -> None:
        """An exception in the runtime is the server's 500 with a traceback, whose cause is quoted; perhaps charged."""
        error = fail(mlserver.platform(**{**raw, "image_shape": (8, 8, 3)}), IMAGES[:1, :8, :8])
        assert (error.status, error.charge, error.retryable) == (500, ChargeState.UNKNOWN, True)
        assert "INVALID_ARGUMENT" in str(error)

    def test_the_metadata_is_read_before_any_query(self, mlserver: Server) -> None:
        """Image size, layout and version come from the server, which has no binary form over HTTP and says so."""
        before = mlserver.posts
        with mlserver.platform() as platform:
            info = platform.info
        assert (info.image_shape, info.gives_scores) == (SHAPE, True)
        assert info.identity["input"] == "image UINT8 NHWC"
        assert info.identity["versions"] == "1"
        assert requests.get(f"{mlserver.table['url']}/v2", timeout=10).json()["extensions"] == []
        assert mlserver.posts == before

    @pytest.mark.parametrize(
        ("changes", "sentence"),
        [
            ({"classes": CLASSES[:5]}, "Expected the output 'logits' to score 5 classes, got shape [-1, 6]"),
            ({"image_shape": (8, 8, 3)}, "Expected images of shape (8, 8, 3), got a model that takes [-1, 16, 16, 3]"),
            ({"scores_output": "probabilities"}, "Expected an output 'probabilities', got logits"),
        ],
    )
    def test_another_model_than_configured_is_never_asked(
        self, mlserver: Server, changes: dict[str, Any], sentence: str
    ) -> None:
        """What the metadata contradicts is a mistake of the configuration, told at no query's cost."""
        before = mlserver.posts
        error = fail(mlserver.platform(**changes))
        assert isinstance(error, NotSentError)
        assert sentence in str(error)
        assert mlserver.posts == before

    @pytest.mark.parametrize("changes", [{"model": "cars"}, {"version": "2"}])
    def test_a_model_that_is_not_there_is_never_asked(self, mlserver: Server, changes: dict[str, Any]) -> None:
        """The server's own 404 is quoted, and nothing was paid."""
        before = mlserver.posts
        error = fail(mlserver.platform(**changes))
        assert (error.status, error.charge, error.retryable) == (404, ChargeState.REFUNDED, False)
        assert "not found" in str(error)
        assert "made of url, and of model" in str(error)
        assert mlserver.posts == before

    def test_a_model_that_goes_away_refunds(self, mlserver: Server) -> None:
        """A model that was unloaded after its metadata was read is an error that cost nothing."""
        repository = f"{mlserver.table['url']}/v2/repository/models/pets"
        with mlserver.platform() as platform:
            assert platform.info.classes == CLASSES
            requests.post(f"{repository}/unload", timeout=30).raise_for_status()
            try:
                error = fail(platform)
            finally:
                requests.post(f"{repository}/load", timeout=30).raise_for_status()
        assert (error.status, error.charge, error.retryable) == (404, ChargeState.REFUNDED, False)
        assert '{"error":"Model pets not found"}' in str(error)

    def test_the_binary_form_is_refused_where_it_is_not_there(self, mlserver: Server) -> None:
        """Insisting on it is a mistake told before any query: the server could only answer 500."""
        before = mlserver.posts
        with mlserver.platform(binary=True) as platform, pytest.raises(NotSentError, match="binary"):
            platform.attempt(IMAGES[:1], ADA, request_id="r")
        assert mlserver.posts == before


class TestCog:
    """One image at a time, and a status of its own for all others."""

    def test_a_busy_runner_costs_nothing(self, serve: Callable[[str], Server]) -> None:
        """What is turned away with 409 was not processed, and is tried again; the others are answered."""
        with serve("cog").platform() as platform, ThreadPoolExecutor(8) as pool:

            def ask(k: int) -> TransportError | None:
                try:
                    platform.attempt(IMAGES[k : k + 1], ADA, request_id=f"r{k}")
                except TransportError as error:
                    return error
                return None

            errors = [error for error in pool.map(ask, range(32)) if error is not None]
        assert 0 < len(errors) < 32
        assert {(e.status, e.charge, e.retryable) for e in errors} == {(409, ChargeState.REFUNDED, True)}


class TestBentoML:
    """Forms with an image file, with a description of the routes."""

    @pytest.mark.parametrize(
        ("changes", "sentence"),
        [({"route": "predict"}, "/predict"), ({"field": "picture"}, "'picture'")],
    )
    def test_a_route_or_field_that_is_not_there_is_never_asked(
        self, bentoml: Server, changes: dict[str, Any], sentence: str
    ) -> None:
        """The service's own description shows the mistake, at no query's cost."""
        before = bentoml.posts
        error = fail(bentoml.platform(**changes))
        assert isinstance(error, NotSentError)
        assert sentence in str(error)
        assert bentoml.posts == before

    def test_a_service_that_raises_may_have_charged(self, bentoml: Server) -> None:
        """An exception in the service is its 500, quoted as it writes it; the charge is unknown."""
        error = fail(bentoml.platform(image_shape=(8, 8, 3)), IMAGES[:1, :8, :8])
        assert (error.status, error.charge, error.retryable) == (500, ChargeState.UNKNOWN, True)
        assert '{"error":"An unexpected error has occurred, please check the server log."}' in str(error)

    def test_an_image_it_refuses_is_an_answer(self, bentoml: Server) -> None:
        """The service's own 400 refuses the image where refused_errors names its words, and is an error elsewhere."""
        with bentoml.platform() as platform:
            assert platform.attempt(DARK, ADA, request_id="r").status.tolist() == [Status.REFUSED]
        error = fail(bentoml.platform(refused_errors=()), DARK)
        assert (error.status, error.charge, error.retryable) == (400, ChargeState.CHARGED, False)
        assert '[{"error":"the image is too dark"}]' in str(error)


class TestLitServe:
    """JSON of the author's own making, read as the table says."""

    def test_an_image_it_refuses_is_an_answer(self, litserve: Server) -> None:
        """What lies at the expression for refusals refuses the image."""
        with litserve.platform() as platform:
            assert platform.attempt(DARK, ADA, request_id="r").status.tolist() == [Status.REFUSED]

    def test_an_image_of_another_size_costs_nothing(self, litserve: Server) -> None:
        """The server's own 422 is quoted, and was not charged."""
        error = fail(litserve.platform(image_shape=(8, 8, 3)), IMAGES[:1, :8, :8])
        assert (error.status, error.charge, error.retryable) == (422, ChargeState.REFUNDED, False)
        assert '{"detail":"expected an image of (16, 16), got one of (8, 8)"}' in str(error)

    def test_a_request_the_server_does_not_understand_may_have_charged(self, litserve: Server) -> None:
        """A body with another key is the server's 500; the charge is unknown."""
        error = fail(litserve.platform(body={"picture": "{image}"}))
        assert (error.status, error.charge, error.retryable) == (500, ChargeState.UNKNOWN, True)
        assert '{"detail":"Internal server error"}' in str(error)

    def test_answers_that_lie_elsewhere_are_errors(self, litserve: Server) -> None:
        """Expressions that find nothing in the answer label nothing, and the answer is paid for."""
        error = fail(litserve.platform(label="label", scores="scores"))
        assert (error.charge, error.retryable) == (ChargeState.CHARGED, False)
