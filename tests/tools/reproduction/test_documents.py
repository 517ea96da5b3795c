"""MODEL_ZOO.md has a row for every config, RESULTS.md every table, as the stored runs have it."""

import re
from collections import Counter
from pathlib import Path

import pytest
from config_files import LEAVES
from repository import REPOSITORY
from reproduction.cells import Folders, write_result
from reproduction.documents import SECTIONS, fill, zoo_table
from reproduction.tables import TABLES, coco, imagenet

PAGE = (REPOSITORY / "MODEL_ZOO.md").read_text()
RESULT = {
    "attempts": [],
    "learning_rate": None,
    "measures": {"top-1": 76.5},
    "seconds": 7200,
    "machine": "8 x A",
    "commit": "abcdef0",
    "torch": "2.11",
}


def row(table: str, config: str, options: str = "") -> list[str]:
    """What stands behind config and options."""
    rows = ([cell.strip() for cell in x.strip("|").split("|")] for x in table.splitlines())
    return next(found[2:] for found in rows if found[:2] == [f"`{config}`", options])


@pytest.mark.parametrize("section", SECTIONS)
def test_the_page_is_what_the_script_writes(section):
    written = re.search(rf"<!-- {section} -->\n(.*?)\n<!-- end -->", PAGE, re.DOTALL)
    assert written[1] == zoo_table(section, REPOSITORY / "results" / "full")


def test_the_results_page_is_what_the_stored_results_give(tmp_path):
    page = tmp_path / "RESULTS.md"
    page.write_text((REPOSITORY / "RESULTS.md").read_text())
    folders = Folders(REPOSITORY / "results" / "small", tmp_path, tmp_path)
    fill(page, [build("small") for build in TABLES.values()], folders, seeds=3)
    assert page.read_text() == (REPOSITORY / "RESULTS.md").read_text()


def test_every_config_has_one_row():
    rows = Counter(re.findall(r"^\| `([\w.-]+\.yaml)` +\| +\|", PAGE, re.MULTILINE))
    assert rows == Counter(p.name for p in LEAVES if p.parent.name != "quickstart")


def test_a_config_that_was_not_run_says_so():
    table = zoo_table("configs", Path("no_results"))
    assert row(table, "risonet50_dc5.yaml")[:2] == ["37.3 / 34.4 (table 6)", "not run"]
    assert row(table, "risonet50_c4.yaml")[:2] == ["no figure", "not run"]


def test_a_stored_run_is_shown_with_time_seed_and_commit(tmp_path):
    folders = Folders(tmp_path, tmp_path, tmp_path)
    write_result(folders, imagenet("risonet50"), 2, RESULT)
    cells = row(zoo_table("configs/imagenet", tmp_path), "risonet50.yaml")
    assert cells[:3] == ["76.18 (table 5)", "top-1 76.50", "2.0 h, not recorded (8 x A)"]
    assert cells[3].startswith("2, abcdef0, [risonet.jsonl](")


def test_a_run_with_options_of_its_own_names_them(tmp_path):
    folders = Folders(tmp_path, tmp_path, tmp_path)
    cell = coco("risonet50_dc5", ("SOLVER.ORTHO_COEFF=0",))
    write_result(folders, cell, 1, RESULT | {"measures": {"box AP": 37.0}})
    found = row(zoo_table("configs", tmp_path), "risonet50_dc5.yaml", "`SOLVER.ORTHO_COEFF=0`")
    assert found[1] == "box AP 37.00"
    assert row(zoo_table("configs", tmp_path), "risonet50_dc5.yaml")[1] == "not run"


def test_a_row_of_a_table_names_its_options_and_the_angles_of_its_figures():
    table = zoo_table("configs/cifar", Path("no_results"))
    options = "`MODEL.DECOUPLED.MAGNITUDE=Seg MODEL.RESNETS.NORM=`"
    assert row(table, "cnn9_tanh.yaml", options)[0] == (
        "65.31 linear (slides); 69.66 cosine (slides); N/C square_cosine (slides)"
    )
