"""The GPU's SReLU backward, run by Triton's interpreter and compiled for GPUs, on a CPU."""

import os
import subprocess
import sys
from subprocess import CompletedProcess

import fork_server
import pytest

pytest.importorskip("triton", reason="Triton comes with PyTorch for CUDA on Linux")

EQUALS_EAGER = """
import torch
from d2_isonet.layers.srelu_triton import srelu_backward

torch.manual_seed(0)
for shape in [(2, 3, 5, 7), (1, 70, 3, 3), (3, 5, 50, 41), (33, 2, 2, 2)]:
    for layout in (torch.contiguous_format, torch.channels_last):
        for dtype in (torch.float32, torch.float16, torch.bfloat16):
            x, grad, shift = torch.randn(shape), torch.randn(shape), torch.randn(shape[1])
            x, grad, shift = x.to(dtype), grad.to(dtype), shift.to(dtype)
            x[0, 0, 0, 0], x[0, 0, 0, 1] = shift[0], float("nan")
            bound = shift.view(1, -1, 1, 1)
            y = torch.maximum(x, bound).contiguous(memory_format=layout)
            grad_x, grad_shift = srelu_backward(grad, y, shift)
            clipped = y <= bound  # not a nan: its gradient is the input's, as in eager
            assert torch.equal(grad_x, grad.masked_fill(clipped, 0)), (shape, layout, dtype)
            assert grad_x.stride() == y.stride()
            expected = grad.double().masked_fill(~clipped, 0).sum((0, 2, 3))
            torch.testing.assert_close(grad_shift.double(), expected, rtol=1e-5, atol=1e-5)
print("equal")
"""
TRIED_FIRST = """
import torch
from d2_isonet.layers import activation, srelu_triton

assert activation._working_kernel(torch.device("cpu")) is srelu_triton.srelu_backward
wrong = lambda grad, y, shift: (grad, grad.sum((0, 2, 3)))
for broken in (wrong, None):
    activation._working_kernel.cache_clear()
    srelu_triton.srelu_backward = broken
    assert activation._working_kernel(torch.device("cpu")) is None
print("tried")
"""
COMPILES = """
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from d2_isonet.layers import srelu_triton

sizes = {
    "_backward": {"ROWS": 2, "BLOCK": 1024},
    "_backward_channels_last": {"ROWS": 32, "WIDTH": 64},
}
for name, constants in sizes.items():
    kernel = getattr(srelu_triton, name)
    for dtype in ("*fp32", "*fp16", "*bf16"):
        def kind(argument):
            if argument == "partial_pointer":
                return "*fp32"
            return dtype if argument.endswith("pointer") else "i32"
        signature = {a: "constexpr" if a in constants else kind(a) for a in kernel.arg_names}
        source = ASTSource(kernel, signature, constexprs=constants)
        assert "st.global" in triton.compile(source, target=GPUTarget("cuda", 90, 32)).asm["ptx"]
print("compiled")
"""


@pytest.fixture(scope="module")
def interpreted() -> CompletedProcess:
    """Both programs in a new process: the interpreter is chosen when triton is imported."""
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", EQUALS_EAGER + TRIED_FIRST],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": ".", "TRITON_INTERPRET": "1"},
    )


def test_it_gives_the_numbers_of_the_eager_path_in_every_layout_and_precision(interpreted):
    assert "equal" in interpreted.stdout.splitlines(), interpreted.stderr[-2000:]


def test_it_is_tried_on_a_few_numbers_first_and_left_alone_where_it_does_not_work(interpreted):
    assert "tried" in interpreted.stdout.splitlines(), interpreted.stderr[-2000:]


def test_it_compiles_for_a_gpu(tmp_path):
    (tmp_path / "program.py").write_text(COMPILES)
    done = fork_server.run_script(tmp_path / "program.py", TRITON_CACHE_DIR=str(tmp_path))
    assert done.stdout.strip() == "compiled", done.stderr[-2000:]
