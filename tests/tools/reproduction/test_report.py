"""How the tables of the papers are shown, and the images they are repeated on."""

import json
from dataclasses import replace

import pytest
import torch
from reproduction import documents
from reproduction.cells import (
    CLASSIFICATION,
    Cell,
    Folders,
    Row,
    Table,
    read_result,
    write_result,
)
from reproduction.report import (
    as_text,
    draw_figure3,
    figure3_as_markdown,
    figure3_cells,
    places,
    write_report,
)
from reproduction.search import shifts


@pytest.fixture
def folders(tmp_path) -> Folders:
    return Folders(tmp_path / "small", tmp_path / "output", tmp_path / "data")


@pytest.fixture
def cell() -> Cell:
    return Cell("set/network", CLASSIFICATION, "configs/Base-ISONet.yaml")


def _table(cell: Cell) -> Table:
    rows = (Row("ours", (cell,), ("73.29",)), Row("none", (replace(cell, name="n"),), ("N/A",)))
    return Table("table9", "A table", ("depth 8",), ("top-1",), rows)


RUN = {"seconds": 1800, "commit": "c0ffee", "machine": "CPU", "torch": "2"}


def _store(folders: Folders, cell: Cell, values: list[float | None]) -> None:
    for seed, value in enumerate(values, start=1):
        found = {} if value is None else {"top-1": value}
        attempt = {"attempts": [{"learning_rate": 0.1}], "learning_rate": 0.1}
        write_result(folders, cell, seed, {"measures": found, **attempt, **RUN})


def test_mean_and_spread_are_those_of_the_seeds(cell, folders):
    _store(folders, cell, [80.0, 82.0, 84.0])
    table = _table(cell)
    place = places(table, table.rows[0], folders, 3)[0]
    assert (place.mean, place.spread) == (82.0, 2.0)
    assert "82.0 ± 2.0  [73.29]" in as_text(table, folders, 3)
    assert "not run  [N/A]" in as_text(table, folders, 3)


def test_seeds_that_needed_a_smaller_learning_rate_are_said(cell, folders):
    _store(folders, cell, [80.0, 82.0, 84.0])
    for seed, rate in ((1, 0.1), (2, 0.03), (3, 0.1)):
        result = read_result(folders, cell, seed)
        write_result(folders, cell, seed, {**result, "learning_rate": rate})
    table = _table(cell)
    place = places(table, table.rows[0], folders, 3)[0]
    assert str(place) == "82.0 ± 2.0 (1 of 3 seeds at a smaller rate)"


@pytest.mark.parametrize(
    "values, shown",
    [([None, None, None], "N/A (3 of 3 seeds fail)"), ([80.0], "80.0 (1 seed)"),
     ([None], "N/A (1 of 1 seed fails)"),
     ([80.0, None, 82.0], "81.0 ± 1.4 (1 of 3 seeds fail)")],
)  # fmt: skip
def test_failed_and_missing_seeds_are_said(cell, folders, values, shown):
    _store(folders, cell, values)
    assert shown in as_text(_table(cell), folders, 3)


def test_more_seeds_than_were_run_and_places_that_are_none_are_said(cell, folders):
    _store(folders, cell, [80.0, 82.0, 84.0])
    assert "82.0 ± 2.0 (3 seeds)" in as_text(_table(cell), folders, 4)
    none = replace(_table(cell), rows=(Row("none", (None,), ("",)),))
    assert as_text(none, folders, 3).split()[-1] == "-"


