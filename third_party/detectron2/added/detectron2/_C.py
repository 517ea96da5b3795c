"""Stands where detectron2's compiled operators would be: this installation is pure Python."""


class OperatorNotCompiledError(NotImplementedError, AttributeError):
    """Asked for a compiled operator. An AttributeError too, so that hasattr() answers False."""


def get_compiler_version() -> str:
    """The compiler of the operators, as detectron2's environment report prints it."""
    return "not compiled (pure-Python detectron2)"


def get_cuda_version() -> str:
    """The CUDA version of the operators, as detectron2's environment report prints it."""
    return "not available"


def has_cuda() -> bool:
    """Whether the operators were compiled for CUDA."""
    return False


def __getattr__(name: str):
    if name.startswith("__"):
        raise AttributeError(name)
    raise OperatorNotCompiledError(
        f"detectron2._C.{name} is a compiled operator, and this detectron2 0.6 is pure Python: it "
        f"has no deformable convolution on GPUs, no rotated boxes and no C++ COCO evaluation. "
        f"To use {name}, uninstall detectron2 and build the official one from its repository "
        f"with a C++ (and CUDA) compiler."
    )
