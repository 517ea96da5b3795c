"""The tables of the papers: which cells they have, and how rows and columns are chosen."""

import subprocess
import sys

import pytest
from repository import REPOSITORY
from reproduction import command
from reproduction.cells import jobs_of, select
from reproduction.tables import TABLES

from d2_isonet.config.loading import load_config
from d2_isonet.modeling.backbone.checks import check_architecture

CELLS = {
    (cell.name, scale): cell
    for scale in ("small", "full")
    for build in TABLES.values()
    for cell, _ in jobs_of([build(scale)], 1)
}


@pytest.mark.parametrize("cell", CELLS.values(), ids=["/".join(key) for key in CELLS])
def test_every_cell_has_a_config_that_its_options_fit(cell):
    cfg = load_config(str(REPOSITORY / cell.config), list(cell.opts))
    check_architecture(cfg)
    assert (REPOSITORY / cell.script).is_file()


@pytest.mark.parametrize("scale", ["small", "full"])
def test_every_row_of_every_table_has_a_cell_or_no_figure(scale):
    for build in TABLES.values():
        table = build(scale)
        for row in table.rows:
            assert len(row.paper) == len(table.columns)
            for own, figure in zip(row.cells, row.paper, strict=False):
                assert own is not None or figure == ""


def test_a_cell_of_two_tables_is_run_once():
    tables = [TABLES[name]("small") for name in ("table1", "table2", "table3")]
    names = [cell.name for cell, _ in jobs_of(tables, 2)]
    assert len(names) == 2 * len(set(names)) == 2 * (7 + 5 + 2)


def test_only_the_pretrainings_that_are_needed_are_run():
    table = select(TABLES["table6"]("small"), ["ResNet, GN, learning rate 0.01"], None)
    assert {cell.name for cell, _ in jobs_of([table], 1)} == {
        "cutouts/resnet18_gn", "detection/resnet18_gn_rate0.01"}  # fmt: skip


def test_a_row_named_in_full_is_that_row_alone():
    table = TABLES["decoupled_robustness"]("small")
    assert [row.label for row in select(table, ["Baseline"], None).rows] == ["Baseline"]
    parts = [row.label for row in select(table, ["Base", "BallConv"], None).rows]
    assert [part.split(",")[0] for part in parts] == ["Baseline", "BallConv", *["Baseline"] * 3]
    assert select(table, None, ["BIM", "none"]).columns == ("none", "BIM")


def test_a_row_that_is_not_there_is_an_error_with_the_rows():
    args = command.parse_args(["table1", "table6", "--rows", "VGG"])
    with pytest.raises(SystemExit, match="no row or column.*Vanilla.*R-ISONet"):
        command.chosen_tables(args)


def test_rows_of_several_tables_are_looked_for_in_all_of_them():
    args = command.parse_args(["table1", "table6", "--rows", "Vanilla"])
    # a part does not replace the whole table's json and picture
    assert [table.name for table in command.chosen_tables(args)] == ["table1-part"]


@pytest.mark.parametrize("option", ["--rows", "--columns"])
def test_a_text_that_names_nothing_is_told_beside_one_that_does(option):
    args = command.parse_args(["table4", option, "ISONet", "depth", "Typo"])
    with pytest.raises(SystemExit, match="no row or column .*Typo; rows: .*ISONet"):
        command.chosen_tables(args)


def test_what_the_paper_searched_a_rate_for_is_searched_at_full_scale():
    rows = TABLES["table1"]("full").rows
    searched = [row.label for row in rows if row.cells[0].learning_rates]
    assert searched == ["(b) Vanilla", "(c) delta, penalty", "(d) SReLU", "(e) SReLU, penalty"]


def test_a_full_run_takes_the_gpus_there_are():
    args = command.parse_args(["table6", "--scale", "full", "--num-gpus", "2"])
    cells = [row.cells[0] for row in command.chosen_tables(args)[0].rows]
    assert {cell.processes for cell in cells} == {cell.weights.processes for cell in cells} == {2}


def test_columns_of_measures_are_selected_with_their_measures():
    table = select(TABLES["table6"]("full"), None, ["mask"])
    assert table.columns == table.measures == ("mask AP",)
    assert table.rows[0].paper == ("32.2",) and len(table.rows[0].cells) == 1


@pytest.mark.parametrize(
    "words",
    [
        *(["--seeds", "0"], ["--jobs", "x"], ["--threads", "-3"]),
        *(["--page", __file__, "--rows", "a"], ["--page", "no such page"]),
    ],
)
def test_impossible_arguments_are_refused(words, capsys):
    with pytest.raises(SystemExit):
        command.parse_args(["table1", *words])


def test_eight_gpus_are_asked_for_once_at_a_time():
    assert command.parse_args(["table1", "--scale", "full"]).jobs == 1


def test_columns_are_selected_in_rows_and_title():
    table = select(TABLES["table4"]("small"), None, ["56", "20"])
    assert table.columns == ("depth 20", "depth 56")
    assert table.rows[2].paper == ("65.67", "63.09")


def test_a_dry_run_prints_what_a_person_types_and_ends_quietly_in_head(tmp_path):
    words = [sys.executable, "tools/reproduce.py", "all", "--dry-run", "--results", str(tmp_path)]
    pipe = subprocess.PIPE
    with subprocess.Popen(words, cwd=REPOSITORY, stdout=pipe, stderr=pipe, text=True) as run:
        lines = [run.stdout.readline() for _ in range(2)]
        run.stdout.close()  # as head does
        assert run.stderr.read() == ""
    assert run.returncode == 0
    assert lines[0] == "# cutouts/risonet18, seed 1\n"
    assert lines[1].startswith("python tools/pretrain_imagenet.py --config-file configs/quick")
