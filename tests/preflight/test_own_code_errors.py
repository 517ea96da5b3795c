"""An error in the user's own code keeps its traceback, wherever that code is called from."""

import importlib.util
import subprocess
import sys
import traceback

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.engine import HookBase
from script_arguments import DETECT, arguments
from scripts import ENVIRONMENT
from two_convolutions import OwnShareTrainer, toy_config

import train_net
from d2_isonet.commands.train import setup
from d2_isonet.data.loader import build_detection_loader
from d2_isonet.data.shards.loader import map_sample
from d2_isonet.distributed.launch import launch
from d2_isonet.distributed.supervision import ProcessFailure
from d2_isonet.engine.main import evaluate_or_train
from d2_isonet.engine.trainer import Trainer
from d2_isonet.evaluation.classification import read_predictions
from d2_isonet.isometry import regularizer
from d2_isonet.layers import activation, weight_init
from d2_isonet.preflight.network import outline
from d2_isonet.utils.messages import UserError, readable_errors

OWN_CODE = """
import torch
from d2_isonet.utils.messages import UserError

def fail(*arguments, **options):
    first, second = ()

def fail_in_torch(channels):
    return torch.nn.Conv2d(channels, 3, 1, groups=2)

def look_up(*arguments, **options):
    return {}["no such key"]

def assert_it(*arguments, **options):
    assert not arguments

def open_own_file(*arguments, **options):
    return open("/nowhere/own.txt")

def refuse(*arguments, **options):
    raise UserError("this image has no label", "add one")
"""


