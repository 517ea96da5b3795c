"""The parsers of all commands: help, names of options, their old spellings, mistakes."""

import argparse
import itertools

import pytest
from detectron2.config import get_cfg

import d2_isonet
from d2_isonet.__main__ import COMMANDS, module_of
from d2_isonet.commands import arguments
from d2_isonet.config.model_zoo import get_config_file

# What each command took before the names agreed: the option and, if it has another name now, that.
_TRAINING = {
    "config-file": "", "resume": "", "eval-only": "", "num-gpus": "", "num-machines": "",
    "machine-rank": "", "dist-url": "", "dist-timeout": "", "trust-pickle": "",
}  # fmt: skip
OLD = {
    "train": _TRAINING
    | {"train-json": "train-annotations", "train-images": ""}
    | {"val-json": "val-annotations", "val-images": ""},
    "pretrain": _TRAINING | {"data-root": ""},
    "train-lazy": _TRAINING,
    "check-data": {
        "config-file": "", "json": "annotations", "images": "", "data-root": "", "eval-only": "",
        "full": "", "quick": "", "json-report": "", "repair": "",
    },
    "show-data": {
        "config-file": "", "source": "", "output": "", "images": "num-images",
        "train-json": "train-annotations", "train-images": "", "data-root": "",
    },
    "report": {
        "output": "", "names": "", "score-threshold": "", "truth": "annotations",
        "image-root": "images",
    },
    "demo": {
        "config-file": "", "weights": "", "threshold": "score-threshold", "annotations": "",
        "fuse": "", "threads": "", "trust-pickle": "", "input": "", "output": "", "overwrite": "",
        "batch-size": "", "max-frames": "", "serve": "", "host": "", "port": "", "max-upload": "",
    },
    "export": {
        "config-file": "", "weights": "", "target": "", "format": "", "precision": "", "fuse": "",
        "images": "", "num-images": "", "tolerance": "", "class-names": "", "repetitions": "",
        "output": "", "trust-pickle": "",
    },
    "isometry": {
        "config-file": "", "timm": "", "weights": "", "images": "", "image-root": "",
        "num-images": "", "frequencies": "", "limit": "", "all": "", "seed": "", "output": "",
        "trust-pickle": "",
    },
    "robustness": {
        "config-file": "", "weights": "", "data-root": "", "source-weights": "",
        "source-config": "", "attacks": "", "eps": "", "step": "", "iterations": "",
        "num-images": "", "effort-images": "", "seed": "", "output": "",
    },
    "convert": {"depth": "", "kind": ""},
    "make-shards": {
        "output": "", "shard-megabytes": "", "shard-samples": "", "seed": "", "workers": "",
    },
}  # fmt: skip


def parser_of(command: str) -> arguments.Parser:
    return module_of(command).argument_parser(f"d2-isonet {command}")


def prefixes(command: str) -> dict[str, str]:
    """Every beginning of an old option that stood for it alone, and the option."""
    old = {**OLD[command], "help": ""}
    cut = {word[:n]: word for word in old for n in range(1, len(word))} | {x: x for x in old}
    return {
        start: word for start, word in cut.items()
        if start in old or sum(other.startswith(start) for other in old) == 1
    }  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS)
def test_old_options_and_their_abbreviations_still_work(command):
    parser = parser_of(command)
    for start, word in prefixes(command).items():
        action = parser._option_string_actions[f"--{OLD[command].get(word) or word}"]
        exact = parser._option_string_actions.get(f"--{start}")
        found = [exact] if exact else [x[0] for x in parser._get_option_tuples(f"--{start}")]
        assert [x.option_strings for x in found] == [action.option_strings], start


@pytest.mark.parametrize("command", COMMANDS)
def test_help_gives_every_option_its_default_and_shows_examples(command):
    parser = parser_of(command)
    text = parser.format_help()
    for action in parser._actions:
        assert action.help, action
        if action.option_strings and action.nargs != 0 and action.help != argparse.SUPPRESS:
            shown = parser.formatter_class("")._get_help_string(action)
            assert "default" in shown or "required" in shown, action.option_strings
    assert text.startswith(f"usage: d2-isonet {command} ")
    assert text.partition("\nExamples:\n")[2].startswith(f"  d2-isonet {command} ")
    hidden = {old for old, new in OLD[command].items() if new}
    assert not [old for old in hidden if f"  --{old} " in text and old != "images"]


def examples(command: str) -> list[list[str]]:
    """The words of each example of `command`, after the command."""
    text = (module_of(command).__doc__ or "").replace("\\\n", " ").partition("\nExamples:\n")[2]
    lines = [line.split() for line in text.splitlines()]
    return [words[2:] for words in lines if words[:2] == ["d2-isonet", command]]


