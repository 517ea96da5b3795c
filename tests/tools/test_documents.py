"""What the documents say is so; and the checks find what is not."""

import pytest
from documented_commands import ELSEWHERE, documented, elsewhere
from documents.command import check_page, main
from documents.markdown import Page
from documents.names import alternatives, documents, has
from documents.programs import parse
from repository import REPOSITORY


@pytest.mark.parametrize("path", documents(), ids=lambda p: str(p.relative_to(REPOSITORY)))
def test_what_a_document_says_is_so(path):
    problems = check_page(path).problems
    assert not problems, "\n".join(map(str, problems))


def test_every_page_has_a_row_in_the_index():
    index = {link.text for link in Page(REPOSITORY / "docs" / "README.md").links}
    pages = {path.name for path in documents() if path.parent.name == "docs"}
    assert pages - {"README.md"} <= index


@pytest.mark.parametrize("entry", ELSEWHERE, ids=lambda entry: entry.pattern)
def test_who_runs_a_command_instead_of_the_stage_is_there(entry):
    assert any(elsewhere(text) is entry for text in documented())
    assert entry.by and all(map(has, entry.by))


@pytest.fixture
def found(monkeypatch, tmp_path):
    """What the checks find in a page of that text, beside other.md; without path and line."""
    monkeypatch.setattr("documents.markdown.ROOT", tmp_path)
    (tmp_path / "other.md").write_text("# Here")

    def find(text: str) -> list[str]:
        page = tmp_path / "page.md"
        page.write_text(text)
        return [problem.what for problem in check_page(page).problems]

    return find


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[x](no_such.md)", "link to no_such.md: there is no such file"),
        ("[x](../outside.md)", "link to ../outside.md: there is no such file"),
        ("[x](other.md#nowhere)", "link to other.md#nowhere: no heading has that name"),
        ("# One two\n[x](#one-three)", "link to #one-three: no heading has that name"),
        ("`configs/risonet51_c4.yaml`", "there is no configs/risonet51_c4.yaml"),
        ("`risonet{18,19}_c4.yaml`", "there is no risonet{18,19}_c4.yaml"),
        ("`test_documents.py::test_x`", "test_documents.py has no test_x"),
        ("`SOLVER.BASE_RATE 1`", "SOLVER.BASE_RATE is no key of the config"),
        ("`--no-such" + "-flag`", "--no-such" + "-flag is no flag of a script here"),
        ("`d2_isonet.SReLUU`", "d2_isonet.SReLUU is no name of the package"),
        ("`make everything`", "`make everything`: the Makefile has no everything"),
        ("`pip install .[nothing]`", "`pip install '.[nothing]'`: setup.py has no extra nothing"),
        (
            "```\npython tools/scaling_plan.py --gpus 3\n```",
            "`python tools/scaling_plan.py --gpus 3`: scaling_plan.py: error: unrecognized "
            "arguments: --gpus 3",
        ),
        (
            "`python train_net.py --config-file configs/no.yaml`",
            "`python train_net.py --config-file configs/no.yaml`: there is no configs/no.yaml",
        ),
        ("```python\n1 / 0\n```", "this python fails: ZeroDivisionError: division by zero"),
        ("```json\n{\n```", "this json fails: JSONDecodeError: "),
        ("```yaml\nMODEL: {NOTHING: 1}\n```", "this yaml fails: KeyError: "),
        ("```bash\nfrobnicate all\n```", "`frobnicate all`: frobnicate is no program that "),
    ],
)
def test_a_promise_that_does_not_hold_is_found(found, text, expected):
    problems = found(text)
    assert len(problems) >= 1 and problems[0].startswith(expected)


def test_a_wrong_pair_after_a_config_is_found(found):
    pair = "SOLVER.STEPSIZE 3"
    problems = found(f"`python train_net.py --config-file configs/risonet18_c4.yaml {pair}`")
    assert any("Non-existent key: SOLVER.STEPSIZE" in problem for problem in problems)


def test_a_lazy_config_is_loaded_with_its_pairs(found):
    command = "python tools/train_lazy.py --config-file configs/lazy/mask_rcnn_risonet50_fpn.py"
    assert found(f"`{command} train.device=cpu`") == []
    assert "Error parsing override '=3='" in found(f"`{command} =3=`")[0]


