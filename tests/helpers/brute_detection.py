"""Matrix, kinds of error and dAP of detections by brute force, from their definitions."""

from collections import Counter, defaultdict

import numpy as np
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO


def overlaps(task: str, truth: COCO, image_id: int, found: list[dict]) -> tuple[list, np.ndarray]:
    """The image's annotations that are no crowds, and IoU (detections, annotations)."""
    objects = [a for a in truth.imgToAnns[image_id] if not a["iscrowd"]]
    if task == "bbox":
        regions = [x["bbox"] for x in found], [x["bbox"] for x in objects]
    else:
        regions = [x["segmentation"] for x in found], [truth.annToRLE(x) for x in objects]
    if not all(regions):
        return objects, np.zeros((len(found), len(objects)))
    return objects, coco_mask.iou(*regions, [0] * len(objects))


def brute_confusion(task, truth, matches, threshold) -> np.ndarray:
    ids = sorted(truth.cats)
    matrix = np.zeros((len(ids) + 1, len(ids) + 1), int)
    for image_id in truth.imgs:
        own = [
            d
            for d, ok in zip(matches.detections, matches.shown(threshold), strict=True)
            if ok and d["image_id"] == image_id
        ]
        own.sort(key=lambda d: -d["score"])
        objects, iou = overlaps(task, truth, image_id, own)
        free = np.ones(len(objects), bool)
        for d, row in zip(own, iou, strict=True):
            best = int(np.argmax(np.where(free, row, -1))) if free.any() else -1
            hit = best >= 0 and row[best] >= 0.5
            matrix[
                ids.index(objects[best]["category_id"]) if hit else -1, ids.index(d["category_id"])
            ] += 1
            if hit:
                free[best] = False
        for place in np.flatnonzero(free):
            matrix[ids.index(objects[place]["category_id"]), -1] += 1
    return matrix


def average_precision(points: list[tuple[float, bool]], objects: int) -> float:
    """COCO's: the mean over 101 recalls of the best precision from that recall on."""
    points = sorted(points, key=lambda p: -p[0])
    hits = np.cumsum([p[1] for p in points])
    precision = hits / np.arange(1, len(points) + 1)
    best = [max(precision[hits >= r * objects - 1e-9], default=0.0) for r in np.linspace(0, 1, 101)]
    return 100 * float(np.mean(best))


def brute_errors(task, truth, matches) -> tuple[Counter, dict]:
    """TIDE's kinds and dAP, from its definitions (Bolya et al. 2020, sections 2.1 and 2.2)."""
    points = []  # class, score, right, kind, the object's place in its image
    missed, counts = [], Counter()
    for image_id in truth.imgs:
        places = [
            n
            for n, d in enumerate(matches.detections)
            if d["image_id"] == image_id and matches.counts[n]
        ]
        own = [matches.detections[n] for n in places]
        objects, iou = overlaps(task, truth, image_id, own)
        all_places = {id(a): n for n, a in enumerate(truth.dataset["annotations"])}
        is_found = np.array([all_places[id(a)] in matches.score_of_match for a in objects], bool)
        reachable = set()
        for n, d, row in zip(places, own, iou, strict=True):
            same = np.array([a["category_id"] == d["category_id"] for a in objects], bool)
            row_same, row_other = np.where(same, row, 0.0), np.where(same, 0.0, row)
            kind, target = "", None
            if not matches.right[n]:
                if len(row) == 0:
                    kind = "Bkg"
                elif 0.1 <= row_same.max() <= 0.5:
                    kind, target = "Loc", int(row_same.argmax())
                elif row_other.max() >= 0.5:
                    kind, target = "Cls", int(row_other.argmax())
                elif (row_same * is_found).max() >= 0.5:
                    kind = "Dupe"
                else:
                    kind = "Bkg" if row.max() <= 0.1 else "Both"
                counts[kind] += 1
            if target is not None and not is_found[target]:
                reachable.add(target)
                goal = (image_id, target, objects[target]["category_id"])
            else:
                goal = None
            points.append((d["category_id"], d["score"], bool(matches.right[n]), kind, goal))
        missed += [
            a["category_id"]
            for n, a in enumerate(objects)
            if not is_found[n] and n not in reachable
        ]
    counts["Miss"] = len(missed)
    return counts, {
        kind: mean_ap(truth, fixed(points, kind), Counter(missed) if kind == "Miss" else Counter())
        - mean_ap(truth, fixed(points, ""), Counter())
        for kind in counts
    }


def fixed(points: list[tuple], kind: str) -> list[tuple]:
    """(class, score, right) with the errors of one kind corrected: the best detection of a free
    object becomes right, all others are taken away."""
    best = {}
    for n, (_, score, _, own, goal) in enumerate(points):
        if kind and own == kind and goal and (goal not in best or score > points[best[goal]][1]):
            best[goal] = n
    corrected = {n: goal[2] for goal, n in best.items()}
    return [
        (corrected.get(n, category), score, right or n in corrected)
        for n, (category, score, right, own, _) in enumerate(points)
        if not kind or own != kind or n in corrected
    ]


def mean_ap(truth: COCO, points: list[tuple], fewer: Counter) -> float:
    objects = Counter(a["category_id"] for a in truth.dataset["annotations"] if not a["iscrowd"])
    by_class = defaultdict(list)
    for category, score, right in points:
        by_class[category].append((score, right))
    values = []
    for category, number in objects.items():
        left = number - fewer[category]
        values.append(average_precision(by_class[category], left) if left else 0.0)
    return float(np.mean(values))
