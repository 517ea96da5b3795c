"""Obtains the sdist pb1-detectron2 0.6: the user's package index, or a file given by hand."""

import ast
import hashlib
import os
import subprocess
import sys
from pathlib import Path

REQUIREMENT = "pb1-detectron2==0.6"
SHA256 = "5d2e9e51e523ec72f6a31cca04b0a515492e9514b773a3d134cedc0677170b29"
SDIST_VARIABLE = "DETECTRON2_SDIST"


def obtain_sdist(folder: Path) -> Path:
    """The checked archive: the file named by $DETECTRON2_SDIST, else a download into folder."""
    given = os.environ.get(SDIST_VARIABLE)
    archive = Path(given) if given else download(folder)
    if not archive.is_file():
        raise FileNotFoundError(f"{SDIST_VARIABLE}={given}: there is no such file")
    check_sha256(archive)
    return archive


def check_sha256(archive: Path) -> None:
    """Raise ValueError unless the archive is byte for byte the one the edits were written for."""
    found = hashlib.sha256(archive.read_bytes()).hexdigest()
    if found != SHA256:
        raise ValueError(
            f"{archive} is not the expected sdist of {REQUIREMENT}: its sha256 is {found}, "
            f"expected {SHA256}. Nothing was installed. Check the package index in `pip config "
            f"list`, or name the right file in the environment variable {SDIST_VARIABLE}."
        )


def download(folder: Path) -> Path:
    """Download the sdist into folder from the index that pip is configured to use.

    pip itself cannot: it wants the package's metadata, which needs torch or meets a direct URL.
    """
    from unearth import PackageFinder
    from unearth.fetchers.sync import PyPIClient

    options = pip_options()
    trusted_hosts = options.get("trusted-host", "").split()
    # verify: pip's own certificate bundle where one is set, as behind a company proxy.
    session = PyPIClient(
        trusted_hosts=trusted_hosts, verify=options.get("cert") or True, timeout=60.0
    )
    finder = PackageFinder(session, no_binary=[REQUIREMENT.partition("==")[0]])
    _set_sources(finder, options)
    with session:
        best = finder.find_best_match(REQUIREMENT).best
        if best is None:
            indexes = [source["url"] for source in finder.sources]
            raise FileNotFoundError(
                f"{REQUIREMENT} is in none of {indexes}. Fetch its sdist (.tar.gz) elsewhere and "
                f"name the file in the environment variable {SDIST_VARIABLE}."
            )
        return finder.download(best.link, folder, hashes={"sha256": [SHA256]})


def pip_options() -> dict[str, str]:
    """pip's settings by their long names; environment variables win over configuration files."""
    command = [sys.executable, "-m", "pip", "config", "list"]
    listing = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = {}
    for line in listing.splitlines():
        name, _, value = line.partition("=")
        found[name] = ast.literal_eval(value)
    options = {}
    for section in ("global", "install", ":env:"):
        prefix = f"{section}."
        options |= {k.removeprefix(prefix): v for k, v in found.items() if k.startswith(prefix)}
    return options


def _set_sources(finder, options: dict[str, str]) -> None:
    """Point the finder, which starts with its default index, at the user's indexes."""
    if "index-url" in options or options.get("no-index", "").lower() in ("1", "true", "yes", "on"):
        finder.sources.clear()
    if "index-url" in options and "no-index" not in options:
        finder.add_index_url(options["index-url"])
    for url in options.get("extra-index-url", "").split():
        finder.add_index_url(url)
    for place in options.get("find-links", "").split():
        finder.add_find_links(place if "://" in place else Path(place).resolve().as_uri())
