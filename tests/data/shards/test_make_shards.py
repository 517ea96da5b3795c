"""d2-isonet make-shards: unchanged bytes, the same shards every time, no partial result."""

import json
import os
import shutil
import subprocess
import sys
import tarfile
from collections import namedtuple
from pathlib import Path

import pytest
from filelock import FileLock
from repository import REPOSITORY
from shard_sets import make_shards, write_images, write_shards

from d2_isonet.data.image_folder import load_image_folder
from d2_isonet.data.shards import plan
from d2_isonet.data.shards import writing as write
from d2_isonet.data.shards.index import load_shard_index


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("images")
    write_images(root, {"a": 6, "b.c": 4})
    return root


def files_of(output: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in output.iterdir()}


def samples_of(output: Path, split: str) -> list[tuple[dict, bytes]]:
    """(json, image bytes) of every sample, by tarfile alone."""
    samples = []
    for shard in load_shard_index(str(output))[split].shards:
        with tarfile.open(shard.url) as archive:
            contents = {m.name: archive.extractfile(m).read() for m in archive}
        for name, data in contents.items():
            if not name.endswith(".json"):
                samples.append((json.loads(contents[f"{name[:9]}.json"]), data))
    return samples


def test_shards_hold_the_folder_s_files_byte_by_byte(folder, tmp_path):
    output = write_shards(folder, tmp_path / "out", "--shard-samples", "3")
    for split in ("train", "val"):
        dicts, classes = load_image_folder(str(folder), split)
        samples = samples_of(output, split)
        assert sorted(record["image_id"] for record, _ in samples) == list(range(10))
        for record, data in samples:
            expected = dicts[record["image_id"]]
            path = folder / split / record["file"]
            assert path == Path(expected["file_name"]) and data == path.read_bytes()
            assert record["label"] == expected["label"]
        images = load_shard_index(str(output))[split]
        assert images.classes == tuple(classes) == ("a", "b.c") and len(images) == 10
        assert [shard.samples for shard in images.shards] == [2, 3, 2, 3]


def test_train_is_shuffled_by_the_seed_and_val_keeps_its_order(folder, tmp_path):
    orders = {}
    for name, seed in (("a", "0"), ("b", "0"), ("c", "1")):
        write_shards(folder, tmp_path / name, "--seed", seed)
        orders[name] = [
            [record["image_id"] for record, _ in samples_of(tmp_path / name, split)]
            for split in ("train", "val")
        ]
    assert files_of(tmp_path / "a") == files_of(tmp_path / "b")
    assert orders["a"][0] != orders["c"][0] and orders["a"][0] != list(range(10))
    assert all(val == list(range(10)) for _, val in orders.values())


def test_shards_are_about_as_large_as_asked_and_as_planned(folder, tmp_path):
    output = write_shards(folder, tmp_path / "out", "--shard-megabytes", "0.01")
    sizes = [len(data) for name, data in files_of(output).items() if name.endswith(".tar")]
    made = plan.make_plan(folder, 0.01, None, 0)
    assert sorted(sizes) == sorted(shard.bytes for shard in made.shards)
    assert len(sizes) > 4 and max(sizes) <= 10240 * 2


def test_webdataset_s_own_pipeline_reads_the_shards(folder, tmp_path):
    import webdataset

    output = write_shards(folder, tmp_path / "out")
    reader = webdataset.WebDataset(str(output / "val-00000.tar"), shardshuffle=False)
    keys = [sample["__key__"] for sample in reader]
    assert keys == [f"{number:09d}" for number in range(10)]


def test_a_killed_run_is_finished_by_the_same_command(folder, tmp_path, monkeypatch):
    expected = files_of(write_shards(folder, tmp_path / "whole", "--shard-samples", "2"))
    options = [str(folder), "--output", str(tmp_path / "out"), "--shard-samples", "2"]
    written = []

    def killed(output, shard):
        if len(written) == 4:
            (output / f".{shard.file}.partial").write_bytes(b"half of it")
            raise KeyboardInterrupt
        written.append(shard.file)
        return write_shard(output, shard)

    write_shard = write.write_shard
    monkeypatch.setattr(write, "write_shard", killed)
    assert make_shards.main([*options, "--workers", "1"]) == 130
    assert not (tmp_path / "out" / "index.json").exists()
    with open(tmp_path / "out" / "shards.partial.jsonl", "a") as journal:
        journal.write('{"file": "torn')
    (tmp_path / "out" / written[0]).unlink()  # a shard that did not reach the disk
    begun = set(written)
    written.clear()
    written_again = []
    monkeypatch.setattr(
        write, "write_shard", lambda *args: written_again.append(args[1].file) or write_shard(*args)
    )
    assert make_shards.main(options) == 0
    assert files_of(tmp_path / "out") == expected
    assert len(begun) == 4 and len(set(written_again) & begun) == 1


