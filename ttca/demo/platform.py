"""The demo's platform: a digit reader in a server process of its own, asked over HTTP like any other."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ttca.demo.world import DIGITS, SIZE, THREADS, DigitsWorld, digits_world
from ttca.errors import MissingExtraError, PlatformError
from ttca.platforms.local import LocalPlatform
from ttca.platforms.server import serve

__all__ = ["digits_platform", "running_platform"]

#: Ends the server with the program that started it.
_BOUND = "--bound"


def digits_platform(world: DigitsWorld, *, seed: int) -> LocalPlatform:
    """Train the platform: a two-layer perceptron, nothing like the convolutional proxy the members will train."""
    try:
        from ttca.proxies.distillation import Targets, train_proxy
        from ttca.proxies.options import Distilling
    except ImportError:
        raise MissingExtraError("The demo's platform", "learn") from None

    truth = Targets.from_labels(world.training_classes, len(DIGITS))
    # With a fixed number of threads, so that the platform is the same on every machine of a kind.
    how = Distilling(architectures=("perceptron",), seed=seed, epochs=30, threads=THREADS)
    model = train_proxy(world.training_images, truth, how).proxy
    # In double precision: in single, an answer's last bits depend on how many images travel with it. A demo that was
    # killed sends other batches than one that was not, and their proxies would differ.
    model = model.double()
    model.register_forward_pre_hook(lambda _model, images: (images[0].double(),))
    # Its version is a digest of its weights, so that answers of one model are never taken for another's.
    return LocalPlatform.from_module(model, classes=DIGITS, image_shape=(SIZE, SIZE, 3), name="digits")


@contextmanager
def running_platform(*, seed: int, port: int = 0, access_log: Path | None = None) -> Iterator[str]:
    """Run the platform as a server process of its own and yield its URL.

    The process ends when its standard input closes, so that no server outlives a killed demo.
    """
    command = [sys.executable, "-m", "ttca.demo.platform", str(seed), str(port), _BOUND]
    if access_log is not None:
        command.append(str(access_log))
    # In a session of its own: Ctrl-C is the demo's, which still wants the answers that are on their way.
    server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True)
    if server.stdin is None or server.stdout is None:  # pragma: no cover - asked for above
        raise PlatformError("Expected pipes to the platform's process, got none.", platform="digits")
    try:
        url = server.stdout.readline().strip()
        if not url:
            raise PlatformError(
                f"Expected the demo's platform to start, got a process that ended with status {server.wait()}. Its "
                "error message is above. If another program uses its port, start over with --fresh.",
                platform="digits",
            )
        yield url
    finally:
        server.stdin.close()
        server.stdout.close()
        try:
            server.wait(timeout=15)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def _serve(seed: int, port: int, access_log: Path | None, *, bound: bool) -> None:
    """Serve the platform; where it is bound to the demo, until standard input closes: the demo ended, or was killed."""

    def watch() -> None:
        sys.stdin.read()
        # The main thread sits in the server's loop; nothing needs saving.
        os._exit(0)

    if bound:
        threading.Thread(target=watch, daemon=True).start()
    else:
        sys.stderr.write("Training the demo's platform. Its address comes in a few seconds; Ctrl-C ends it.\n")
    platform = digits_platform(digits_world(seed), seed=seed)

    def started(url: str) -> None:
        sys.stdout.write(f"{url}\n")
        sys.stdout.flush()
        if not bound:
            sys.stderr.write(f"The demo's platform has started at {url} (KServe V2, model {platform.info.name}).\n")
            sys.stderr.flush()

    serve(platform, port=port, access_log=access_log, on_start=started)


if __name__ == "__main__":
    words = [word for word in sys.argv[1:] if word != _BOUND]
    _serve(int(words[0]), int(words[1]), Path(words[2]) if len(words) > 2 else None, bound=_BOUND in sys.argv)
