"""From sources to annotated copies and COCO json, with a progress bar and a summary."""

import argparse
import contextlib
import itertools
import sys
import time
from collections.abc import Iterator

from detectron2.structures import Instances
from tqdm import tqdm

from d2_isonet.data.image_file import MOST_PIXELS
from d2_isonet.engine.drawing import draw_instances
from d2_isonet.utils.messages import INTERRUPTED, shortened

from .detector import Detector
from .outputs import CocoResults, Sink
from .sources import Found, Source
from .streams import Picture, Report, count_pictures, read_pictures


def run(
    args: argparse.Namespace, detector: Detector, found: Found, most_pixels: int = MOST_PIXELS
) -> int:
    """Detect objects in all sources, write the results, print a summary, return the exit code.

    Ctrl-C ends the run early and keeps the results so far. A webcam is stopped in this way. Images
    of more than `most_pixels` (INPUT.MAX_IMAGE_PIXELS) are skipped.
    """
    start, report, is_interrupted = time.time(), Report(), False
    results = CocoResults(detector.categories, args.annotations)
    args.output.mkdir(parents=True, exist_ok=True)
    if found.others:
        report.note(f"left out, not an image or video by suffix: {shortened(found.others)}")
    try:
        _detect_all(args, detector, found.sources, results, report, most_pixels)
    except KeyboardInterrupt:
        is_interrupted = True
    results.write(args.output)
    _print_summary(args, results, time.time() - start)
    if report.skipped:
        skipped = f"{len(report.skipped)} of {len(found.sources)} files could not be read"
        print(f"{skipped}: {shortened(list(report.skipped))}", file=sys.stderr)
    if is_interrupted:
        print("interrupted: the results so far are written", flush=True)
        return 0 if found.sources[0].kind == "webcam" else INTERRUPTED
    return 0 if results.images else 1


def _detect_all(
    args: argparse.Namespace,
    detector: Detector,
    sources: list[Source],
    results: CocoResults,
    report: Report,
    most_pixels: int,
) -> None:
    total = count_pictures(sources, args.max_frames)
    interval = 0.5 if sys.stderr.isatty() else 30
    pictures = itertools.chain.from_iterable(
        read_pictures(source, report, args.max_frames, most_pixels) for source in sources
    )
    names, sink = detector.categories.names, Sink(args.output)
    with (
        contextlib.closing(sink),
        tqdm(total=total, desc="detecting", unit=" pictures", mininterval=interval) as progress,
    ):
        for picture, instances in _detections(detector, pictures, args.batch_size):
            progress.update()
            if isinstance(instances, ValueError):
                report.skip(picture.source, instances)
            else:
                results.add(picture.entry, instances)
                sink.write(picture, draw_instances(picture.pixels, instances, names))


def _detections(
    detector: Detector, pictures: Iterator[Picture], batch_size: int
) -> Iterator[tuple[Picture, Instances | ValueError]]:
    while batch := list(itertools.islice(pictures, batch_size)):
        yield from zip(batch, detector.instances([x.pixels for x in batch]), strict=True)


def _print_summary(args: argparse.Namespace, results: CocoResults, seconds: float) -> None:
    number = len(results.images)
    each = f", {seconds / number:.2f} s each" if number else ""
    print(
        f"{number} pictures in {seconds:.1f} s{each}: {len(results.results)} objects of score "
        f"{args.threshold:g} or more, in {args.output}"
    )
    if args.annotations and results.unknown:
        print(f"{results.unknown} of them are not in {args.annotations} and got new image ids")
