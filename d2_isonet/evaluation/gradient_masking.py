"""Signs that accuracies under attack come from gradient masking instead of robustness."""

from .robustness import UNBOUNDED_EPS


def masking_signs(results: dict) -> list[str]:
    """One sentence for each sign that gradients are masked and the accuracies too high.

    Athalye et al. 2018, "Obfuscated gradients give a false sense of security", section 3.1. A
    difference counts if it is at least one point of accuracy. A classifier that guesses has no
    sign: a constant answer withstands every attack. `results` are those of `evaluate_robustness`.
    """
    if is_guessing(results):
        return []
    return [*_one_step(results), *_transfer(results), *_large_eps(results), *_no_gradient(results)]


def is_guessing(results: dict) -> bool:
    """Whether the clean accuracy is less than five points better than chance."""
    return results["clean"] < 100 / results["num_classes"] + 5


def _rows(results: dict, attack: str, access: str = "white-box") -> dict[float, dict]:
    """The rows of one attack by eps, in ascending order."""
    rows = [r for r in results["rows"] if (r["attack"], r["access"]) == (attack, access)]
    return {row["eps"]: row for row in sorted(rows, key=lambda row: row["eps"])}


def _pairs(first: dict[float, dict], second: dict[float, dict]) -> list[tuple[float, float, float]]:
    """(eps, first accuracy, second accuracy) for each eps > 0 of both."""
    common = [eps for eps in first if eps in second and eps > 0]
    return [(eps, first[eps]["accuracy"], second[eps]["accuracy"]) for eps in common]


def _one_step(results: dict) -> list[str]:
    """BIM is weaker than FGSM, or the network withstands FGSM alone."""
    pairs = _pairs(_rows(results, "fgsm"), _rows(results, "bim"))
    chance = 100 / results["num_classes"]
    return [
        f"At eps {eps:g} BIM leaves {b:.1f} % and one step (FGSM) only {a:.1f} %: the iterated "
        "attack should be the stronger one."
        for eps, a, b in pairs
        if b >= a + 1
    ] + [
        f"At eps {eps:g} FGSM leaves {a:.1f} % and BIM {b:.1f} % (chance {chance:.1f} %): robust "
        "to one step only, which is no robustness."
        for eps, a, b in pairs
        if a >= b + 30 and b <= chance + 10
    ]


def _transfer(results: dict) -> list[str]:
    return [
        f"At eps {eps:g} {name.upper()} by another network's gradients leaves {b:.1f} % and by its "
        f"own {a:.1f} %: its own gradients should be the better ones."
        for name in ("fgsm", "bim")
        for eps, a, b in _pairs(_rows(results, name), _rows(results, name, "black-box"))
        if b <= a - 1
    ]


def _large_eps(results: dict) -> list[str]:
    """BIM fails without a bound, or fails more often with a larger one."""
    rows = list(_rows(results, "bim").values())
    return [
        f"At eps {row['eps']:g}, which can turn every image grey, BIM still leaves "
        f"{row['accuracy']:.1f} %: an attack without a bound should leave almost nothing."
        for row in rows
        if row["eps"] >= UNBOUNDED_EPS
        and row["step"] * row["iterations"] >= row["eps"]
        and row["accuracy"] > 5
    ] + [
        f"BIM leaves {b['accuracy']:.1f} % at eps {b['eps']:g} and {a['accuracy']:.1f} % at eps "
        f"{a['eps']:g}: a larger eps should leave less."
        for a, b in zip(rows, rows[1:], strict=False)
        if b["accuracy"] >= a["accuracy"] + 1
    ]


def _no_gradient(results: dict) -> list[str]:
    share = results["zero_gradients"]
    sign = (
        f"The gradient of {share:.1f} % of the images is exactly zero: no attack of these moves "
        "them."
    )
    return [sign] if share >= 1 else []
