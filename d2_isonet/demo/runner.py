"""From sources to annotated copies and COCO json, with the time left and what was skipped."""

import argparse
import itertools
import sys
import time
from collections.abc import Iterator, Sequence

from tqdm import tqdm

from d2_isonet.utils.messages import INTERRUPTED, some

from .detector import Detector
from .drawing import draw
from .outputs import Sink
from .results import CocoResults
from .sources import Found, Source
from .streams import Picture, Report, count_pictures, read_pictures


def run(args: argparse.Namespace, detector: Detector, found: Found) -> int:
    """Look at all, write what is asked for, print what came of it; returns the exit code.

    Ctrl-C ends it early and keeps what there is, which is how a webcam is stopped.
    """
    start, report = time.time(), Report()
    results = CocoResults(detector.categories, args.annotations)
    sink = Sink(args.output)
    args.output.mkdir(parents=True, exist_ok=True)
    if found.others:
        report.note(f"left out, no image or video by their suffix: {some(found.others)}")
    total = count_pictures(found.sources, args.max_frames)
    interval = 0.5 if sys.stderr.isatty() else 30
    is_interrupted = False
    with tqdm(total=total, desc="looking", unit=" pictures", mininterval=interval) as progress:
        pictures = _all_pictures(found.sources, report, args.max_frames)
        try:
            _look_at(pictures, args.batch_size, detector, results, sink, report, progress)
        except KeyboardInterrupt:
            is_interrupted = True
        finally:
            sink.close()
    results.write(args.output)
    _tell(args, found.sources, results, report, time.time() - start)
    if is_interrupted:
        print("interrupted: what had been looked at is written", flush=True)
        return 0 if found.sources[0].kind == "webcam" else INTERRUPTED
    return 0 if results.images else 1


def _all_pictures(
    sources: Sequence[Source], report: Report, max_frames: int | None
) -> Iterator[Picture]:
    for source in sources:
        yield from read_pictures(source, report, max_frames)


def _look_at(
    pictures: Iterator[Picture],
    batch_size: int,
    detector: Detector,
    results: CocoResults,
    sink: Sink,
    report: Report,
    progress: tqdm,
) -> None:
    while batch := list(itertools.islice(pictures, batch_size)):
        found = detector.instances([picture.pixels for picture in batch])
        for picture, instances in zip(batch, found, strict=True):
            if isinstance(instances, ValueError):
                report.skip(picture.source, instances)
                continue
            results.add(picture.entry, instances)
            sink.write(picture, draw(picture.pixels, instances, detector.categories.names))
        progress.update(len(batch))


def _tell(
    args: argparse.Namespace,
    sources: Sequence[Source],
    results: CocoResults,
    report: Report,
    seconds: float,
) -> None:
    number = len(results.images)
    each = f", {seconds / number:.2f} s each" if number else ""
    print(
        f"{number} pictures in {seconds:.1f} s{each}: {len(results.results)} objects of score "
        f"{args.threshold:g} or more, in {args.output}"
    )
    if args.annotations and results.unknown:
        print(f"{results.unknown} of them are not in {args.annotations} and got new image ids")
    if report.skipped:
        print(
            f"{len(report.skipped)} of {len(sources)} files could not be read: "
            f"{some(list(report.skipped))}",
            file=sys.stderr,
        )
