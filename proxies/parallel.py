"""Train one proxy in several processes at once, one per GPU where there are any, through accelerate."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from ttca.proxies.backbones import Backbone
from ttca.proxies.distillation import Answered, Distillation, OnEpoch, Proxy, Targets, train_proxy
from ttca.proxies.options import Distilling
from ttca.proxies.registry import check_importable

__all__ = ["train_proxy_in_processes"]

_TAIL = 800
#: Begins a line that tells an epoch.
_MARK = "ttca-epoch "


def train_proxy_in_processes(
    processes: int,
    images: NDArray[np.uint8],
    targets: Targets,
    options: Distilling,
    *,
    selection: Answered | None = None,
    initial: Proxy | None = None,
    replay: Answered | None = None,
    progress: OnEpoch | None = None,
) -> Distillation:
    """Do what :func:`ttca.proxies.distillation.train_proxy` does, each batch shared out over so many processes.

    The processes are started for this one training by torch's own launcher and end with it; what they need goes
    through a temporary folder. Gradients are averaged, so that the batch is as large as in one process. Normalization
    looks at each process's own share, and the shares are augmented differently. So the weights differ from those
    of one process as those of another seed would.

    Parameters
    ----------
    processes : int
        One per GPU; where there are fewer GPUs they share the processor's threads.
    images, targets, options, selection, initial, replay, progress
        As for :func:`~ttca.proxies.distillation.train_proxy`.

    Raises
    ------
    ValueError
        As :func:`~ttca.proxies.distillation.train_proxy`, if the other processes cannot import a model, or if one
        fails, with what it said last.
    """
    check_importable(options.architectures)
    with tempfile.TemporaryDirectory(prefix="ttca-") as name:
        folder = Path(name)
        _write(folder, {"learned": (images, targets), "selection": selection, "replay": replay})
        if initial is not None:
            initial.save(folder / "initial.safetensors")
        (folder / "options.json").write_text(json.dumps(asdict(options)), encoding="utf-8")
        _launch(processes, folder, progress)
        if (folder / "error").is_file() and not (folder / "proxy.safetensors").is_file():
            raise ValueError((folder / "error").read_text(encoding="utf-8"))
        with safe_open(folder / "proxy.safetensors", framework="numpy") as file:
            story = json.loads((file.metadata() or {})["story"])
        proxy = Proxy.load(folder / "proxy.safetensors")
    loss, agreement, rates = (tuple(story[key]) for key in ("loss", "agreement", "rates"))
    return Distillation(proxy, loss, agreement, int(story["best_epoch"]), rates)


def _launch(processes: int, folder: Path, progress: OnEpoch | None) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
    threads = {} if _on_gpus(processes) else {"OMP_NUM_THREADS": str(max(1, torch.get_num_threads() // processes))}
    with (
        (folder / "said").open("w+", encoding="utf-8") as said,
        subprocess.Popen(
            [*command, "-m", "ttca.proxies.parallel", str(folder)],
            stdout=subprocess.PIPE,
            stderr=said,
            text=True,
            # What can be imported here can be imported there: a guest's model may lie beside the user's script.
            env={**os.environ, **threads, "PYTHONPATH": os.pathsep.join(p or str(Path.cwd()) for p in sys.path)},
        ) as launched,
    ):
        try:
            for line in launched.stdout or ():
                # Libraries underneath print to the same stream.
                if progress is not None and line.startswith(_MARK):
                    epoch, epochs, loss = json.loads(line.removeprefix(_MARK))
                    progress(epoch, epochs, loss)
            failed = launched.wait() != 0
        finally:
            # Stopped in between: the launcher ends its processes when it is told to end, before their folder goes.
            launched.terminate()
            launched.wait()
        # Once the proxy is kept (it appears whole or not at all), how the processes part is of no interest.
        kept = (folder / "proxy.safetensors").is_file()
        if failed and not kept and not (folder / "error").is_file():
            said.seek(0)
            raise ValueError(
                f"Expected {processes} processes to train the proxy together, got one that failed: "
                f"{_causes(said.read())}"
            )


def _causes(said: str) -> str:
    """Return the last words before the launcher's own closing report, which names no cause."""
    return said.partition("torch.distributed.elastic.multiprocessing.api:failed")[0].strip()[-_TAIL:]


def _on_gpus(processes: int) -> bool:
    """Whether there is a GPU for each process; else they share the processor."""
    return torch.cuda.device_count() >= processes


def _work(folder: Path) -> None:
    """Be one of the processes: take part in the training, and write its result if this is the first of them."""
    from accelerate import Accelerator

    accelerator = Accelerator(cpu=not _on_gpus(int(os.environ["WORLD_SIZE"])))
    parts = _read(folder)
    initial = folder / "initial.safetensors"
    images, targets = parts["learned"]

    def progress(epoch: int, epochs: int, loss: float) -> None:
        if accelerator.is_main_process:
            # Also how a process learns that nobody waits for it any more.
            sys.stdout.write(f"{_MARK}{json.dumps([epoch, epochs, loss])}\n")
            sys.stdout.flush()

    try:
        done = train_proxy(
            images,
            targets,
            _options(folder),
            selection=parts.get("selection"),
            replay=parts.get("replay"),
            initial=Proxy.load(initial) if initial.is_file() else None,
            device=accelerator,
            progress=progress,
        )
    except Exception as error:
        # What the launcher says of a failure names no cause; and if one process stops, all must.
        said = str(error) if isinstance(error, ValueError) else f"Training stopped: {type(error).__name__}: {error}"
        partial = folder / f"error-{accelerator.process_index}"
        partial.write_text(said, encoding="utf-8")
        partial.replace(folder / "error")
        raise
    if accelerator.is_main_process:
        story = {
            "loss": done.loss, "agreement": done.agreement, "best_epoch": done.best_epoch, "rates": done.rates,
        }  # fmt: skip
        done.proxy.save(folder / "proxy.safetensors", {"story": json.dumps(story)})
    # Nobody leaves before the result is kept; whoever left early could take the others along.
    accelerator.wait_for_everyone()
    accelerator.end_training()


def _options(folder: Path) -> Distilling:
    said = json.loads((folder / "options.json").read_text(encoding="utf-8"))
    return Distilling(**{**said, "backbones": tuple(Backbone.from_dict(b) for b in said["backbones"])})


def _write(folder: Path, parts: dict[str, Answered | None]) -> None:
    arrays: dict[str, NDArray[Any]] = {}
    for name, part in parts.items():
        if part is not None:
            images, targets = part
            found = {"images": images, "labels": targets.labels, "scores": targets.scores}
            arrays |= {f"{name}.{key}": np.ascontiguousarray(value) for key, value in found.items()}
    save_file(arrays, folder / "people.safetensors")


def _read(folder: Path) -> dict[str, Answered]:
    arrays = load_file(folder / "people.safetensors")
    names = {key.partition(".")[0] for key in arrays}
    return {n: (arrays[f"{n}.images"], Targets(arrays[f"{n}.labels"], arrays[f"{n}.scores"])) for n in names}


if __name__ == "__main__":
    _work(Path(sys.argv[1]))
