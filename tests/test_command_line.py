"""Reading a config: what works, and one clear message for what does not."""

import pytest

from d2_isonet.command_line import load_config, readable_errors

BASE = "configs/risonet50_c4.yaml"


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
        raise ValueError("this value is wrong; use that")
    assert stop.value.code == 2
    assert capsys.readouterr().err == "error: this value is wrong; use that\n"
