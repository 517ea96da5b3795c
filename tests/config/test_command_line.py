"""Arguments and config: valid ones load, and each mistake gets one clear message."""

import pytest
import yaml
from detectron2.engine import default_argument_parser
from detectron2.utils import comm

from d2_isonet.commands.arguments import training_parser
from d2_isonet.config.loading import load_config
from d2_isonet.preflight.training import check_training_options
from d2_isonet.utils.messages import UserError, readable_errors

BASE = "configs/risonet50_c4.yaml"


def described(parser) -> dict:
    """Everything of each argument except its help."""
    for_people = ("container", "help", "metavar")
    actions = parser._actions
    return {
        a.dest: {"kind": type(a)} | {k: v for k, v in vars(a).items() if k not in for_people}
        for a in actions
    }


def test_the_arguments_are_detectron2s_but_for_the_port_the_timeout_and_trust_pickle():
    ours, theirs = described(training_parser("train", "")), described(default_argument_parser())
    assert ours.pop("trust_pickle")["const"] is True
    assert ours.pop("dist_timeout")["default"] == 1800
    assert (ours["dist_url"].pop("default"), theirs["dist_url"].pop("default")[:3]) == (
        "auto",
        "tcp",
    )
    assert ours == theirs


def test_pairs_end_the_arguments():
    words = [
        "--config-file",
        BASE,
        "--num-gpus",
        "2",
        "--eval-only",
        "SOLVER.BASE_LR",
        "-1",
        "--resume",
    ]
    parsed = vars(training_parser("train", "").parse_args(words))
    assert (parsed["num_gpus"], parsed["eval_only"], parsed["resume"]) == (2, True, False)
    assert parsed["opts"] == ["SOLVER.BASE_LR", "-1", "--resume"]


def test_help_says_what_the_script_does_and_explains_each_argument():
    parser = training_parser("train", "Train a thing.")
    assert parser.format_help().count("Train a thing.") == 1
    assert all(action.help for action in parser._actions)


def test_pairs_and_equations_are_the_same():
    a = load_config(BASE, ["SOLVER.BASE_LR", "0.5", "MODEL.MASK_ON", "False"])
    b = load_config(BASE, ["SOLVER.BASE_LR=0.5", "MODEL.MASK_ON=False"])
    assert a == b
    assert a.SOLVER.BASE_LR == 0.5


@pytest.mark.parametrize(
    ("opts", "message"),
    [
        (["SOLVER.BASE_LRR", "0.1"], "SOLVER.BASE_LRR.*did you mean SOLVER.BASE_LR?"),
        (["MODEL.ISONET.RESIDUAL_SCALES", "0.1"], "did you mean MODEL.ISONET.RESIDUAL_SCALE?"),
        (["SOLVER.BASE_LR"], "'SOLVER.BASE_LR', has no value"),
        (["SOLVER.BASE_LR", "0.1", "--num-gpus", "2"], "--num-gpus stands after"),
        (["SOLVER.MAX_ITER", "many"], "SOLVER.MAX_ITER"),
        (["DATASETS.TRAIN", "my_set"], r"\"\('my_set',\)\""),
    ],
)
def test_a_wrong_pair_is_explained(opts, message):
    with pytest.raises(ValueError, match=message):
        load_config(BASE, opts)


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [("SOLVER.ORTHO_COEFF", "0", 0.0), ("MODEL.ISONET.RESIDUAL_SCALE", "1", 1.0),
     ("SOLVER.WARMUP_EPOCHS", "0.5", 0.5), ("MODEL.ISONET.RESIDUAL_SCALE", "None", None),
     ("MODEL.ISONET.RESIDUAL_SCALE", "null", None),
     ("SOLVER.MAX_ITER", "7", 7)],
)  # fmt: skip
def test_a_whole_number_serves_as_a_float_where_one_is_asked(key, text, value, tmp_path):
    path = tmp_path / "leaf.yaml"
    *sections, name = key.split(".")
    content = {name: value if value is None else int(value) if value == int(value) else value}
    for section in reversed(sections):
        content = {section: content}
    path.write_text(yaml.safe_dump(content))
    for cfg in (load_config(BASE, [key, text]), load_config(str(path), [])):
        node = cfg
        for part in key.split("."):
            node = node[part]
        assert node == value and type(node) is type(value)


