"""Shards and indexes that are missing, damaged, changed, hostile, or behind a URL."""

import functools
import hashlib
import io
import json
import pickle
import shutil
import tarfile
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from shard_sets import write_images, write_shards

from d2_isonet.data.datasets import load_registered, register_data_root
from d2_isonet.data.imagenet import ImageNetMapper, build_image_train_loader
from d2_isonet.data.loader import LoaderOptions
from d2_isonet.data.shards import reading as shard_reading
from d2_isonet.data.shards import source as shard_source
from d2_isonet.data.shards.index import load_shard_index
from d2_isonet.data.shards.reading import read_shard
from d2_isonet.utils.messages import UserError

WAYS = {"a path": "{}", "a file URL": "file://{}", "a command": "pipe:cat {}/{{}}"}


@pytest.fixture(scope="module")
def original(tmp_path_factory) -> Path:
    folder, output = tmp_path_factory.mktemp("images"), tmp_path_factory.mktemp("shards")
    write_images(folder, {"a": 3, "b": 4})
    return write_shards(folder, output, "--shard-samples", "4")


@pytest.fixture
def root(original, tmp_path, monkeypatch) -> Path:
    """A copy of the shards that a test may damage; nothing waits for another try."""
    for file in original.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    monkeypatch.setattr(shard_reading, "_WAITS", (0,))
    return tmp_path


@pytest.fixture
def server(root, monkeypatch):
    """The URL of `root`, served by this process."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    handler = functools.partial(SimpleHTTPRequestHandler, directory=str(root))
    handler.func.log_message = lambda *args: None
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as http:
        threading.Thread(target=http.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{http.server_port}"
        http.shutdown()


def change_index(root: Path, change) -> None:
    index = json.loads((root / "index.json").read_text())
    change(index)
    (root / "index.json").write_text(json.dumps(index))


def replace_shard(root: Path, members: dict[str, bytes], **attributes) -> None:
    """Make train-00000.tar of these files, and the index agree with it."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            for key, value in attributes.items():
                setattr(info, key, value)
            archive.addfile(info, io.BytesIO(data))
    set_shard(root, content.getvalue(), sum(name.endswith(".json") for name in members) or 1)


def set_shard(root: Path, content: bytes, samples: int) -> None:
    (root / "train-00000.tar").write_bytes(content)

    def change(index):
        train = index["splits"]["train"]
        entry = train["shards"][0]
        train["samples"] += samples - entry["samples"]
        entry |= {"samples": samples, "bytes": len(content)}
        entry["sha256"] = hashlib.sha256(content).hexdigest()

    change_index(root, change)


def read_first(root: Path | str) -> dict[int, dict]:
    images = load_shard_index(str(root))["train"]
    return read_shard(images.shards[0], len(images.classes), range(1000))


@pytest.mark.parametrize("way", WAYS)
def test_every_way_gives_the_same_images(way, root):
    url = WAYS[way].format(root)
    samples, expected = read_first(url), read_first(root)
    assert len(expected) == 3
    for number, sample in samples.items():
        assert {**sample, "file_name": ""} == {**expected[number], "file_name": ""}


def test_shards_are_read_over_http(root, server):
    assert [x["data"] for x in read_first(server).values()] == [
        x["data"] for x in read_first(root).values()
    ]


def test_a_data_root_may_be_a_url(server):
    train, val = (load_registered(name) for name in register_data_root(server))
    assert (len(train[0]), len(val[0]), train[1]) == (7, 7, ["a", "b"]) and val[1] == train[1]
    mapper = ImageNetMapper(True, crop_size=8)
    batch = next(
        iter(build_image_train_loader(train[0], mapper, LoaderOptions(7, num_workers=1, seed=0)))
    )
    assert sorted(x["image_id"] for x in batch) == list(range(7))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: x.update(format="other"), "is no index of image shards"),
        (lambda x: x.update(version=2), "has version 2, this d2_isonet reads 1"),
        (lambda x: x.update(classes=[]), r"damaged at classes: \[\]"),
        (lambda x: x.update(classes=["a", "a"]), "damaged at classes: a name given twice"),
        (lambda x: x.update(classes=["a", 1]), "damaged at classes"),
        (lambda x: x.pop("splits"), "damaged at splits: None"),
        (lambda x: x["splits"].update(train=[]), r"damaged at splits.train: \[\]"),
        (lambda x: x["splits"]["train"].update(samples=8), "samples: 8, its shards hold 7"),
        (lambda x: x["splits"]["train"]["shards"].clear(), r"train.shards: \[\]"),
        (lambda x: x["splits"]["train"]["shards"].append(3), r"train.shards\[2\]: 3"),
        (lambda x: x["splits"]["val"]["shards"][1].pop("bytes"), r"val.shards\[1\].bytes: None"),
        (lambda x: x["splits"]["val"]["shards"][1].update(bytes=True), r"\[1\].bytes: True"),
        (lambda x: x["splits"]["val"]["shards"][1].update(samples=-1), r"\[1\].samples: -1"),
        (lambda x: x["splits"]["val"]["shards"][1].update(sha256="0"), r"\[1\].sha256: 0"),
    ],
)
def test_a_damaged_index_is_told_where(change, message, root):
    change_index(root, change)
    with pytest.raises(ValueError, match=f"{root}/index.json .*{message}"):
        load_shard_index(str(root))


