"""Why a detector loses AP: the six kinds of error of TIDE (Bolya et al., ECCV 2020)."""

from collections.abc import Sequence

from pages.page import Page

from .datasets import DatasetResults
from .figures import bars

KINDS = {
    "Cls": ("classification", "in place (IoU >= 0.5 with an object of another class), wrong class"),
    "Loc": ("localization", "right class, badly placed (IoU with such an object 0.1 to 0.5)"),
    "Both": ("both", "wrong class and badly placed (IoU 0.1 to 0.5 with one of another class)"),
    "Dupe": ("duplicate", "right, but the object already has a detection with a higher score"),
    "Bkg": ("background", "overlaps no object (IoU below 0.1 with all)"),
    "Miss": ("missed", "an object without a detection, nor a Cls or Loc error that is its own"),
}
TITLES = {"bbox": "Boxes", "segm": "Masks"}


def error_rows(analyses: dict) -> list[dict]:
    """A row a kind: name, definition and, for each run, how many and how much AP they cost."""
    rows = []
    for kind, (name, definition) in KINDS.items():
        row = {"error": name, "a detection that is": definition}
        for run, analysis in analyses.items():
            prefix = f"{run}: " if len(analyses) > 1 else ""
            row[f"{prefix}dAP"] = analysis.errors["delta_ap"][kind]
            row[f"{prefix}number"] = analysis.errors["counts"][kind]
        rows.append(row)
    return rows


def add_errors(page: Page, dataset: DatasetResults, names: Sequence[str]) -> None:
    page.subsection(
        "Kinds of error",
        "Of each kind, by how much AP50 would rise if it alone were mended (dAP): the best "
        "detection of each free object set right, the others taken away; for missed objects, if "
        "they did not count. All detections count, whatever their score. The dAP do not add up.",
    )
    for task, title in TITLES.items():
        analyses = dataset.analyses(task)
        if not analyses:
            continue
        rows = error_rows(analyses)
        kinds = [row["error"] for row in rows]
        values = {
            name: [analysis.errors["delta_ap"][kind] for kind in KINDS]
            for name, analysis in analyses.items()
        }
        page.figure(bars(kinds, values, names, f"{title}: dAP (AP50, percent)"), f"{title}.")
        formats = {key: ".2f" for row in rows for key in row if key.endswith("dAP")}
        page.table(rows, formats=formats)