def load(path):
    spec = importlib.util.spec_from_file_location("own_code", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def own(tmp_path, monkeypatch):
    """The module of a user, each of whose functions has a mistake."""
    monkeypatch.delenv("D2_ISONET_TRACEBACK", raising=False)
    path = tmp_path / "own_code.py"
    path.write_text(OWN_CODE)
    return load(path)


@pytest.fixture
def detection(coco_files, tmp_path):
    """Arguments of a training on three images, whose workers can be chosen."""
    json_file, images = map(str, coco_files)

    def arguments_with(*opts: str):
        return arguments(
            "configs/risonet18_dc5.yaml", *DETECT, "MODEL.WEIGHTS", "", "OUTPUT_DIR",
            str(tmp_path / "run"), *opts,
            train_json=json_file, train_images=images,
        )  # fmt: skip

    return arguments_with


def assert_it_shows_own_code(error, kind=ValueError, message="not enough values to unpack"):
    text = "".join(traceback.format_exception(error.value))
    assert type(error.value) is kind and message in text and "own_code.py" in text


@pytest.mark.parametrize(
    ("function", "kind", "message"),
    [
        ("fail", ValueError, "not enough values"),
        ("fail_in_torch", ValueError, "divisible by groups"),
        ("look_up", KeyError, "no such key"),
        ("assert_it", AssertionError, "assert not arguments"),
        ("open_own_file", FileNotFoundError, "/nowhere/own.txt"),
    ],
)
def test_an_activation(function, kind, message, own, detection, monkeypatch):
    monkeypatch.setitem(activation.ACTIVATIONS, "own", getattr(own, function))
    with pytest.raises(kind) as error:
        train_net.main(detection("MODEL.ISONET.ACTIVATION", "own"))
    assert_it_shows_own_code(error, kind, message)


def test_an_initializer(own, detection, monkeypatch):
    monkeypatch.setitem(weight_init.FILLS, "delta", own.fail)
    with pytest.raises(ValueError) as error:
        train_net.main(detection())
    assert_it_shows_own_code(error)


def test_a_dataset_function(own, detection):
    DatasetCatalog.register("own_set", own.fail)
    MetadataCatalog.get("own_set").thing_classes = ["a"]
    args = detection("DATASETS.TRAIN", "('own_set',)")
    args.train_json = args.train_images = None
    with pytest.raises(ValueError) as error:
        train_net.main(args)
    DatasetCatalog.remove("own_set")
    assert_it_shows_own_code(error)


def train(cfg, *hooks, resume: bool = False):
    class WithHooks(OwnShareTrainer):
        def hooks_after_evaluation(self):
            return list(hooks)

    args = arguments("", resume=resume, eval_only=False, trust_pickle=False)
    return evaluate_or_train(cfg, args, WithHooks)


def test_a_penalty(own, tmp_path, monkeypatch):
    monkeypatch.setattr(regularizer, "orthogonal_penalty_and_gradient", own.fail)
    with pytest.raises(ValueError) as error:
        train(toy_config(tmp_path / "run"))
    assert_it_shows_own_code(error)


@pytest.mark.parametrize("moment", ["before_train", "after_step"])
def test_a_hook(moment, own, tmp_path):
    hook = HookBase()
    setattr(hook, moment, own.fail)
    with pytest.raises(ValueError) as error:
        train(toy_config(tmp_path / "run"), hook)
    assert_it_shows_own_code(error)


def with_mapper(mapper):
    class WithMapper(Trainer):
        @classmethod
        def build_train_loader(cls, cfg):
            return build_detection_loader(cfg, mapper)

    return WithMapper


@pytest.mark.parametrize("workers", ["0", "1"])
@pytest.mark.parametrize(
    ("mapper", "kind", "message"),
    [
        ("fail", ValueError, "not enough values"),
        ("open_own_file", FileNotFoundError, "/nowhere/own.txt"),
    ],
)
def test_a_mapper(mapper, kind, message, workers, own, detection):
    args = detection("DATALOADER.NUM_WORKERS", workers)
    cfg = setup(args)
    with pytest.raises(kind) as error:
        evaluate_or_train(cfg, args, with_mapper(getattr(own, mapper)))
    assert_it_shows_own_code(error, kind, message)


@pytest.mark.parametrize("workers", ["0", "1"])
def test_a_user_error_of_a_mapper_is_one_line(workers, own, detection, capsys):
    args = detection("DATALOADER.NUM_WORKERS", workers)
    cfg = setup(args)
    with pytest.raises(SystemExit) as end:
        evaluate_or_train(cfg, args, with_mapper(own.refuse))
    assert end.value.code == 2
    assert capsys.readouterr().err.endswith("error: this image has no label; add one\n")


def test_a_mapper_of_shards(own):
    with pytest.raises(ValueError) as error:
        map_sample(own.fail, {})
    assert_it_shows_own_code(error)


SCRIPT = """
import sys
sys.path.insert(0, {folder!r})
import own_code
import train_net
from d2_isonet.distributed.launch import run
from d2_isonet.layers.activation import register_activation

register_activation("own", own_code.fail)
run(train_net.main, train_net.parse_args())
"""


def test_a_script_ends_with_the_traceback_and_pythons_exit_code(own, tmp_path, detection):
    (tmp_path / "own_train.py").write_text(SCRIPT.format(folder=str(tmp_path)))
    args = detection("MODEL.ISONET.ACTIVATION", "own")
    data = ["--train-json", args.train_json, "--train-images", args.train_images]
    command = [sys.executable, str(tmp_path / "own_train.py"), "--config-file", args.config_file]
    end = subprocess.run(
        [*command, *data, *args.opts], capture_output=True, text=True, env=ENVIRONMENT
    )
    assert end.returncode == 1
    assert "Traceback" in end.stderr and f'File "{tmp_path}/own_code.py", line 6' in end.stderr
    assert "error: " not in end.stderr.lower().replace("valueerror: ", "")


def fail_in_each_process(path) -> None:
    with readable_errors():
        load(path).fail()


@pytest.mark.usefixtures("fork_server")
def test_several_processes_show_the_traceback_of_one(own, tmp_path, capfd):
    with pytest.raises(ProcessFailure, match="process . of 2 .*failed: ValueError: not enough"):
        launch(fail_in_each_process, 2, args=(str(tmp_path / "own_code.py"),))
    assert capfd.readouterr().err.count("own_code.py") == 1


# ------------------------------------------------- what is not of the user's code is one line


def test_a_value_that_detectron2_refuses_is_one_line(tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("D2_ISONET_TRACEBACK", raising=False)
    with pytest.raises(SystemExit) as end:
        train(toy_config(tmp_path / "run", "SOLVER.LR_SCHEDULER_NAME", "WarmupLinearLR"))
    assert end.value.code == 2
    expected = "error: the training cannot be built: Unknown LR scheduler: WarmupLinearLR; "
    assert capsys.readouterr().err.splitlines()[-1].startswith(expected)


def test_an_optimizer_that_torch_refuses_is_one_line(tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("D2_ISONET_TRACEBACK", raising=False)
    train(toy_config(tmp_path, "SOLVER.MAX_ITER", "2"))
    with pytest.raises(SystemExit) as end:
        train(toy_config(tmp_path, "SOLVER.BIAS_LR_FACTOR", "2.0"), resume=True)
    assert end.value.code == 2
    message = "error: the weights cannot be loaded: loaded state dict has a different number of"
    assert message in capsys.readouterr().err


def test_a_value_that_torch_refuses_is_a_user_error(tmp_path):
    cfg = toy_config(tmp_path, "MODEL.META_ARCHITECTURE", "GeneralizedRCNN")
    cfg.MODEL.ROI_BOX_HEAD.POOLER_TYPE = "ROIAline"
    with pytest.raises(UserError, match="network cannot be built: Unknown pooler type: ROIAline"):
        outline(cfg)


def test_a_path_that_the_package_cannot_open_is_one_line(tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("D2_ISONET_TRACEBACK", raising=False)
    with pytest.raises(SystemExit) as end, readable_errors():
        read_predictions(tmp_path / "no.csv")
    assert end.value.code == 2
    message = f"error: [Errno 2] No such file or directory: '{tmp_path / 'no.csv'}'\n"
    assert capsys.readouterr().err == message


def test_a_path_that_other_code_opens_keeps_its_traceback(own):
    with pytest.raises(FileNotFoundError), readable_errors():
        own.open_own_file()
