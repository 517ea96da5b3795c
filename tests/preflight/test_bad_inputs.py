"""What users really do to a detection trainer, row by row of docs/reliability.md."""

import ast
import re
import socket
from datetime import timedelta
from pathlib import Path
from typing import NamedTuple

import bad_files
import pytest
import torch
from detectron2.config import get_cfg
from repository import REPOSITORY

from d2_isonet.commands import train
from d2_isonet.distributed import meeting

SMALL = "--config-file configs/quickstart/small_risonet18_dc5.yaml"
DATA = "--train-json {json} --train-images {images} --val-json {json} --val-images {images}"
RUN = (
    "SOLVER.MAX_ITER 2 SOLVER.STEPS () SOLVER.IMS_PER_BATCH 2 SOLVER.REFERENCE_WORLD_SIZE 0 "
    "DATALOADER.NUM_WORKERS 0 OUTPUT_DIR {tmp}/out MODEL.WEIGHTS= "
)
HEAD_ONLY = "FLOAT32_PRECISION"


class Stop(NamedTuple):
    """A command line of d2-isonet train that ends with one message before a model is built."""

    row: int
    words: str
    message: str


def with_weights(row: int, name: str, message: str) -> Stop:
    return with_pairs(row, f"MODEL.WEIGHTS {{file:{name}}}", message)


def with_yaml(row: int, name: str, message: str) -> Stop:
    return Stop(row, f"--config-file {{file:{name}}}", message)


def with_pairs(row: int, pairs: str, message: str) -> Stop:
    return Stop(row, f"{SMALL} {DATA} {RUN} {pairs}", message)