@pytest.mark.parametrize("command", COMMANDS)
def test_the_examples_are_accepted(command):
    assert examples(command)
    for words in examples(command):
        args = parser_of(command).parse_args(words)
        file = getattr(args, "config_file", None)
        assert not file or file.startswith(("output/", "COCO-")) or file.endswith((".yaml", ".py"))


def test_every_config_command_takes_a_name_and_pairs():
    needed = {"demo": ["--input", "a", "--output", "b"], "isometry": [], "check-data": []}
    for command in ("train", "pretrain", "check-data", "show-data", "demo", "export", "isometry",
                    "robustness"):  # fmt: skip
        parser = parser_of(command)
        weights = ["--weights", "w"] if command in ("demo", "export", "robustness") else []
        words = ["--config-file", "risonet50_fpn", *weights, *needed.get(command, [])]
        args = parser.parse_args([*words, "SEED", "1", "TEST.EVAL_PERIOD=2"])
        assert args.config_file == get_config_file("risonet50_fpn")
        assert args.opts == ["SEED", "1", "TEST.EVAL_PERIOD=2"]


def test_a_config_file_that_is_there_is_no_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "risonet50_fpn").write_text("")
    assert arguments.config_path("risonet50_fpn") == "risonet50_fpn"
    assert arguments.config_path("no_such.yaml") == "no_such.yaml"


@pytest.mark.parametrize("pairs", [["MODEL.DEVICE", "cpu", "SEED=1"], ["OUTPUT_DIR", "x"]])
def test_pairs_end_an_option_that_takes_several_values(pairs):
    demo = ["--config-file", "x", "--weights", "x", "--output", "y", "--input", "a.jpg", "TEST"]
    args = parser_of("demo").parse_args([*demo, *pairs])
    assert (args.input, args.opts) == (["a.jpg", "TEST"], pairs)
    for old in ("--opts", "--op"):
        assert parser_of("demo").parse_args([*demo, old, *pairs]).opts == pairs
    eps = ["--config-file", "x", "--weights", "x", "--eps", "2", "4"]
    args = parser_of("robustness").parse_args([*eps, *pairs])
    assert (args.eps, args.opts) == ([2, 4], pairs)


def test_the_sections_of_a_config_are_known():
    cfg = get_cfg()
    d2_isonet.add_isonet_config(cfg)
    keys = [k if not hasattr(v, "items") else f"{k}.X" for k, v in cfg.items()]
    assert [key for key in keys if not arguments._PAIR.fullmatch(key)] == []


def test_numbers_and_folders_of_images_have_one_name_each():
    args = parser_of("report").parse_args(["run", "--images", "2"])
    assert (args.num_images, args.images) == (2, None)
    args = parser_of("report").parse_args(["run", "--images", "photos", "--num-images", "3"])
    assert (args.num_images, str(args.images)) == (3, "photos")
    old = ["--images", "a.json", "--image-root", "photos"]
    new = ["--annotations", "a.json", "--images", "photos"]
    for words in (old, new):
        args = parser_of("isometry").parse_args(["--config-file", "x", *words])
        assert (args.images, args.image_root) == ("a.json", "photos")


@pytest.mark.parametrize(
    ("command", "words", "message"),
    [
        ("train", "--nmu-gpus 2 --config-file x", "--nmu-gpus; did you mean --num-gpus?"),
        ("train", "", "--config-file is missing: give a yaml file, or the name of a config such"),
        ("pretrain", "--resume", "--config-file is missing"),
        (
            "train",
            "--config-file risonet51_fpn",
            "no config 'risonet51_fpn'; did you mean risone",
        ),
        ("demo", "--wieghts x --config-file x", "--wieghts; did you mean --weights?"),
        ("report", "run --score-treshold=0.5", "--score-treshold=0.5; did you mean --score-thres"),
        ("export", "--config-file x --frmat onnx", "--frmat; did you mean --format?"),
        ("make-shards", "x", "the following arguments are required: --output"),
        ("convert", "in.pt", "the following arguments are required: OUT"),
        ("export", "--config-file x --format onxx", "argument --format: invalid choice: 'onxx'"),
    ],
)
def test_a_mistake_is_one_line(command, words, message, capsys):
    with pytest.raises(SystemExit) as end:
        parser_of(command).parse_args(words.split())
    error = capsys.readouterr().err
    assert end.value.code == 2 and error.count("\n") == 1
    assert error.startswith(f"d2-isonet {command}: error: ") and message in error


def test_one_thing_has_one_name():
    """No two commands call the same thing differently, judged by the words that were in use."""
    actions = itertools.chain.from_iterable(parser_of(name)._actions for name in COMMANDS)
    shown = {x for a in actions if a.help != argparse.SUPPRESS for x in a.option_strings}
    assert shown.isdisjoint({"--json", "--truth", "--threshold", "--image-root", "--train-json"})