def test_a_whole_number_in_quotes_serves_like_one_with_a_point(tmp_path):
    path = tmp_path / "leaf.yaml"
    path.write_text("MODEL: {ISONET: {SHIFT_INIT: '-2'}, DECOUPLED: {ALPHA: '0.5'}}")
    cfg = load_config(str(path), [])
    assert (cfg.MODEL.ISONET.SHIFT_INIT, cfg.MODEL.DECOUPLED.ALPHA) == (-2.0, 0.5)


@pytest.mark.parametrize("text", ["", "null", "~", ".nan"])
@pytest.mark.parametrize(
    "key",
    ["MODEL.ISONET.SHIFT_INIT", "SOLVER.ORTHO_COEFF", "MODEL.RESNETS.DEPTH", "SOLVER.STEPS"],
)
def test_a_number_that_is_left_out_is_named(key, text, tmp_path):
    *sections, name = key.split(".")
    lines = [f"{'  ' * depth}{word}:" for depth, word in enumerate([*sections, name])]
    path = tmp_path / "leaf.yaml"
    path.write_text("\n".join(lines) + f" {text}\n")
    message = "of type|mismatch|is not a number" if text == ".nan" else "has no value; the default"
    with pytest.raises(ValueError, match=f"leaf.yaml: .*({message})") as error:
        load_config(str(path), [])
    assert key in str(error.value)


@pytest.mark.parametrize("text", ["None", "null"])
@pytest.mark.parametrize("key", ["SOLVER.ORTHO_COEFF", "SOLVER.STEPS", "MODEL.PIXEL_MEAN"])
def test_a_number_or_list_of_the_command_line_must_be_one(key, text):
    with pytest.raises(ValueError, match=f"command line: {key} has no value"):
        load_config(BASE, [key, text])


def test_what_detectron2_documents_as_none_may_be_none():
    keys = ("WEIGHT_DECAY_NORM", "WEIGHT_DECAY_BIAS", "BIAS_LR_FACTOR")
    cfg = load_config(BASE, [word for key in keys for word in (f"SOLVER.{key}", "null")])
    assert [cfg.SOLVER[key] for key in keys] == [None] * 3
    check_training_options(cfg)


@pytest.mark.parametrize("text", ["", "42", "[1, 2]", "words"])
def test_a_yaml_that_is_no_mapping_is_explained(text, tmp_path):
    path = tmp_path / "odd.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match="odd.yaml: this is no yaml of KEY: VALUE"):
        load_config(str(path), [])


def test_a_wrong_pair_is_not_blamed_on_the_file():
    with pytest.raises(ValueError, match="^command line: .*SOLVER.BASE_LRR"):
        load_config(BASE, ["SOLVER.BASE_LRR", "1"])


def test_a_missing_file_is_named():
    with pytest.raises(FileNotFoundError, match="configs/risonet51_c4.yaml"):
        load_config("configs/risonet51_c4.yaml", [])


def test_a_key_that_only_the_yaml_misspells_is_explained(tmp_path):
    path = tmp_path / "typo.yaml"
    path.write_text("SOLVER:\n  BASE_LRR: 0.1\n")
    with pytest.raises(ValueError, match="typo.yaml.*did you mean SOLVER.BASE_LR?"):
        load_config(str(path), [])


def test_a_yaml_with_a_tab_is_explained(tmp_path):
    path = tmp_path / "tab.yaml"
    path.write_text("SOLVER:\n\tBASE_LR: 0.1\n")
    with pytest.raises(ValueError, match="tab.yaml.*line 2"):
        load_config(str(path), [])