STOPS = [
    with_pairs(30, "SOLVER.BASE_LRR 0.1", "did you mean SOLVER.BASE_LR?"),
    with_yaml(30, "typo.yaml", "typo.yaml: .*BASE_LRR; did you mean SOLVER.BASE_LR?"),
    with_yaml(32, "tab.yaml", r"tab.yaml, line 2: found character '\\t'"),
    with_pairs(33, "SOLVER.BASE_LR", "'SOLVER.BASE_LR', has no value"),
    with_pairs(34, "--dist-url tcp://x:1", "--dist-url stands after the KEY VALUE pairs"),
    with_pairs(34, "--resume", "--resume stands after the KEY VALUE pairs"),
    with_yaml(35, "none.yaml", "--config-file: there is no file /.*none.yaml"),
    Stop(35, "--config-file configs/risonet50_c5.yaml", "did you mean risonet50_(c4|dc5).yaml?"),
    with_yaml(36, "hostile.yaml", "hostile.yaml, line 1: .*os.mkdir.*none was run"),
    with_yaml(36, "hostile_leaf.yaml", "hostile.yaml, line 1: .*none was run"),
    with_yaml(36, "circle_a.yaml", "circle_a.yaml: _BASE_ goes in a circle"),
    with_yaml(36, "orphan.yaml", "orphan.yaml: _BASE_: there is no file /.*parent.yaml"),
    with_yaml(36, "address.yaml", "_BASE_ is the address https://example.invalid.*save that file"),
    with_yaml(36, "number_base.yaml", "_BASE_ is 3; it must be the name"),
    with_yaml(36, "aliases.yaml", "aliases.yaml stands for .*e.08 values"),
    with_yaml(36, "merges.yaml", "merges.yaml stands for .*e.09 values"),
    with_yaml(36, "ouroboros.yaml", "an alias stands for a value that contains it"),
    with_yaml(36, "deep.yaml", "deep.yaml is nested too deeply"),
    with_yaml(36, "binary.yaml", "binary.yaml is no text"),
    with_yaml(36, "list.yaml", "this is no yaml of KEY: VALUE lines, but list"),
    with_yaml(36, "date.yaml", "a value is not of its yaml type"),
    with_weights(37, "hostile.pkl", "hostile.pkl is a pickle, which can run .*--trust-pickle"),
    with_weights(38, "hostile.pth", "holds Python objects .*mkdir.*not opened.*tensors alone"),
    with_weights(38, "arguments.pth", "holds Python objects .argparse.Namespace"),
    with_weights(38, "renamed_pickle.pth", "is a bare pickle, which would run code"),
    with_weights(39, "numpy.pth", r"holds numpy values .*float\(x\)"),
    with_weights(39, "arrays.pth", r"holds numpy values .*torch.from_numpy\(x\)"),
    with_weights(40, "truncated.pth", "is truncated .its archive has no end.: copy or download"),
    with_weights(40, "empty.pth", r"is empty \(0 bytes\)"),
    with_weights(40, "page.pth", "is an HTML page, not weights"),
    with_weights(40, "pointer.pth", "is a git-lfs pointer.*git lfs pull"),
    with_weights(40, "bomb.pth", r"declares .* MB in a file of .* MB \(a zip bomb"),
    with_weights(40, "folder.pth", "is a folder; name a file in it"),
    with_weights(40, "photo.pth", "is not a checkpoint of torch.save .it begins with"),
    with_weights(40, "cut.safetensors", "is truncated or damaged .*copy or download it again"),
    with_weights(40, "list.pth", "list.pth holds a list, no state_dict"),
    with_weights(41, "deeper.pth", "have no place in the model .res2.2.*check MODEL.RESNETS.DEPTH"),
    Stop(41, f"{SMALL} {DATA} {RUN} MODEL.RESNETS.DEPTH 34 MODEL.WEIGHTS {{file:shallower.pth}}",
         r"40 tensors would keep their random initialization:\s+backbone.res2.2"),
    with_weights(42, "bottlenecks.pth", r"shape \(16, 16, 1, 1\) in the file, \(16, 16, 3, 3\)"),
    with_weights(43, "no_prefix.pth", "there as stem.conv1.weight.*matching_heuristics"),
    with_weights(43, "other_prefix.pth", "67 tensors would keep their random initialization"),
    Stop(44, f"{SMALL} --eval-only {DATA} {RUN}", "--eval-only with MODEL.WEIGHTS '' would eval"),
    with_pairs(46, "MODEL.BACKBONE.NAME build_isonet", "did you mean build_isonet_backbone?"),
    with_pairs(46, "MODEL.BACKBONE.NAME build_swin", "nobody registered; import the package"),
    with_pairs(46, "MODEL.META_ARCHITECTURE FasterRCNN", "'FasterRCNN', which nobody registered"),
    with_pairs(46, "MODEL.ROI_BOX_HEAD.NAME Fast", "MODEL.ROI_BOX_HEAD.NAME is 'Fast': No object"),
    with_pairs(47, "MODEL.RESNETS.NORM BNN", "NORM is 'BNN'.*must be one of.*did you mean BN"),
    with_pairs(47, "MODEL.ROI_BOX_HEAD.NORM BNN MODEL.ROI_BOX_HEAD.NUM_CONV 1",
               "MODEL.ROI_BOX_HEAD.NORM is 'BNN'"),
    with_pairs(47, "MODEL.BACKBONE.NAME build_resnet_backbone MODEL.RESNETS.NORM BNN "
               "MODEL.RESNETS.RES2_OUT_CHANNELS 64", "NORM is 'BNN'; it must be one of"),
    with_pairs(48, "MODEL.DEVICE gpu", "MODEL.DEVICE is 'gpu'; it must be 'cpu', 'cuda'"),
    with_pairs(50, "SOLVER.IMS_PER_BATCH 0", "IMS_PER_BATCH is 0; it must be a positive multiple"),
    with_pairs(50, "SOLVER.REFERENCE_WORLD_SIZE 8", "give a multiple of 8, which is rescaled"),
    with_pairs(60, "OUTPUT_DIR {file:photo.pth}/out", "photo.pth is no folder.; set OUTPUT_DIR"),
    with_pairs(60, "OUTPUT_DIR /proc/out", "/proc/out cannot be written to"),
    Stop(67, f"--config-file configs/risonet18_fpn.yaml {DATA} {RUN} MODEL.RESNETS.RES5_DILATION 2",
         "RES5_DILATION is 2 with an FPN.*set it to 1, or use a .*_dc5.yaml"),
    Stop(67, f"--config-file configs/risonet18_fpn.yaml {DATA} {RUN} MODEL.RESNETS.RES5_DILATION 2 "
         "MODEL.BACKBONE.NAME build_resnet_fpn_backbone MODEL.RESNETS.RES2_OUT_CHANNELS 64",
         "RES5_DILATION is 2 with an FPN"),
]  # fmt: skip

# Rows that another test shows; each names a function there.
SHOWN_BY = {
    31: "test_bad_inputs.py::test_a_key_of_head_alone_is_used_nowhere",
    45: "test_bad_inputs.py::test_a_question_mark_is_a_part_of_the_name",
    49: "test_engine.py::test_a_two_process_run_equals_a_one_process_run",
    51: "test_bad_inputs.py::test_a_port_in_use_is_named",
    61: "test_coco_evaluator.py::test_no_detections_are_an_ap_of_0_with_its_reason",
    65: "test_predictor.py::test_what_is_no_image_is_refused",
    66: "test_predictor.py::test_what_is_no_image_is_refused",
    68: "test_bad_inputs.py::test_the_width_of_a_shallow_network_is_set_by_its_depth",
}


