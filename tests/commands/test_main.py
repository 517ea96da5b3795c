"""`d2-isonet`, `python -m d2_isonet` and the scripts: they find a command, fast, and say so."""

import json
import os
import subprocess
import sys
from pathlib import Path

import detectron2
import pytest
import torch
from repository import REPOSITORY, TOOLS
from scripts import ENVIRONMENT, TORCHRUN, arguments, write_image_tree

import d2_isonet
from d2_isonet import __main__ as program

SCRIPTS = {
    "train_net.py": "train",
    "tools/train_lazy.py": "train-lazy",
    "tools/pretrain_imagenet.py": "pretrain",
    "tools/check_dataset.py": "check-data",
    "tools/visualize_data.py": "show-data",
    "tools/report.py": "report",
    "tools/demo.py": "demo",
    "tools/export_model.py": "export",
    "tools/analyze_isometry.py": "isometry",
    "tools/evaluate_robustness.py": "robustness",
    "tools/convert_isonet_weights.py": "convert",
    "tools/convert_safetensors.py": "convert",
    "tools/make_shards.py": "make-shards",
}


def run(*words: str, **environment: str) -> subprocess.CompletedProcess:
    env = {**os.environ, **environment}
    return subprocess.run(
        [sys.executable, *words], cwd=REPOSITORY, env=env, capture_output=True, text=True,
        timeout=60,
    )  # fmt: skip


def main(monkeypatch, *words: str) -> int:
    monkeypatch.setattr(sys, "argv", ["d2-isonet", *words])
    return program.main()


def test_alone_it_lists_the_commands_with_a_line_each(monkeypatch, capsys):
    assert main(monkeypatch) == 0
    lines = capsys.readouterr().out.splitlines()
    for name in program.COMMANDS:
        (line,) = [x for x in lines if x.startswith(f"  {name} ")]
        assert line.endswith(".") and len(line) <= 110
    files = {path.stem for path in (REPOSITORY / "d2_isonet" / "commands").glob("*.py")}
    modules = {name.replace("-", "_") for name in program.COMMANDS}
    assert files - modules == {"__init__", "arguments"} and modules <= files


def test_the_versions_are_those_that_an_import_finds(monkeypatch, capsys):
    assert main(monkeypatch, "--version") == 0
    versions = {module.__name__: module.__version__ for module in (d2_isonet, detectron2, torch)}
    assert capsys.readouterr().out.splitlines() == [f"{k} {v}" for k, v in versions.items()]
    assert program.version("no_such_package") == "no_such_package is not installed"


@pytest.mark.parametrize(
    ("word", "hint"),
    [("trian", "did you mean train"), ("chekc-data", "did you mean check-data"), ("x", "lists")],
)
def test_an_unknown_command_is_named_with_the_nearest(word, hint, monkeypatch, capsys):
    assert main(monkeypatch, word) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"d2-isonet: error: unknown command {word!r}; ")
    assert hint in error and error.count("\n") == 1


@pytest.mark.parametrize("words", [(), ("--version",), *((c, "--help") for c in program.COMMANDS)])
def test_neither_torch_nor_detectron2_is_imported_before_a_command_runs(words):
    process = run("-X", "importtime", "-m", "d2_isonet", *words)
    lines = [x for x in process.stderr.splitlines() if x.startswith("import time:")]
    imported = {line.rpartition("|")[2].strip().partition(".")[0] for line in lines}
    assert process.returncode == 0 and len(process.stderr.splitlines()) == len(lines)
    assert "argparse" in imported or not words or words == ("--version",)
    assert imported.isdisjoint(("torch", "detectron2", "numpy", "cv2", "yaml", "matplotlib"))


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_script_is_its_command_under_its_own_name(script):
    process = run(script, "--help")
    assert process.returncode == 0 and process.stderr == ""
    assert process.stdout.startswith(f"usage: {script} ")
    assert f"\n  python {script} " in process.stdout
    assert f"d2-isonet {SCRIPTS[script]} " not in process.stdout


def test_every_script_of_a_command_is_listed():
    texts = {path: path.read_text("utf-8") for path in sorted(TOOLS.glob("*.py"))}
    found = {f"tools/{path.name}" for path, text in texts.items() if "run_script(" in text}
    assert found == set(SCRIPTS) - {"train_net.py"}