@pytest.mark.parametrize("base", ["", "_BASE_: "])
def test_a_yaml_never_executes_code(base, tmp_path):
    witness = tmp_path / "executed"
    evil = tmp_path / "evil.yaml"
    evil.write_text(f"OUTPUT_DIR: !!python/object/apply:os.system ['touch {witness}']\n")
    path = tmp_path / "leaf.yaml"
    path.write_text("_BASE_: evil.yaml\n")
    with pytest.raises(ValueError, match="evil.yaml|leaf.yaml"):
        load_config(str(path if base else evil), [])
    assert not witness.exists()


def test_a_users_mistake_ends_in_one_line(capsys, monkeypatch):
    monkeypatch.delenv("D2_ISONET_TRACEBACK", raising=False)
    with pytest.raises(SystemExit) as stop, readable_errors():
        raise UserError("this value is wrong", "use that")
    assert stop.value.code == 2
    assert capsys.readouterr().err == "error: this value is wrong; use that\n"


@pytest.mark.parametrize("rank", [0, 1])
def test_a_training_that_diverged_ends_in_one_line_for_all_processes(rank, capsys, monkeypatch):
    monkeypatch.delenv("D2_ISONET_TRACEBACK", raising=False)
    monkeypatch.setattr(comm, "get_local_rank", lambda: rank)
    with pytest.raises(SystemExit) as stop, readable_errors(of_this_process=True):
        raise FloatingPointError("Iteration 3: the loss is not finite")
    assert stop.value.code == 2
    expected = "error: Iteration 3: the loss is not finite\n" if rank == 0 else ""
    assert capsys.readouterr().err == expected


@pytest.mark.parametrize(
    ("pairs", "reason"),
    [
        (["MODEL.ROI_BOX_HEAD.NUM_CONV", "30000000"], "at most 100"),
        (["MODEL.RETINANET.NUM_CONVS", "30000000"], "at most 100"),
        (["MODEL.RESNETS.DEPTH", "60000002"], "at most 2,000"),
        (["MODEL.FPN.OUT_CHANNELS", "50000000"], "at most 16,384"),
        (["MODEL.RPN.CONV_DIMS", "[50000000]"], "at most 16,384"),
        (["MODEL.ROI_HEADS.NUM_CLASSES", "50000000"], "at most 1,000,000"),
        (["MODEL.ANCHOR_GENERATOR.SIZES", str([[32] * 5000])], "5000 values"),
        (["DATALOADER.NUM_WORKERS", "50000000"], "at most 4,096"),
        (["INPUT.MIN_SIZE_TRAIN", "(50000000,)"], "at most 100,000"),
        (["SOLVER.MAX_ITER", "9" * 25], "too large a number"),
        (["SOLVER.BASE_LR", "9" * 400], "100 or more digits"),
        (["MODEL.PIXEL_MEAN", f"[1.0, 1.0, {'9' * 25}]"], "too large a number"),
    ],
)
def test_a_number_that_no_run_can_have_is_refused(pairs, reason):
    with pytest.raises(UserError, match=reason):
        load_config("", pairs)


def test_a_tree_of_bases_is_not_climbed(tmp_path):
    for number in range(30):
        next_file = f"b{number + 1}.yaml"
        (tmp_path / f"b{number}.yaml").write_text(f"_BASE_: [{next_file}, {next_file}]\n")
    (tmp_path / "b30.yaml").write_text("SEED: 1\n")
    with pytest.raises(UserError, match=r"b0.yaml: too many files, or too long ones, by _BASE_"):
        load_config(str(tmp_path / "b0.yaml"), [])


def test_a_number_of_400_digits_in_a_yaml_is_refused(tmp_path):
    (tmp_path / "a.yaml").write_text(f"SOLVER: {{BASE_LR: {'9' * 400}}}\n")
    with pytest.raises(UserError, match="a.yaml has a number of 100 or more digits"):
        load_config(str(tmp_path / "a.yaml"), [])