@pytest.fixture
def words_of(tmp_path, coco_files):
    """A command line with its files written and its places filled in."""

    def fill(words: str) -> list[str]:
        for name in re.findall(r"\{file:(.*?)\}", words):
            words = words.replace(f"{{file:{name}}}", str(bad_files.write(tmp_path, name)))
        json_file, images = coco_files
        return words.format(tmp=tmp_path, json=json_file, images=images).split()

    return fill


@pytest.fixture
def parsed(words_of, monkeypatch):
    """What d2-isonet train makes of a command line."""

    def parse(words: str):
        monkeypatch.delenv("D2_ISONET_TRACEBACK", raising=False)
        return train.argument_parser().parse_args(words_of(words))

    return parse


@pytest.mark.parametrize("stop", STOPS, ids=lambda stop: f"{stop.row}-{stop.words[-25:]}")
def test_it_ends_with_one_message_before_a_model_is_built(
    stop, parsed, tmp_path, capsys, monkeypatch
):
    from d2_isonet.engine import trainer as engine

    def build(*args):
        raise AssertionError("a model was built")

    monkeypatch.setattr(engine.Trainer, "build_model", build)
    with pytest.raises(SystemExit) as end:
        train.train(parsed(stop.words))
    assert end.value.code == 2
    error = capsys.readouterr().err
    assert re.search(f"error: .*{stop.message}", error, re.DOTALL), error
    assert "Traceback" not in error
    assert not (tmp_path / "executed").exists() and not Path("executed").exists()


def test_all_errors_come_in_one_table(parsed, capsys):
    words = f"{SMALL} {DATA} {RUN} MODEL.RESNETS.NORM BNN MODEL.WEIGHTS {{file:page.pth}}"
    with pytest.raises(SystemExit):
        train.train(parsed(f"{words} OUTPUT_DIR /proc/out MODEL.DEVICE gpu"))
    captured = capsys.readouterr()
    assert "4 errors, 0 warnings, 1 fact" in captured.out
    assert "4 things must be put right first" in captured.err
    for text in ("MODEL.DEVICE is 'gpu'", "NORM is 'BNN'", "HTML page", "/proc/out"):
        assert text in captured.err


def checked(args) -> list:
    """The findings on a run that is to begin."""
    from d2_isonet.config.loading import load_config
    from d2_isonet.data.datasets import use_own_data
    from d2_isonet.preflight.run import check_run

    cfg = load_config(args.config_file, args.opts)
    use_own_data(cfg, args)
    return check_run(cfg, args)[1]


def test_a_pair_may_have_an_equals_sign(parsed, capsys):
    checked(parsed(f"{SMALL} {DATA} {RUN} SOLVER.BASE_LR=0.125"))
    assert "learning rate 0.125" in " ".join(capsys.readouterr().out.replace("|", " ").split())


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_the_cpu_is_used_with_a_warning(parsed):
    findings = [str(f) for f in checked(parsed(f"{SMALL} {DATA} {RUN}")) if f[0] == "warning"]
    assert findings == ["device: there is no CUDA device: running on the CPU (MODEL.DEVICE cpu)"]


def test_a_key_of_head_alone_is_used_nowhere(parsed):
    assert not any(HEAD_ONLY in path.read_text() for path in REPOSITORY.rglob("configs/**/*.yaml"))
    words = parsed(f"{SMALL} {DATA} {RUN} {HEAD_ONLY} high")
    if HEAD_ONLY in get_cfg():
        checked(words)
    else:
        with pytest.raises(ValueError, match=f"Non-existent key: {HEAD_ONLY}"):
            checked(words)


def test_a_question_mark_is_a_part_of_the_name(parsed):
    findings = checked(parsed(f"{SMALL} {DATA} {RUN} MODEL.WEIGHTS {{file:what?.pth}}"))
    assert any("what?.pth fits the network" in f.what for f in findings)


def test_a_run_in_a_used_folder_is_warned_of(parsed, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "model_final.pth").write_bytes(b"x")
    args = parsed(f"{SMALL} {DATA} {RUN}")
    warnings = [str(f) for f in checked(args) if f.severity == "warning"]
    assert any("holds an earlier run's model_final.pth" in w and "--resume" in w for w in warnings)
    args.resume = True
    with pytest.raises(ValueError, match=r"weights: No checkpoint in .*out is good") as error:
        checked(args)
    assert "earlier" not in str(error.value)