@pytest.mark.parametrize(
    "name", ["pipe:touch x.tar", "../x.tar", "/x.tar", "-x.tar", "x", "a b.tar"]
)
def test_an_index_names_plain_tar_files_only(name, root):
    change_index(root, lambda x: x["splits"]["train"]["shards"][0].update(file=name))
    with pytest.raises(ValueError, match=r"damaged at splits.train.shards\[0\].file"):
        load_shard_index(str(root))


@pytest.mark.parametrize(
    "content", [b"", b"{", b"<html>", b"\xff\xfe", b"[" * 100_000, b"[]", b"1"]
)
def test_an_index_that_is_no_json_of_ours_is_named(content, root):
    (root / "index.json").write_bytes(content)
    with pytest.raises(ValueError, match=f"{root}/index.json is no (json|index)"):
        load_shard_index(str(root))


@pytest.mark.parametrize(("samples", "size"), [(10**9, 10240), (10**9, 10**13)])
def test_a_claim_that_the_bytes_cannot_hold_is_refused(samples, size, root):
    def change(index: dict) -> None:
        split = index["splits"]["train"]
        split["samples"], split["shards"] = samples, split["shards"][:1]
        split["shards"][0] |= {"samples": samples, "bytes": size}

    change_index(root, change)
    with pytest.raises(
        UserError, match=r"damaged at splits.train(.shards\[0\])?.samples: 1000000000"
    ):
        load_shard_index(str(root))


def test_a_source_without_end_is_left(root):
    shard = load_shard_index(str(root))["train"].shards[0]
    with pytest.raises(UserError, match=f"and not {shard.bytes} as the index says"):
        read_shard(shard._replace(url=f"pipe:cat {shard.url} /dev/zero"), 2, [0])


def test_a_missing_index_is_told_from_an_unfinished_one(root):
    (root / "index.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"has 4 tar files and no index.json; copy"):
        register_data_root(str(root))
    (root / "shards.partial.jsonl").write_text("")
    with pytest.raises(FileNotFoundError, match="make-shards has not finished it; run the same"):
        register_data_root(str(root))


def test_a_missing_shard_is_named_at_the_start(root):
    (root / "val-00001.tar").unlink()
    with pytest.raises(FileNotFoundError, match=f"1 of 4 shards are missing.*{root}/val-00001.tar"):
        load_shard_index(str(root))


def test_a_truncated_shard_is_named_at_the_start(root):
    shard = root / "train-00001.tar"
    shard.write_bytes(shard.read_bytes()[:-512])
    with pytest.raises(ValueError, match=r"train-00001.tar has \d+ bytes and not \d+"):
        load_shard_index(str(root))


@pytest.mark.parametrize("size", [0, 100, 700, 1536, 5000, -1])
def test_a_truncated_shard_behind_a_url_gives_no_image(size, root):
    images = load_shard_index(f"file://{root}")["train"]
    shard = root / "train-00000.tar"
    shard.write_bytes(shard.read_bytes()[:size])
    with pytest.raises(ValueError, match=r"train-00000.tar has \d+ bytes and not \d+ .*copy it"):
        read_shard(images.shards[0], 2, range(9))


@pytest.mark.parametrize("position", [0, 130, 600, 1100, -1])
def test_one_changed_byte_is_noticed(position, root):
    content = bytearray((root / "train-00000.tar").read_bytes())
    content[position] ^= 1
    (root / "train-00000.tar").write_bytes(content)
    message = "train-00000.tar does not have the sha256 .*copy it again"
    with pytest.raises(ValueError, match=message):
        read_first(root)


RECORD = json.dumps({"file": "a/0.jpg", "image_id": 0, "label": 0}).encode()


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"0.jpg": b"x"}, "sample '0' is not an image and its json"),
        ({"0.json": RECORD}, "sample '0' is not an image and its json"),
        ({"0.jpg": b"x", "0.pickle": b"x", "0.json": RECORD}, "sample '0' is not an image and"),
        ({"0.jpg": b"x", "0.json": b"{"}, "0.json does not give file, image_id and label"),
        ({"0.jpg": b"x", "0.json": b"[" * 99999}, "0.json does not give file"),
        ({"0.jpg": b"x", "0.json": RECORD.replace(b"0}", b"true}")}, "0.json does not give"),
        ({"0.jpg": b"x", "0.json": RECORD.replace(b"0}", b"2}")}, "label 2 of 2 classes"),
        ({"0.jpg": b"x", "0.json": RECORD.replace(b"0}", b"-1}")}, "label -1 of 2 classes"),
        ({"README": b"x", "0.jpg": b"x", "0.json": RECORD}, "'README' is no plain file"),
    ],
)
def test_what_is_no_sample_is_refused(members, message, root):
    replace_shard(root, members)
    with pytest.raises(ValueError, match=f"train-00000.tar cannot be used: .*{message}.*; copy"):
        read_first(root)


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.DIRTYPE, tarfile.GNUTYPE_SPARSE])
def test_links_folders_and_sparse_files_are_refused(kind, root):
    replace_shard(root, {"0.jpg": b""}, type=kind)
    with pytest.raises(ValueError, match="train-00000.tar cannot be used"):
        read_first(root)


