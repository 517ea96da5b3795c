"""tools/pretrain_imagenet.py, held at two steps until a machine has joined and one has left."""

import time

from d2_isonet.commands import pretrain

ALONE_UNTIL, TOGETHER_UNTIL = 30, 70  # steps


def main(args) -> None:
    from detectron2.engine import HookBase
    from detectron2.utils import comm

    from d2_isonet.engine import pretraining
    from d2_isonet.engine.hooks.checkpointing import CheckpointHook

    class Held(HookBase):
        """One process waits for a signal; of two the second does, and the first for the second."""

        def before_step(self) -> None:
            alone = comm.get_world_size() == 1
            stop = next(x.stop for x in self.trainer._hooks if isinstance(x, CheckpointHook))
            held = (alone, self.trainer.iter) == (True, ALONE_UNTIL)
            held |= (comm.get_rank(), self.trainer.iter) == (1, TOGETHER_UNTIL)
            while held and not stop.signal:
                time.sleep(0.1)

    class HeldTrainer(pretraining.ClassificationTrainer):
        def build_hooks(self) -> list:
            return [Held(), *super().build_hooks()]

    pretraining.ClassificationTrainer = HeldTrainer
    pretrain.pretrain(args)


if __name__ == "__main__":
    args = pretrain.argument_parser().parse_args()
    from d2_isonet.distributed.launch import run

    run(main, args)
