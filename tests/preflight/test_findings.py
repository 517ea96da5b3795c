"""The table of a preflight, and the one error that it ends in."""

import pytest

from d2_isonet.preflight.findings import Finding, findings_table, raise_errors

FINDINGS = [
    Finding("fact", "train", "100 images, 3 classes"),
    Finding("error", "val.json", "category_id 8 of annotation 12 is unknown", "use 1, 2 or 3"),
    Finding("warning", "train.json", "4 boxes lie outside their image", "correct them"),
    Finding("error", "images/7.jpg", "0 bytes", "replace the file"),
]


def test_errors_stand_first_and_facts_last():
    lines = findings_table(FINDINGS).splitlines()
    severities = [line.split("|")[1].strip() for line in lines if line.startswith("|")]
    assert [s for s in severities if s] == ["error", "error", "warning", "fact"]


def test_the_table_ends_with_the_counts():
    assert findings_table(FINDINGS).endswith("\n2 errors, 1 warning, 1 fact")
    assert findings_table([]) == "0 errors, 0 warnings, 0 facts"


def test_no_line_of_the_table_is_wider_than_a_screen_even_of_a_long_path():
    long = Finding("warning", "/folder" * 40, "many words " * 20, "remove " * 20)
    lines = findings_table([*FINDINGS, long]).splitlines()
    assert max(map(len, lines)) <= 140
    shown = "".join(line.split("|")[2].strip() for line in lines if line.startswith("|"))
    assert shown.count("/folder") == 40


def test_one_error_is_the_whole_message():
    with pytest.raises(ValueError) as error:
        raise_errors([FINDINGS[1], FINDINGS[2]])
    assert str(error.value) == (
        "val.json: category_id 8 of annotation 12 is unknown; use 1, 2 or 3"
    )


def test_several_errors_are_all_in_one_message():
    with pytest.raises(ValueError, match="^2 things.*\n  val.json: .*\n  images/7.jpg: 0 bytes"):
        raise_errors(FINDINGS)


def test_warnings_and_facts_raise_nothing():
    assert raise_errors([FINDINGS[0], FINDINGS[2]]) is None
