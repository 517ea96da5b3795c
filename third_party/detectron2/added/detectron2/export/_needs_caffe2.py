"""Imported first by the modules that use Caffe2, so that its absence is said in plain words."""

try:
    import caffe2.python  # noqa: F401
except ImportError as error:
    raise ImportError(
        "This part of detectron2.export needs Caffe2, which PyTorch no longer contains. Export "
        "with detectron2.export.TracingAdapter (torch.jit.trace, ONNX) or scripting_with_instances."
    ) from error
