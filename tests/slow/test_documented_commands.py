"""Every command of the documents, run as a reader types it, but on six images and for one step."""

import pytest
from document_stage import Stage
from documented_commands import of_the_stage

pytestmark = pytest.mark.slow
COMMANDS = of_the_stage()


@pytest.fixture(scope="module")
def stage(tmp_path_factory) -> Stage:
    return Stage(tmp_path_factory.mktemp("clone"))


@pytest.mark.parametrize("text", COMMANDS)
def test_it_runs(text, stage):
    done = stage.run(text, COMMANDS[text].words)
    assert done.returncode == 0, f"{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