WHOLE = json.dumps(
    {"measures": {}, "attempts": [], "learning_rate": 1, **RUN}
    | {"settings": None, "weights_learning_rate": None, "cell": "set/network", "seed": 1}
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "Expecting value"),
        ('{"measures": {"top-1": 8', "char 24"),
        ("[]", "it has no attempts"),
        (
            '{"attempts": [], "learning_rate": 1, "seconds": 1, "settings": {}, '
            '"cell": "set/network", "seed": 1}',
            "has no commit, machine, measures, torch",
        ),
        (WHOLE.replace("{}", '{"top-1": "80"}'), "measures are {'top-1': '80'}"),
        (WHOLE.replace("{}", "[1]"), r"measures are \[1\]"),
        ('{"measures": {"top-1": NaN}}', "it has a NaN"),
    ],
)
def test_a_damaged_result_is_named(text, message, cell, folders):
    _store(folders, cell, [80.0])
    path = folders.result(cell)
    with open(path, "a") as file:
        file.write(f"{text}\n")
    place = f"{path}:2 is no result"
    with pytest.raises(ValueError, match=f"{place} .*{message}.*restore it, or remove"):
        as_text(_table(cell), folders, 3)


def test_columns_without_a_percentage_are_no_picture(cell, folders):
    for seed in (1, 2):
        result = {"measures": {"L2 effort": 64.0}, "attempts": [], "learning_rate": None}
        write_result(folders, cell, seed, {**result, **RUN})
    table = replace(_table(cell), columns=("L2 effort",), measures=("L2 effort",))
    write_report(table, folders, 2, folders.output)
    assert not (folders.output / "table9.png").exists()
    assert json.loads((folders.output / "table9.json").read_text())[0]["values"] == [64.0, 64.0]


def test_the_report_writes_json_and_picture(cell, folders, capsys):
    _store(folders, cell, [80.0, 82.0])
    write_report(_table(cell), folders, 2, folders.output)
    content = json.loads((folders.output / "table9.json").read_text())
    assert content[0] == {"row": "ours", "column": "depth 8", "values": [80.0, 82.0],
                          "seeds run": 2, "paper": "73.29"}  # fmt: skip
    assert (folders.output / "table9.png").stat().st_size > 1000


def test_the_page_keeps_its_words_and_gets_the_tables(cell, folders, tmp_path):
    _store(folders, cell, [80.0, 82.0, 84.0])
    path = tmp_path / "RESULTS.md"
    path.write_text("words\n<!-- table9 -->\nold\n<!-- end -->\nmore words\n")
    assert documents.fill(path, [_table(cell)], folders, 3) == ["figure3"]
    text = path.read_text()
    assert text.startswith("words\n<!-- table9 -->\nA table.") and "more words" in text
    assert "old" not in text and "3 of 6 cells run, 1.5 hours in all" in text


def test_a_table_whose_end_is_missing_costs_the_page_nothing(tmp_path):
    text = "<!-- one -->\nold\nwords\n<!-- two -->\nold\n<!-- end -->\n"
    found, missing = documents.replace_parts(text, {"one": "new 1\n", "two": "new 2\n"})
    assert missing == ["one"]
    assert found == "<!-- one -->\nold\nwords\n<!-- two -->\nnew 2\n<!-- end -->\n"


def test_shifts_are_counted_by_stage(tmp_path, folders):
    state = {"res2.0.activation.shift": torch.tensor([-1.0, -1.2]), "res2.0.conv1.weight":
             torch.zeros(1), "stem.activation.shift": torch.tensor([-9.0])}  # fmt: skip
    torch.save({"model": state}, tmp_path / "backbone.pth")
    found = shifts(tmp_path)
    assert found["res2"]["mean"] == pytest.approx(-1.1)
    assert sum(found["res2"]["counts"]) == 2 and found["stem"]["counts"][0] == 1
    cell = next(iter(figure3_cells("small").values()))
    attempt = {"learning_rate": 0.1, "shifts": {"res2": found["res2"]}}
    result = {"learning_rate": 0.1, "attempts": [attempt], "measures": {}, **RUN}
    write_result(folders, cell, 1, result)
    assert "-1.100" in figure3_as_markdown("small", folders, 1)
    assert draw_figure3("small", folders, 1, tmp_path / "shifts.png").stat().st_size > 1000
