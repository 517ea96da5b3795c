"""Names from files reach terminal, log, table, csv and page without their control characters."""

import csv
import io
import logging

import pytest

from d2_isonet.evaluation.classification import Prediction, read_predictions
from d2_isonet.evaluation.per_class import csv_text, name_in
from d2_isonet.preflight.findings import Finding, findings_table, raise_errors
from d2_isonet.reporting.page.page import Page
from d2_isonet.utils.messages import UserError, printable, readable_errors, shortened, show

NAME = "a\x1b[31m\x07b\r\u202ec\u2028d\x9be\ud800\n[12/01 10:00:00] x ERROR: forged"
RAW = set("\x1b\x07\r\u202e\u2028\x9b\ud800")


def is_clean(text: str) -> bool:
    return not RAW & set(text) and "\n[" not in text


@pytest.mark.parametrize("kind", ["name", "message", "log"])
def test_what_could_do_harm_is_escaped(kind):
    text = printable(NAME, kind)
    assert is_clean(text) and text.startswith(r"a\x1b[31m\x07b\r\u202ec\u2028d\x9be\ud800\n[12/01")
    assert printable(text, kind) == text


def test_right_names_stay():
    for name in ("straße 1.jpg", "猫/犬.png", "خط", "😀 👨\u200d👩", "C:\\new", "a\u202fb"):
        assert printable(name) == name


def test_line_breaks_stay_where_they_belong():
    text = "a\n  b\nc\n[d\te"
    assert printable(text) == "a\\n  b\\nc\\n[d\\te"
    assert printable(text, "message") == "a\n  b\\nc\\n[d\te"
    assert printable(text, "log") == "a\n  b\nc\\n[d\te"


def test_errors_findings_tables_and_lists_are_clean():
    error = UserError(f"file {NAME}", f"rename {NAME}")
    assert all(map(is_clean, (str(error), error.what, error.remedy, shortened([NAME]))))
    finding = Finding("error", NAME, NAME, NAME)
    assert is_clean(str(finding)) and is_clean(findings_table([finding]))
    with pytest.raises(UserError) as raised:
        raise_errors([finding, finding])
    assert is_clean(str(raised.value)) and str(raised.value).count("\n  ") == 2


def test_logs_tracebacks_and_prints_are_clean(capsys):
    with readable_errors():  # every command enters it
        pass
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    logger = logging.getLogger("test_printable")
    logger.addHandler(handler)
    try:
        logger.warning("%s in \x1b[36mtable\x1b[0m\n| a |\n| b |", NAME)
        raise KeyError(NAME) from OSError(NAME)
    except KeyError:
        logger.exception("failed")
    logger.warning("%d", "the arguments do not fit")
    logger.removeHandler(handler)
    show(NAME)
    show(NAME, to_stderr=True)
    assert is_clean(stream.getvalue()) and "in table\n| a |\n| b |" in stream.getvalue()
    assert is_clean(capsys.readouterr().out)


def test_a_command_ends_with_a_clean_line(capsys):
    with pytest.raises(SystemExit), readable_errors():
        raise FloatingPointError(NAME)
    assert is_clean(capsys.readouterr().err)


FORMULAS = ["=1+1", "+x", "-x", "@x", "\t=1", "'=1", "=cmd|' /C calc'!A0", "\uff1d1"]


@pytest.mark.parametrize("text", FORMULAS)
def test_a_formula_in_csv_is_quoted_and_read_back(text):
    field = next(csv.reader([csv_text(["a"], [{"a": text}]).splitlines()[1]]))[0]
    assert field[0] in "'\\" and name_in(field) == printable(text)


def test_numbers_in_csv_stay_numbers():
    row = {"a": -1.5, "b": "-1.5", "c": "+3e-05", "d": None, "e": -7}
    assert csv_text(list(row), [row]).splitlines()[1] == "-1.5,-1.5,+3e-05,,-7"


def test_predictions_are_read_back(tmp_path):
    name = "=1/a, b.jpg"
    rows = [Prediction(name, 0, 1, 0.5, 0.25, True)]
    fields = ({**row._asdict(), "in_top5": 1} for row in rows)
    (tmp_path / "p.csv").write_text(csv_text(Prediction._fields, fields))
    assert read_predictions(tmp_path / "p.csv") == rows


def test_a_page_is_clean():
    page = Page(NAME, NAME).section(NAME, NAME).note(NAME).facts({NAME: NAME}).code("a\n  b", NAME)
    text = page.table([{NAME: NAME}], caption=NAME, fold=NAME).html()
    assert is_clean(text) and "a\n  b" in text and "<script>" in text
