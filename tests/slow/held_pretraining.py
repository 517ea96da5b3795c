"""tools/pretrain_imagenet.py, held at two steps until a machine has joined and one has left."""

import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))

import pretrain_imagenet  # noqa: E402

ALONE_UNTIL, TOGETHER_UNTIL = 30, 70  # steps


def main(args) -> None:
    from detectron2.engine import HookBase
    from detectron2.utils import comm

    from d2_isonet import pretraining

    class Held(HookBase):
        """One process waits to be started again; of two the second lets the first wait for it."""

        def before_step(self) -> None:
            step, size = self.trainer.iter, comm.get_world_size()
            while (
                size == 1 and step == ALONE_UNTIL or comm.get_rank() == 1 and step == TOGETHER_UNTIL
            ):
                time.sleep(0.1)

    class HeldTrainer(pretraining.ClassificationTrainer):
        def build_hooks(self) -> list:
            return [Held(), *super().build_hooks()]

    pretraining.ClassificationTrainer = HeldTrainer
    pretrain_imagenet.main(args)


if __name__ == "__main__":
    args = pretrain_imagenet.parse_args()
    from d2_isonet.launch import run

    run(main, args)