def test_a_wrong_argument_is_found_under_torchrun_and_sbatch(found):
    script = "train_net.py --no-such-thing"
    torchrun = f"`torchrun --standalone --nproc-per-node 2 {script}`"
    problems = found(f"{torchrun} and `sbatch docs/train.sbatch {script}`")
    assert sum("unrecognized arguments: --no-such-thing" in problem for problem in problems) == 2


@pytest.mark.parametrize("program", ["d2-isonet", "python -m d2_isonet", "torchrun -m d2_isonet"])
def test_a_command_of_the_package_is_parsed_by_the_package(found, program):
    command = f"{program} train --config-file configs/risonet18_c4.yaml"
    assert found(f"`{command} --num-gpus 8 SOLVER.BASE_LR 0.1`") == []
    assert "--no-such-thing" in found(f"`{command} --no-such-thing`")[0]
    assert "SOLVER.STEPSIZE" in found(f"`{command} SOLVER.STEPSIZE 3`")[0]
    named = command.replace("configs/risonet18_c4.yaml", "risonet18_c4")
    assert found(f"`{named} SOLVER.BASE_LR 0.1`") == []
    assert "SOLVER.STEPSIZE" in found(f"`{named} SOLVER.STEPSIZE 3`")[0]


def test_a_script_imports_the_modules_beside_it(tmp_path):
    lines = (
        "import argparse",
        "PARSER = argparse.ArgumentParser()",
        "PARSER.add_argument('--kills')",
    )
    (tmp_path / "beside_the_script.py").write_text("\n".join(lines))
    script = tmp_path / "script.py"
    script.write_text("from beside_the_script import PARSER\nPARSER.parse_args()\n")
    assert parse(str(script), ["--kills", "2"]).kills == "2"


def test_every_choice_of_a_command_is_checked(found):
    problems = found("`python tools/benchmark.py srelu|nothing [--quick]`")
    assert len(problems) == 1 and "invalid choice: 'nothing'" in problems[0]


@pytest.mark.parametrize("block", ["```bash\nfrobnicate\n```", "```python\n1 / 0\n```"])
def test_a_block_with_a_reason_is_left_alone(found, block):
    assert found(f"<!-- not run: needs a miracle -->\n{block}") == []


def test_a_reason_counts_for_the_next_block_only(found):
    blocks = "```python\n1\n```\n\nAnd:\n\n```python\n1 / 0\n```"
    assert len(found(f"<!-- not run: needs a miracle -->\n{blocks}")) == 1


def test_the_python_of_a_page_is_one_program(found):
    assert found("```python\nx = 1\n```\n\nThen:\n\n```python\nassert x == 1\n```") == []


def test_what_a_page_registers_is_forgotten(found):
    line = "d2_isonet.register_activation('OfAPage', lambda channels: None)"
    block = f"```python\nimport d2_isonet\n{line}\n```"
    assert [found(block), found(block)] == [[], []]


def test_only_prompted_lines_of_a_session_are_commands(found):
    assert found("```\n$ make help\nmake nothing, it says\n```") == []


def test_a_command_goes_on_after_a_backslash(found):
    command = "python tools/scaling_plan.py \\\n    --network-gb {}   # slower\n"
    assert found(f"```\n# On paper\n{command.format(50)}```") == []
    assert "invalid float value: 'x'" in found(f"```\n{command.format('x')}```")[0]


def test_an_empty_argument_counts(found):
    command = (
        "python train_net.py --config-file configs/risonet18_c4.yaml MODEL.WEIGHTS {} VERSION 2"
    )
    assert found(f"```\n{command.format(chr(34) * 2)}\n```") == []
    assert "has no value" in found(f"```\n{command.format('')}\n```")[0]


def test_a_good_link_is_no_problem(found):
    assert found("# A `b`, c\n[x](other.md#here) [y](#a-b-c) [z](https://github.com)") == []


def test_a_path_with_alternatives_names_all_of_them():
    assert alternatives("a{b,c}<n>d") == ["ab*d", "ac*d"]
    assert has("configs/risonet{18,34}_*.yaml") and not has("configs/risonet{18,35}_*.yaml")


def test_the_script_ends_with_1_where_something_does_not_hold(found, tmp_path, capsys):
    for text, status in (("nothing", 0), ("[x](no_such.md)", 1)):
        found(text)
        assert main([str(tmp_path / "page.md")]) == status
    assert "page.md:1: link to no_such.md" in capsys.readouterr().err