def test_a_disk_without_room_for_checkpoints_is_told(parsed, monkeypatch):
    from d2_isonet.preflight import files

    words = f"{SMALL} {DATA} {RUN} SOLVER.CHECKPOINT_PERIOD 1 SOLVER.CHECKPOINT_MAX_TO_KEEP 0"
    size = re.search(r"checkpoints of ([\d.]+) MB", str(checked(parsed(words))))[1]
    for free, severity in ((0.9, "error"), (2.5, "warning"), (9, "fact")):
        usage = type("Usage", (), {"free": free * float(size) * 1e6})
        monkeypatch.setattr(files.shutil, "disk_usage", lambda path, usage=usage: usage)
        if severity == "error":
            with pytest.raises(ValueError, match="OUTPUT_DIR: .*for 3 checkpoints.*make room"):
                checked(parsed(words))
        else:
            found = [f for f in checked(parsed(words)) if "checkpoints of" in f.what]
            assert [f.severity for f in found] == [severity]


def test_the_width_of_a_shallow_network_is_set_by_its_depth(parsed):
    wide = "MODEL.RESNETS.RES2_OUT_CHANNELS 256"  # detectron2's default, a bottleneck's
    checked(parsed(f"--config-file configs/risonet18_dc5.yaml {DATA} {RUN} {wide}"))


def test_a_port_in_use_is_named():
    with socket.create_server(("", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ValueError, match=f"port {port} cannot be opened"):
            meeting.open_store(("127.0.0.1", port), timedelta(seconds=1))


def test_the_real_load_refuses_what_the_preflight_refuses(tmp_path):
    from d2_isonet.checkpoint.checkpointer import ISONetCheckpointer
    from d2_isonet.checkpoint.reading import WeightsError

    for name in ("hostile.pth", "numpy.pth", "truncated.pth", "bomb.pth", "list.pth"):
        path = bad_files.write(tmp_path, name)
        with pytest.raises(WeightsError):
            ISONetCheckpointer(torch.nn.Linear(1, 1)).load(str(path), [])


def test_a_trusted_pickle_is_read(tmp_path, parsed):
    import pickle

    (tmp_path / "zoo.pkl").write_bytes(pickle.dumps({"model": {}, "__author__": "me"}))
    args = parsed(f"{SMALL} {DATA} {RUN} MODEL.WEIGHTS {tmp_path}/zoo.pkl")
    args.trust_pickle = True
    assert any("is checked when it is read" in f.what for f in checked(args))


# ------------------------------------------------------------------------------- the document

PAGE = REPOSITORY / "docs" / "reliability.md"


def rows_of_page() -> dict[int, list[str]]:
    """Cells of the page's table by number of the row."""
    lines = [x for x in PAGE.read_text().splitlines() if re.match(r"\| \d+ \|", x)]
    cells = [[c.strip() for c in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]
    assert len(cells) == len({int(c[0]) for c in cells})
    return {int(c[0]): c[1:] for c in cells}


def functions_of(file: str) -> set[str]:
    """Names of the tests in a file of tests/ or of a folder in it."""
    tree = ast.parse(next((REPOSITORY / "tests").rglob(file)).read_text())
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def named_tests() -> dict[int, list[tuple[str, str]]]:
    """(file, function) of the tests that the page names for each row."""
    return {n: re.findall(r"`([\w/]+\.py)::(\w+)`", c[-1]) for n, c in rows_of_page().items()}


def test_the_page_has_every_row_once_with_all_cells():
    rows = rows_of_page()
    assert sorted(rows) == list(range(1, len(rows) + 1)) and len(rows) >= 78
    assert all(len(cells) == 4 and all(cells) for cells in rows.values())


@pytest.mark.parametrize("row", rows_of_page())
def test_the_test_that_the_page_names_for_a_row_is_there(row):
    named = named_tests()[row]
    assert named
    for file, function in named:
        assert function in functions_of(file)


def test_the_page_and_the_tables_here_agree():
    rows = rows_of_page()
    stopped = "`test_bad_inputs.py::test_it_ends_with_one_message_before_a_model_is_built`"
    assert {n for n, cells in rows.items() if stopped in cells[-1]} == {s.row for s in STOPS}
    for number, test in SHOWN_BY.items():
        assert f"`{test}`" in rows[number][-1]
