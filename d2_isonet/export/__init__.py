"""Networks as ONNX, torch.export and TorchScript files, compared with the original.

May import engine and below.
"""
