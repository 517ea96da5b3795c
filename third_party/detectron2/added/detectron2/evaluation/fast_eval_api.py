"""The name COCOeval_opt, without its C++ operators: pycocotools gives the same numbers."""

from pycocotools.cocoeval import COCOeval as COCOeval_opt

__all__ = ["COCOeval_opt"]
