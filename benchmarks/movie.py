"""How fast frames are drawn and movies written, how large the files are, and how much memory it takes.

    python benchmarks/movie.py
    python benchmarks/movie.py --model torchvision/mobilenet_v2 --image photo.jpg --repeat 5
    python benchmarks/movie.py --formats --layouts
    python benchmarks/movie.py --memory --random --model torchvision/densenet161
    python benchmarks/movie.py --published seed_pipeline.py

The maps are those of a real network, over all its layers; the ROAD scores are random numbers, since
only their curve is drawn. Each figure is the best of several runs: other programs only ever slow them.
Processor time is that of this process and of ffmpeg. "2 processors" is the number of frames that two
processors could do in a second with this processor time, if both were never idle.

With --memory, nothing else is measured: the resident memory of this process and of ffmpeg together,
sampled every 2 ms while the movie is written, above that of this process just before, when it holds
the network, its maps and its findings. --published runs the script of the published pipeline, which
draws a figure of matplotlib for each module and encodes these with ffmpeg, in the same run; by default
/work/shared/bench/seed_pipeline.py, if it exists.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

import camanim
from camanim import samples
from camanim.render import FrameRenderer, write_grid_movie, write_movie
from camanim.render.frames import RESOLUTIONS

PUBLISHED = Path("/work/shared/bench/seed_pipeline.py")
LAYOUTS = ("overlay", "image | map", "local | global")


def main() -> None:
    arguments = parse()
    animation = animate(arguments.model, arguments.image, trained=not arguments.random)
    renderer = FrameRenderer(animation, size=arguments.size)
    frames, (width, height) = len(renderer), renderer.size
    processors = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    )
    print(
        f"{arguments.model}, {frames} layers, frames of {width} x {height}, {processors} processors"
    )
    if arguments.memory:
        measure_memory(animation, arguments.size)
        return

    def draw() -> None:
        # Anew, as texts are drawn once.
        fresh = FrameRenderer(animation, size=arguments.size)
        for i in range(frames):
            fresh.canvas(i)

    report("render alone", frames, best(draw, arguments.repeat))
    fastest = 0.0
    for quality in ("standard", "high"):
        seconds = movie(
            f"movie, {quality}",
            animation,
            arguments,
            ".mp4",
            {"size": arguments.size, "quality": quality},
        )
        fastest = max(fastest, frames / seconds)
    if arguments.formats:
        for suffix in (".webm", ".gif", ".apng", ""):
            movie(suffix or "folder", animation, arguments, suffix, {"size": arguments.size})
    if arguments.layouts:
        for layout in LAYOUTS:
            movie(layout, animation, arguments, ".mp4", {"layout": layout})
        for resolution in RESOLUTIONS:
            movie(f"{resolution}p", animation, arguments, ".mp4", {"resolution": resolution})
        movie("grid of 4", animation, arguments, ".mp4", {}, grid=4)
    compare_published(arguments, fastest)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="torchvision/mobilenet_v2")
    parser.add_argument("--image", help="by default a sample image")
    parser.add_argument("--random", action="store_true", help="random weights, without a download")
    parser.add_argument("--size", type=int, default=448)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--formats", action="store_true", help="webm, gif, apng and folders too")
    parser.add_argument("--layouts", action="store_true", help="layouts and resolutions too")
    parser.add_argument("--memory", action="store_true", help="measure memory only")
    parser.add_argument("--published", type=Path, default=PUBLISHED)
    return parser.parse_args()


def animate(model_name: str, image_path: str | None, *, trained: bool = True) -> camanim.Animation:
    image = camanim.read_image(image_path) if image_path else samples.image("malignant_1")
    weights = "DEFAULT" if trained else None
    model = camanim.load_model(model_name, weights)
    animation = camanim.animate(model, image, layers="all")
    after = np.random.default_rng(0).uniform(0, 1, (2, len(animation), 4))
    road = camanim.Road(
        layers=animation.layers,
        percentiles=(20, 40, 60, 80),
        morfs=after[:1],
        lerfs=after[1:],
        probability=animation.probability,
        undefined=(None,) * len(animation),
        random_scores=np.empty((len(animation), 0)),
        forwards=0,
        seed=0,
        noise=0.0,
    )
    animation.add(road)
    return animation


def movie(
    what: str,
    animation: camanim.Animation,
    arguments: argparse.Namespace,
    suffix: str,
    settings: dict[str, object],
    grid: int = 0,
) -> float:
    """Report and return the seconds for a movie."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"movie{suffix}"

        def write() -> None:
            if grid:
                write_grid_movie({str(k): animation for k in range(grid)}, path, **settings)
            else:
                write_movie(animation, path, **settings)

        measured = best(write, arguments.repeat)
        files = [path] if path.is_file() else list(path.iterdir())
        report(what, len(animation), measured, sum(file.stat().st_size for file in files))
    return measured[0]


