"""Signs that accuracies under attack come from gradient masking instead of robustness."""

from .robustness import UNBOUNDED_EPS


def masking_signs(results: dict) -> list[str]:
    """One sentence for each sign that gradients are masked and the accuracies too high.

    Athalye et al. 2018, "Obfuscated gradients give a false sense of security", section 3.1. A
    difference counts if it is at least one point of accuracy. A classifier that guesses has no
    sign: a constant answer withstands every attack.

    Args:
        results: of `evaluate_robustness`.
    """
    if is_guessing(results):
        return []
    checks = (_one_step_wins, _only_one_step_survived, _transfer_wins, _unbounded_fails,
              _more_eps_helps, _no_gradient)  # fmt: skip
    return [sentence for check in checks for sentence in check(results)]


def is_guessing(results: dict) -> bool:
    """Whether the clean accuracy is less than five points better than chance."""
    return results["clean"] < 100 / results["num_classes"] + 5


def _by(results: dict, **wanted: str) -> dict[float, dict]:
    """Rows with the wanted "attack" and "access", by eps in ascending order."""
    rows = [r for r in results["rows"] if all(r[k] == v for k, v in wanted.items())]
    return {row["eps"]: row for row in sorted(rows, key=lambda row: row["eps"])}


def _pairs(first: dict[float, dict], second: dict[float, dict]) -> list[tuple[float, float, float]]:
    """(eps, first accuracy, second accuracy) for each eps > 0 of both."""
    common = [eps for eps in first if eps in second and eps > 0]
    return [(eps, first[eps]["accuracy"], second[eps]["accuracy"]) for eps in common]


def _one_step_wins(results: dict) -> list[str]:
    one, many = (_by(results, attack=name, access="white-box") for name in ("fgsm", "bim"))
    return [
        f"At eps {eps:g} BIM leaves {b:.1f} % and one step (FGSM) only {a:.1f} %: the iterated "
        "attack should be the stronger one."
        for eps, a, b in _pairs(one, many)
        if b >= a + 1
    ]


def _only_one_step_survived(results: dict) -> list[str]:
    one, many = (_by(results, attack=name, access="white-box") for name in ("fgsm", "bim"))
    chance = 100 / results["num_classes"]
    return [
        f"At eps {eps:g} FGSM leaves {a:.1f} % and BIM {b:.1f} % (chance {chance:.1f} %): robust "
        "to one step only, which is no robustness."
        for eps, a, b in _pairs(one, many)
        if a >= b + 30 and b <= chance + 10
    ]


def _transfer_wins(results: dict) -> list[str]:
    return [
        f"At eps {eps:g} {name.upper()} by another network's gradients leaves {b:.1f} % and by its "
        f"own {a:.1f} %: its own gradients should be the better ones."
        for name in ("fgsm", "bim")
        for eps, a, b in _pairs(
            *(_by(results, attack=name, access=access) for access in ("white-box", "black-box"))
        )
        if b <= a - 1
    ]


def _unbounded_fails(results: dict) -> list[str]:
    return [
        f"At eps {eps:g}, which can turn every image grey, BIM still leaves {row['accuracy']:.1f} "
        "%: an attack without a bound should leave almost nothing."
        for eps, row in _by(results, attack="bim", access="white-box").items()
        if eps >= UNBOUNDED_EPS and row["step"] * row["iterations"] >= eps and row["accuracy"] > 5
    ]


def _more_eps_helps(results: dict) -> list[str]:
    rows = list(_by(results, attack="bim", access="white-box").values())
    return [
        f"BIM leaves {b['accuracy']:.1f} % at eps {b['eps']:g} and {a['accuracy']:.1f} % at eps "
        f"{a['eps']:g}: a larger eps should leave less."
        for a, b in zip(rows, rows[1:], strict=False)
        if b["accuracy"] >= a["accuracy"] + 1
    ]


def _no_gradient(results: dict) -> list[str]:
    share = results["zero_gradients"]
    return [
        f"The gradient of {share:.1f} % of the images is exactly zero: no attack of these moves "
        "them."
    ] * (share >= 1)
