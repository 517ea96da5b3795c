"""Norm-free isometric backbones for detectron2; importing it registers them, and nothing else."""

import importlib
import pkgutil

from .modeling.registration import register_with_modeling

__version__ = "0.1.0"

_MODULES = {  # where each public name is defined
    "DecoupledConv2d": "layers.decoupled_conv",
    "IsometryMonitor": "isometry.monitor",
    "OrthogonalRegularizer": "isometry.regularizer",
    "Predictor": "engine.predictor",
    "SReLU": "layers.activation",
    "UserError": "utils.messages",
    "add_isonet_config": "config.defaults",
    "backbone": "hub.backbone",
    "convolution_singular_values": "isometry.singular_values",
    "delta_fill": "layers.weight_init",
    "get_config": "config.model_zoo",
    "get_config_file": "config.model_zoo",
    "orthogonal_penalty": "isometry.penalty",
    "register_activation": "layers.activation",
}

__all__ = list(_MODULES)


def __getattr__(name: str):
    """A public name or a module, imported when it is first asked for: torch takes seconds."""
    if name in _MODULES:
        value = getattr(importlib.import_module(f".{_MODULES[name]}", __name__), name)
        globals()[name] = value
        return value
    if any(module.name == name for module in pkgutil.iter_modules(__path__)):
        return importlib.import_module(f".{name}", __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


register_with_modeling()