def best(work: Callable[[], None], repeat: int) -> tuple[float, float]:
    """Return the least seconds, and the processor time of this run."""
    measured = []
    for _ in range(repeat):
        start, before = time.perf_counter(), processor_time()
        work()
        measured.append((time.perf_counter() - start, processor_time() - before))
    return min(measured)


def processor_time() -> float:
    """Return the processor time of this process and of its ended children."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def report(what: str, frames: int, measured: tuple[float, float], size: int | None = None) -> None:
    seconds, work = measured
    weight = "" if size is None else f"   {size / 1e6:6.2f} MB"
    print(
        f"{what:16} {frames / seconds:6.0f} frames a second   {seconds:6.2f} s   "
        f"{work:6.2f} s of processor time (2 processors: {2 * frames / work:4.0f}){weight}"
    )


# -- Memory ----------------------------------------------------------------------------------------


def measure_memory(animation: camanim.Animation, size: int) -> None:
    """Report the memory that a movie takes."""
    if not Path("/proc/self/statm").exists():
        print("memory: needs /proc of Linux")
        return
    with tempfile.TemporaryDirectory() as folder:
        for suffix in (".mp4", ".webm", ".gif"):
            gc.collect()
            before = resident("self")
            peaks, ended = [0, 0, 0], threading.Event()
            sampler = threading.Thread(target=sample, args=(peaks, ended))
            sampler.start()
            write_movie(animation, Path(folder) / f"movie{suffix}", size=size)
            ended.set()
            sampler.join()
            mebi = [
                round(n / 2**20) for n in (before, peaks[0] - before, peaks[1], peaks[2] - before)
            ]
            print(
                f"memory, {suffix:6} {mebi[0]} MiB before; at most {mebi[1]} MiB more in this process, "
                f"{mebi[2]} MiB in ffmpeg, {mebi[3]} MiB more in both together"
            )


def sample(peaks: list[int], ended: threading.Event) -> None:
    """Keep the largest resident memory of this process, of its children, and of all together."""
    while not ended.wait(0.002):
        mine = resident("self")
        children = 0
        for file in Path("/proc/self/task").glob("*/children"):
            children += sum(map(resident, filter(is_program, file.read_text().split())))
        peaks[:] = [
            max(a, b) for a, b in zip(peaks, (mine, children, mine + children), strict=True)
        ]


def is_program(process: str) -> bool:
    """Return whether a child has begun its program; until then it shares the memory of this process."""
    try:
        return Path(f"/proc/{process}/exe").resolve() != Path("/proc/self/exe").resolve()
    except OSError:
        return False


def resident(process: str) -> int:
    """Return the resident memory of a process in bytes; 0 if it has ended."""
    try:
        pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    except (OSError, IndexError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


# -- The published pipeline ------------------------------------------------------------------------


def compare_published(arguments: argparse.Namespace, frames_a_second: float) -> None:
    """Report how many frames the published pipeline writes in a second."""
    if not arguments.published.exists():
        print(f"published pipeline: {arguments.published} is missing, not compared")
        return
    name = arguments.model.rpartition("/")[2]
    command = [sys.executable, str(arguments.published), "--model", name, "--layers", "60"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        print(f"published pipeline: failed: {done.stderr.strip().splitlines()[-1:]}")
        return
    about = json.loads(done.stdout.splitlines()[-1])
    rate = about["modules"] / about["movie_s"]
    print(
        f"published pipeline {rate:3.0f} frames a second   {about['movie_s']:.2f} s for "
        f"{about['modules']} modules: {frames_a_second / rate:.0f} times as long for a frame"
    )


if __name__ == "__main__":
    main()
