"""What is said of a step whose loss, gradient or weights are not finite."""


def in_words(facts: dict, why_stopped: str, file: str) -> str:
    """The message of a failed step.

    Args:
        facts: what NonFiniteRecovery gathers; "processes" has each one's.
        why_stopped: why the training is not skipping or rolling back as it was asked to; "".
        file: where all facts are.
    """
    found = [own for own in facts["processes"] if "layer" in own or "raised" in own]
    met = (found or facts["processes"])[0]
    rows = {
        "losses": ", ".join(f"{name} {x}" for name, x in met["losses"].items()),
        "weights not finite": _some(met["non_finite_weights"]),
        "first layer": _layer_in_words(met) if "images" in met else "",
        "gradients not finite": _some(met["non_finite_gradients"]),
        "images": _some([name for name in met.get("images", []) if name], 16),
        "learning rate": f"{facts['learning_rate']:g}",
        "last good checkpoint": facts["last_checkpoint"] or "none yet",
        "all facts": file,
    }
    table = "".join(f"\n  {name}: {text}" for name, text in rows.items() if text)
    reason = f"Stopped: {why_stopped}. " if why_stopped else ""
    what_follows = _WHAT_FOLLOWS[facts["action"]]
    return f"Iteration {facts['iteration']}: {met['reason']}{table}\n{reason}{what_follows}"


_WHAT_FOLLOWS = {
    "stop": "Lower SOLVER.BASE_LR, lengthen the warm-up, clip gradients (SOLVER.CLIP_GRADIENTS), "
    "or set SOLVER.NON_FINITE.ACTION skip or rollback",
    "skip": "The step is skipped",
    "rollback": "Weights and optimizer are those of that checkpoint again",
}


def _layer_in_words(met: dict) -> str:
    if "raised" in met:
        return f"none, but the model said: {met['raised']}"
    if "layer" not in met:
        return met.get("tensor", "none, a second forward and backward of the batch was finite")
    layer = f"{met['layer'] or 'the model itself'} ({met['type']})"
    if met["tensor"].startswith("gradient") and met["last_finite"]:
        return f"the {met['tensor']} of {layer}, as {met['last_finite']} hands it back"
    return f"the {met['tensor']} of {layer}"


def _some(names: list[str], number: int = 3) -> str:
    more = f" and {len(names) - number} more" if len(names) > number else ""
    return ", ".join(names[:number]) + more