def test_compressed_tar_files_are_refused_before_they_grow(root):
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as archive:
        info = tarfile.TarInfo("0.jpg")
        info.size = 50_000_000
        archive.addfile(info, io.BytesIO(bytes(info.size)))
    set_shard(root, content.getvalue(), 1)
    with pytest.raises(ValueError, match="train-00000.tar cannot be used"):
        read_first(root)


def test_a_shard_with_fewer_images_than_the_index_says_is_refused(root):
    def change(index):
        index["splits"]["train"]["samples"] += 1
        index["splits"]["train"]["shards"][0]["samples"] += 1

    change_index(root, change)
    with pytest.raises(ValueError, match="has 3 images and not 4 as the index says; make"):
        read_first(root)


class Bomb:
    def __reduce__(self):
        return exec, ("raise SystemExit('a shard ran code')",)


def test_nothing_in_a_shard_is_unpickled(root):
    replace_shard(root, {"0.pyd": pickle.dumps(Bomb()), "0.json": RECORD})
    images = load_shard_index(str(root))["train"]
    loader = build_image_train_loader(
        images, ImageNetMapper(True, crop_size=8), LoaderOptions(7, seed=0)
    )
    with pytest.raises(ValueError, match=r"tar/a/0.jpg cannot be read .*make them again"):
        next(iter(loader))


@pytest.mark.parametrize("workers", [0, 1])
def test_a_sample_that_is_no_image_is_named_with_its_shard(workers, root):
    replace_shard(root, {"0.jpg": b"text", "0.json": RECORD})
    images = load_shard_index(str(root))["train"]
    mapper = ImageNetMapper(True, crop_size=8)
    loader = build_image_train_loader(images, mapper, LoaderOptions(7, workers, seed=0))
    with pytest.raises(ValueError, match=f"Image {root}/train-00000.tar/a/0.jpg cannot be read"):
        next(iter(loader))


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("http://127.0.0.1:1/x", r"http://127.0.0.1:1/x/index.json cannot be read \(exit code 7"),
        ("pipe:cat /no/such", "cannot be read .exit code 1 of: cat /no/such/index.json"),
        ("s3://bucket/x", "reads no s3: URLs; it reads .*'pipe:aws s3 cp s3://"),
        ("gs://bucket/x", "there is no program 'gsutil'; install it"),
    ],
)
def test_a_url_that_cannot_be_read_is_named_with_the_reason(url, message, tmp_path, monkeypatch):
    for program in ("cat", "curl"):
        (tmp_path / program).symlink_to(shutil.which(program))
    monkeypatch.setenv("PATH", str(tmp_path))  # no other program, such as gsutil
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with pytest.raises(ValueError, match=message):
        load_shard_index(url)


def test_a_missing_file_of_a_server_is_named(root, server):
    (root / "index.json").unlink()
    with pytest.raises(ValueError, match=f"{server}/index.json cannot be read .exit code 22 of: "):
        load_shard_index(server)


def test_a_source_that_falls_silent_is_given_up(root, monkeypatch):
    monkeypatch.setattr(shard_source, "_SILENCE", 0.2)
    with pytest.raises(ValueError, match="index.json cannot be read .nothing arrived for 0 s"):
        load_shard_index("pipe:exec sleep 60; #")


def test_a_failed_shard_is_tried_again(root, monkeypatch, caplog):
    command = f"if mkdir {root}/tried 2>/dev/null; then exit 3; else cat {root}/{{}}; fi"
    images = load_shard_index(f"file://{root}")["train"]
    shard = images.shards[0]._replace(url=f"pipe:{command.format('train-00000.tar')}")
    assert len(read_shard(shard, 2, range(9))) == 3
    assert "exit code 3" in caplog.text and "trying again" in caplog.text


def test_webdataset_is_named_where_it_is_missing(root, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "webdataset", None)
    with pytest.raises(
        ValueError, match="needs webdataset, which is not installed; pip install webdataset"
    ):
        load_shard_index(str(root))
