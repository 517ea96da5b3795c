"""What a load has left as it was: the table, and the message where that must not be."""

from collections import defaultdict
from collections.abc import Mapping

from d2_isonet.modeling.stages import STAGES, stage_of

BATCH_COUNTER = "num_batches_tracked"  # of batch norms; detectron2's zoo and FrozenBN have none
_CHECK = (
    "Check MODEL.RESNETS.DEPTH, the number of classes and, for a pretrained backbone, that this is "
    "its backbone.pth"
)
_RENAMED = (
    "To have detectron2 match names that lack their beginning, save the file again as "
    "{'model': STATE_DICT, 'matching_heuristics': True}"
)
_BACKBONE_ALONE = (
    "It holds a backbone alone: give the model_final.pth of a training that has started from it"
)


def load_report(state_dict: Mapping, unloaded: set[str], strict: bool) -> tuple[list, list[str]]:
    """Rows (part, loaded, total, not loaded) and the names that had to load and did not."""
    names = defaultdict(list)
    for name in state_dict:
        if not name.endswith(BATCH_COUNTER):
            names[stage_of(name)].append(name)
    rows, incomplete = [], []
    for part, members in names.items():
        left = [name for name in members if name in unloaded]
        rows.append((part, len(members) - len(left), len(members), len(left) or ""))
        if strict or part in STAGES:
            incomplete += left
    if not any(loaded for _, loaded, _, _ in rows):
        incomplete = [name for members in names.values() for name in members]
    return rows, incomplete


def mismatch_message(path: str, asked: Mapping, found: Mapping) -> str:
    """What to tell where tensors were not loaded.

    Args:
        asked: their shapes by name.
        found: all shapes of the file.
    """
    lines, renamed = [], False
    for name, shape in list(asked.items())[:5]:
        same = next((n for n in found if name == n or name.endswith("." + n)), None)
        there = "not in the file"
        if same and found[same] == shape:
            there, renamed = f"there as {same}", True
        elif same:
            there = f"shape {found[same]} in the file, {shape} in the model"
        lines.append(f"{name}: {there}")
    remedy = _RENAMED if renamed else _CHECK
    if {*map(stage_of, asked)}.isdisjoint(STAGES) and {*map(stage_of, found)} <= {*STAGES}:
        remedy = _BACKBONE_ALONE
    more = f"\n  and {len(asked) - 5} more" if len(asked) > 5 else ""
    return (
        f"{path} does not fit the model: {len(asked)} tensors would keep their random "
        "initialization:\n  " + "\n  ".join(lines) + more + "\n" + remedy
    )
