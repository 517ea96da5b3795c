"""N processes with b images each are one process with N x b: the tables of docs/scaling.md.

python -m pytest tests/slow/test_shared_batch.py -m slow -s       prints them
"""

import pytest
from shared_batch import CASES, largest_difference, losses_of

pytestmark = pytest.mark.slow
EQUAL = {"float32": 1e-5, "float64": 1e-10}


@pytest.fixture(scope="module")
def one_process(tmp_path_factory):
    return losses_of(1, tmp_path_factory.mktemp("one"))


@pytest.fixture(scope="module", params=[2, 4])
def differences(request, one_process, tmp_path_factory):
    """By case, between so many processes and one."""
    several = losses_of(request.param, tmp_path_factory.mktemp("several"))
    found = {case: largest_difference(several[case], one_process[case]) for case in CASES}
    for case, difference in found.items():
        print(f"\n| {request.param} | {case} | {difference:.1e} |", end="")
    return found


@pytest.mark.parametrize("dtype", EQUAL)
@pytest.mark.parametrize("task", ["classifier", "detector"])
def test_without_batch_statistics_the_processes_train_as_one(task, dtype, differences):
    assert differences[f"{task}, {dtype}"] <= EQUAL[dtype]


@pytest.mark.parametrize("task", ["classifier", "detector"])
def test_with_batch_norm_they_do_not(task, differences):
    assert differences[f"{task} BN, float64"] > 1e-3


def test_heads_average_over_boxes_so_that_unequal_numbers_weigh_images_unequally(differences):
    assert differences["detector, unequal numbers of boxes, float64"] > 1e-4