@pytest.mark.parametrize(
    "words",
    [("train_net.py", "--config-file", "x"), ("tools/report.py", "x"),
     ("-m", "d2_isonet", "pretrain", "--config-file", "x")],
    ids=" ".join,
)  # fmt: skip
def test_an_interrupt_during_the_imports_is_one_line(words, tmp_path):
    (tmp_path / "torch.py").write_text("raise KeyboardInterrupt")
    path = os.pathsep.join(filter(None, [str(tmp_path), os.environ.get("PYTHONPATH")]))
    process = run(*words, PYTHONPATH=path)
    assert (process.returncode, process.stderr) == (130, "interrupted\n")


NETWORK = ["--config-file", "risonet50_fpn", "--weights", "x"]


@pytest.mark.parametrize(
    ("command", "words", "package"),
    [
        ("report", ["x"], "jinja2"),
        ("show-data", ["--config-file", "risonet50_fpn"], "matplotlib"),
        ("isometry", NETWORK, "jinja2"),
        ("robustness", NETWORK, "matplotlib"),
        ("demo", [*NETWORK, "--input", "x", "--output", "y"], "cv2"),
    ],
)
def test_a_package_of_one_command_is_named_if_it_is_missing(
    command, words, package, monkeypatch, capsys
):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(SystemExit, match="2"):
        main(monkeypatch, command, *words)
    error = capsys.readouterr().err
    assert f" needs {package}, which is not installed; pip install " in error.splitlines()[-1]


@pytest.mark.slow
@pytest.mark.parametrize("start", [[sys.executable], [*TORCHRUN, "--nproc-per-node", "2"]], ids=len)
def test_the_package_starts_several_processes(start, tmp_path):
    tree, output = write_image_tree(tmp_path / "tree"), tmp_path / "out"
    flags = ["--num-gpus", "2"] if len(start) == 1 else []
    words = [*start, "-m", "d2_isonet", "pretrain", *arguments(tree, output, 2, *flags)]
    done = subprocess.run(words, env=ENVIRONMENT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    (record,) = json.loads((output / "runs.json").read_text())
    assert record["processes"] == 2
    assert record["command"].startswith("python -m d2_isonet pretrain ")


def test_a_copy_of_train_net_takes_code_of_ones_own(tmp_path):
    text = (REPOSITORY / "train_net.py").read_text("utf-8")
    line = "# import my_activation  # noqa: F401\n"
    assert text.count(line) == 1 and len(text.splitlines()) <= 40
    copy = Path(tmp_path, "my_train.py")
    copy.write_text(text.replace(line, "print('mine')\n"))
    process = run(str(copy), "--help", PYTHONPATH=str(REPOSITORY))
    assert process.stdout.startswith("mine\nusage: ") and process.returncode == 0


def test_help_of_a_command_may_be_asked_for_in_either_order(monkeypatch, capsys):
    with pytest.raises(SystemExit) as end:
        main(monkeypatch, "--help", "report")
    assert end.value.code == 0 and "OUTPUT_DIR" in capsys.readouterr().out
    assert main(monkeypatch, "--config-file", "risonet50_fpn") == 2
    assert "name a command before '--config-file'" in capsys.readouterr().err


WRONG_TASKS = [
    ("train", "imagenet/risonet50", "describes a classifier", "d2-isonet pretrain trains it"),
    ("pretrain", "risonet50_fpn", "describes a detector", "d2-isonet train trains it"),
    ("train", "lazy/mask_rcnn_risonet50_fpn", "is a LazyConfig", "d2-isonet train-lazy trains it"),
    ("train", ".", "is a folder", "give a yaml file"),
    ("train", "configs_/risonet50_fpn.yaml", "there is no file", ""),
    (
        "train-lazy",
        "lazy/mask_rcnn_risonet50",
        "no config",
        "did you mean lazy/mask_rcnn_risonet50_c4",
    ),
    ("train", "risonet50_fpn.yml", "there is no file", "did you mean the config risonet50_fpn?"),
    ("train", "risonet18_c4 --num-gpus 4000", "has no GPU", "give at most"),
    ("train", "risonet18_c4 SOLVER.BASE_LR = 0.1", "a space beside the =", "write KEY=VALUE"),
    ("train", "risonet18_c4 SOLVER.BASE_LR abc", "it must be a float such as 0.01", "not a str"),
]


@pytest.mark.skipif(torch.cuda.is_available(), reason="with a GPU --num-gpus has another limit")
@pytest.mark.parametrize(("command", "words", "what", "remedy"), WRONG_TASKS)
def test_a_config_of_another_kind_is_named(command, words, what, remedy, monkeypatch, capsys):
    with pytest.raises(SystemExit) as end:
        main(monkeypatch, command, "--config-file", *words.split())
    message = capsys.readouterr().err.splitlines()[-1]
    assert end.value.code == 2 and "error: " in message
    assert what in message and remedy in message
