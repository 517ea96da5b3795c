"""Fetch Debian packages with apt-get into a cache and unpack them with dpkg-deb, without root."""

import re
import shutil
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from tqdm import tqdm

PROGRAMS = ("apt-get", "dpkg-deb")
POLL_SECONDS = 0.2
OUTDATED_LISTS = ("Unable to locate", "No packages found", "404")  # in the output of apt-get


class PackagesUnavailable(RuntimeError):
    """The packages cannot be fetched on this machine; the message is one line with the reason."""


def fetch_packages(names: Sequence[str], cache: Path) -> list[Path]:
    """Fetch the packages that are not in the cache; return the .deb files of all, in order.

    Raises:
        PackagesUnavailable: a program is missing, or apt-get fails.
    """
    missing_programs = [program for program in PROGRAMS if shutil.which(program) is None]
    if missing_programs:
        raise PackagesUnavailable(f"this is not Debian: no {missing_programs[0]} program")
    cache.mkdir(parents=True, exist_ok=True)
    missing = [name for name in names if _cached(name, cache) is None]
    if missing:
        try:
            _download(missing, cache)
        except PackagesUnavailable as reason:
            if not any(sign in str(reason) for sign in OUTDATED_LISTS):
                raise
            try:
                _download(missing, cache, _private_lists(cache))
            except PackagesUnavailable as again:
                advice = "(also after apt-get update; no network?)"
                raise PackagesUnavailable(f"{again} {advice}") from None
    return [_cached(name, cache) for name in names]


def unpack_package(archive: Path, folder: Path, suffixes: tuple[str, ...]) -> None:
    """Unpack those files of a .deb whose names end in one of the suffixes into the folder.

    Raises:
        PackagesUnavailable: the archive is damaged; it is deleted first.
    """
    with tempfile.TemporaryFile(dir=archive.parent) as tar:
        command = ["dpkg-deb", "--fsys-tarfile", str(archive)]
        finished = subprocess.run(command, stdout=tar, stderr=subprocess.PIPE, text=True)
        if finished.returncode:
            reason = " ".join(finished.stderr.split()[:30])
            archive.unlink()  # otherwise every later run would fail on it too
            raise PackagesUnavailable(
                f"{archive} was damaged and is now deleted, run again to fetch it ({reason})"
            )
        tar.seek(0)
        with tarfile.open(fileobj=tar) as content:
            wanted = [x for x in content if x.isfile() and x.name.endswith(suffixes)]
            content.extractall(folder, wanted, filter="data")


def _cached(name: str, cache: Path) -> Path | None:
    return max(cache.glob(f"{name}_*.deb"), default=None)


def _private_lists(cache: Path) -> list[str]:
    """Fetch package lists into the cache (the system's need root) and return apt-get's options."""
    folder = (cache / "apt").resolve()
    for name in ("lists", "archives"):
        (folder / name / "partial").mkdir(parents=True, exist_ok=True)
    options = [f"-oDir::State::Lists={folder / 'lists'}", f"-oDir::Cache={folder}"]
    options.append("-oAcquire::Languages=none")
    _apt_get("apt-get update failed", ["update", *options])
    return options


def _download(names: Sequence[str], cache: Path, options: Sequence[str] = ()) -> None:
    """Download to a partial folder first, so that every file in the cache is complete."""
    listing = ["download", "--print-uris", *options, *names]
    listed = _apt_get("apt-get does not know the packages", listing)
    total = sum(int(size) for size in re.findall(r"_\S+\.deb (\d+) ", listed))
    partial = cache / "partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    with tqdm(total=total, unit="B", unit_scale=True, desc="Debian packages") as bar:
        command = ["download", *options, *names]
        _apt_get("apt-get download failed", command, partial, lambda: _show_bytes(partial, bar))
    for archive in partial.glob("*.deb"):
        archive.replace(cache / archive.name)
    partial.rmdir()
    absent = [name for name in names if _cached(name, cache) is None]
    if absent:
        raise PackagesUnavailable(f"apt-get brought no file for {', '.join(absent)}")


def _show_bytes(folder: Path, bar: tqdm) -> None:
    bar.update(sum(p.stat().st_size for p in list(folder.iterdir()) if p.is_file()) - bar.n)


def _apt_get(
    failure: str,
    arguments: Sequence[str],
    folder: Path | None = None,
    show_progress: Callable[[], None] = lambda: None,
) -> str:
    """The output of apt-get, run in the folder.

    Raises:
        PackagesUnavailable: it failed; the message has the first line of the output that names an
            error, otherwise its last line.
    """
    command = ["apt-get", "-q", "-oAcquire::Retries=1", "-oAcquire::http::Timeout=20", *arguments]
    with tempfile.TemporaryFile("w+") as file:
        process = subprocess.Popen(command, cwd=folder, stdout=file, stderr=subprocess.STDOUT)
        while process.poll() is None:
            time.sleep(POLL_SECONDS)
            show_progress()
        file.seek(0)
        output = file.read()
    if process.returncode:
        lines = output.strip().splitlines()
        errors = [line for line in lines if line.startswith(("E:", "dpkg-deb: error"))]
        reason = (errors or lines[-1:] or [f"exit status {process.returncode}"])[0]
        raise PackagesUnavailable(f"{failure}: {reason}")
    return output