@pytest.mark.slow  # a process of its own imports torch
def test_kill_9_leaves_no_shard_that_looks_whole(folder, tmp_path):
    code = (
        "import os, sys, shutil\n"
        "from d2_isonet.data.shards import writing as write\n"
        "count = []\n"
        "def dying(path):\n"
        "    count.append(path)\n"
        "    os.kill(os.getpid(), 9) if len(count) == 8 else None\n"
        "    return read(path)\n"
        "read, write.Path.read_bytes = write.Path.read_bytes, dying\n"
        "from d2_isonet.commands import make_shards; make_shards.main(sys.argv[1:])"
    )
    options = [str(folder), "--output", str(tmp_path / "out"), "--shard-samples", "3"]
    environment = {**os.environ, "PYTHONPATH": f"{REPOSITORY}:{REPOSITORY / 'tools'}"}
    command = [sys.executable, "-c", code, *options, "--workers", "1"]
    assert subprocess.run(command, env=environment, capture_output=True).returncode == -9
    whole = files_of(write_shards(folder, tmp_path / "whole", "--shard-samples", "3"))
    left = files_of(tmp_path / "out")
    tars = {name: data for name, data in left.items() if name.endswith(".tar")}
    assert 0 < len(tars) < 8 and all(whole[name] == data for name, data in tars.items())
    assert make_shards.main(options) == 0 and files_of(tmp_path / "out") == whole


def test_a_finished_set_is_left_as_it_is(folder, tmp_path, monkeypatch):
    output = write_shards(folder, tmp_path / "out")
    monkeypatch.setattr(write, "write_shard", None)
    before = files_of(output)
    write_shards(folder, output)
    assert files_of(output) == before


def refused(capsys, *arguments: str) -> str:
    with pytest.raises(SystemExit, match="2"):
        make_shards.main([*arguments])
    return capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize("finished", [True, False])
def test_an_output_of_other_images_is_refused(finished, folder, tmp_path, capsys):
    output = write_shards(folder, tmp_path / "out")
    if not finished:
        entry = {"plan": json.loads((output / "index.json").read_text())["plan"]}
        (output / "shards.partial.jsonl").write_text(json.dumps(entry) + "\n")
        (output / "index.json").unlink()
    before = files_of(output)
    message = refused(capsys, str(folder), "--output", str(output), "--seed", "1")
    assert f"{output} holds" in message and "another --output" in message
    assert files_of(output) == before


@pytest.mark.parametrize("name", ["index.json", "shards.partial.jsonl"])
def test_a_damaged_record_is_named(name, folder, tmp_path, capsys):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / name).write_text("[1\n")
    message = refused(capsys, str(folder), "--output", str(tmp_path / "out"))
    assert f"{tmp_path}/out/{name} is damaged" in message


def test_tar_files_of_others_are_not_overwritten(folder, tmp_path, capsys):
    (tmp_path / "train-00000.tar").write_bytes(b"mine")
    message = refused(capsys, str(folder), "--output", str(tmp_path))
    assert "holds train-00000.tar and 0 more" in message
    assert files_of(tmp_path) == {"train-00000.tar": b"mine"}


def test_a_second_run_beside_the_first_is_refused(folder, tmp_path, capsys):
    with FileLock(tmp_path / "shards.partial.lock"):
        message = refused(capsys, str(folder), "--output", str(tmp_path))
    assert f"Another make-shards is writing to {tmp_path}" in message


def test_too_full_a_disk_is_told_before_anything_is_written(folder, tmp_path, capsys, monkeypatch):
    usage = namedtuple("usage", "free")(10_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    message = refused(capsys, str(folder), "--output", str(tmp_path))
    assert "take 0.00 GB and" in message and "make room" in message
    assert not list(tmp_path.glob("*.tar"))


@pytest.mark.parametrize("problem", ["gone", "empty", "grown", "output is input", "no val"])
def test_what_is_wrong_with_the_folder_is_told(problem, folder, tmp_path, capsys, monkeypatch):
    copy, output = tmp_path / "images", tmp_path / "out"
    shutil.copytree(folder, copy)
    image = copy / "train" / "a" / "train.0.JPEG"
    if problem == "empty":
        image.write_bytes(b"")
    elif problem == "no val":
        shutil.rmtree(copy / "val")
    elif problem == "output is input":
        output = copy
    else:  # after the folder was listed
        change = image.unlink if problem == "gone" else lambda: image.write_bytes(b"more" * 9999)
        write_shard = write.write_shard
        monkeypatch.setattr(
            write, "write_shard", lambda *args: (image.exists() and change(), write_shard(*args))[1]
        )
    message = refused(capsys, str(copy), "--output", str(output), "--workers", "1")
    named = {"no val": f"{copy} has no val/", "output is input": f"{copy} itself"}
    assert named.get(problem, f"Image {image} ") in message
    assert not (output / "index.json").exists()


@pytest.mark.parametrize(
    "options",
    [["--shard-samples", "0"], ["--shard-megabytes", "-1"], ["--workers", "0"], ["--seed", "-1"],
     ["--shard-samples", "3", "--shard-megabytes", "3"]],
)  # fmt: skip
def test_impossible_options_are_refused(options, capsys):
    with pytest.raises(SystemExit, match="2"):
        make_shards.argument_parser().parse_args(["x", "--output", "y", *options])


def test_help_does_not_wait_for_torch():
    command = [sys.executable, "-X", "importtime", "tools/make_shards.py", "--help"]
    process = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert "--shard-megabytes" in process.stdout and "torch" not in process.stderr
