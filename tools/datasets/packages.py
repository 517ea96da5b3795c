"""Fetch Debian packages with apt-get into a cache and unpack them with dpkg-deb, without root."""

import re
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO

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
            _download(missing, cache, options=())
        except PackagesUnavailable as reason:
            if not any(sign in str(reason) for sign in OUTDATED_LISTS):
                raise
            _download_with_fresh_lists(missing, cache)
    return [_cached(name, cache) for name in names]


def unpack_package(archive: Path, folder: Path, suffixes: tuple[str, ...]) -> None:
    """Unpack those files of a .deb whose names end in one of the suffixes into the folder.

    Raises:
        PackagesUnavailable: the archive is damaged; it is deleted first.
    """
    command = ["dpkg-deb", "--fsys-tarfile", str(archive)]
    with tempfile.TemporaryFile("w+") as complaints:
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=complaints) as process:
            whole = _extract(process.stdout, folder, suffixes)
        if process.returncode or not whole:
            complaints.seek(0)
            reason = " ".join(complaints.read().split()[:30])
            archive.unlink()  # otherwise every later run would fail on it too
            raise PackagesUnavailable(
                f"{archive} was damaged and is now deleted, run again to fetch it ({reason})"
            )


def _extract(stream: IO[bytes], folder: Path, suffixes: tuple[str, ...]) -> bool:
    """Unpack the tar stream; return whether all of it was readable."""
    try:
        with tarfile.open(fileobj=stream, mode="r|") as content:
            for member in content:
                if member.isfile() and member.name.endswith(suffixes):
                    content.extract(member, folder, filter="data")
    except tarfile.TarError:
        return False
    finally:
        while stream.read(1 << 20):  # dpkg-deb would report an error if we stopped reading
            pass
    return True


def _cached(name: str, cache: Path) -> Path | None:
    return max(cache.glob(f"{name}_*.deb"), default=None)


def _download_with_fresh_lists(names: Sequence[str], cache: Path) -> None:
    try:
        _download(names, cache, options=_private_lists(cache))
    except PackagesUnavailable as reason:
        raise PackagesUnavailable(f"{reason} (also after apt-get update; no network?)") from None


def _private_lists(cache: Path) -> tuple[str, ...]:
    """Fetch package lists into the cache (the system's need root) and return apt-get's options."""
    lists, archives = cache / "apt" / "lists", cache / "apt" / "archives"
    for folder in (lists, archives):
        (folder / "partial").mkdir(parents=True, exist_ok=True)
    options = (
        f"-oDir::State::Lists={lists.resolve()}",
        f"-oDir::Cache={(cache / 'apt').resolve()}",
        "-oAcquire::Languages=none",
    )
    finished = _apt_get(["update", *options])
    if finished.returncode:
        raise PackagesUnavailable(f"apt-get update failed: {_reason(finished)}")
    return options


def _download(names: Sequence[str], cache: Path, options: Sequence[str]) -> None:
    """Download to a partial folder first, so that every file in the cache is complete."""
    listed = _apt_get(["download", "--print-uris", *options, *names])
    if listed.returncode:
        raise PackagesUnavailable(f"apt-get does not know the packages: {_reason(listed)}")
    total = sum(int(size) for size in re.findall(r"_\S+\.deb (\d+) ", listed.stdout))
    partial = cache / "partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    _watch_download(["download", *options, *names], partial, total)
    for archive in partial.glob("*.deb"):
        archive.replace(cache / archive.name)
    partial.rmdir()
    absent = [name for name in names if _cached(name, cache) is None]
    if absent:
        raise PackagesUnavailable(f"apt-get brought no file for {', '.join(absent)}")


def _watch_download(arguments: Sequence[str], folder: Path, total: int) -> None:
    """Run apt-get in the folder and show the bytes received as a progress bar."""
    process = subprocess.Popen(
        _command(arguments), cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    with tqdm(total=total, unit="B", unit_scale=True, desc="Debian packages") as bar:
        while True:
            try:
                output = process.communicate(timeout=POLL_SECONDS)[0]
                break
            except subprocess.TimeoutExpired:
                bar.update(_bytes_below(folder) - bar.n)
        bar.update(_bytes_below(folder) - bar.n)
    if process.returncode:
        finished = subprocess.CompletedProcess(arguments, process.returncode, output, "")
        raise PackagesUnavailable(f"apt-get download failed: {_reason(finished)}")


def _bytes_below(folder: Path) -> int:
    return sum(path.stat().st_size for path in list(folder.iterdir()) if path.is_file())


def _command(arguments: Sequence[str]) -> list[str]:
    patience = ["-oAcquire::Retries=1", "-oAcquire::http::Timeout=20"]
    return ["apt-get", "-q", *patience, *arguments]


def _apt_get(arguments: Sequence[str]) -> subprocess.CompletedProcess:
    return subprocess.run(_command(arguments), capture_output=True, text=True)


def _reason(finished: subprocess.CompletedProcess) -> str:
    """The first line of the output that names an error, otherwise its last line."""
    lines = (finished.stdout + finished.stderr).strip().splitlines()
    errors = [line for line in lines if line.startswith(("E:", "dpkg-deb: error"))]
    return (errors or lines[-1:] or [f"exit status {finished.returncode}"])[0]
