"""The penalty inside a closure that optimizer.step gets, and on weights that FSDP2 shards."""

import copy

import pytest
import torch
from detectron2.engine import SimpleTrainer
from detectron2.utils import comm
from torch import nn

from d2_isonet.distributed.launch import launch
from d2_isonet.isometry.penalty import orthogonal_penalty
from d2_isonet.isometry.regularizer import OrthogonalRegularizer
from d2_isonet.utils.messages import UserError

COEFF = 0.1
OPTIMIZERS = {
    "SGD": lambda p: torch.optim.SGD(p, 0.05, momentum=0.9),
    "LBFGS": lambda p: torch.optim.LBFGS(p, 0.1, max_iter=5),
    "LBFGS with line search": lambda p: torch.optim.LBFGS(p, line_search_fn="strong_wolfe"),
}
IMAGES = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(1)).double()


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 6, 3), nn.Conv2d(6, 6, 3), nn.Conv2d(6, 6, 3)).double()


def loss_of(model: nn.Module, images: torch.Tensor = IMAGES) -> torch.Tensor:
    return model(images).square().mean()


class ClosureTrainer(SimpleTrainer):
    def run_step(self) -> None:
        def closure():
            self.optimizer.zero_grad()
            loss = loss_of(self.model)
            loss.backward()
            return loss

        self.optimizer.step(closure)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_step_with_a_closure_trains_the_loss_with_the_penalty(name):
    model = network()
    expected = copy.deepcopy(model)
    trainer = ClosureTrainer(model, [IMAGES], OPTIMIZERS[name](model.parameters()))
    trainer.register_hooks([OrthogonalRegularizer(COEFF, convs=dict(model.named_children()))])
    trainer.train(0, 3)
    optimizer = OPTIMIZERS[name](expected.parameters())

    def closure():
        optimizer.zero_grad()
        penalty = sum(orthogonal_penalty(conv.weight) for conv in expected)
        loss = loss_of(expected) + COEFF * penalty
        loss.backward()
        return loss

    for _ in range(3):
        optimizer.step(closure)
    for a, b in zip(model.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-9)
    assert trainer.storage.history("loss_ortho").latest() > 0
    assert len(trainer.storage.history("loss_ortho").values()) == 3


def train(model: nn.Module, images: torch.Tensor) -> dict[str, torch.Tensor]:
    class Plain(SimpleTrainer):
        def run_step(self) -> None:
            self.optimizer.zero_grad()
            loss_of(self.model, images).backward()
            self.optimizer.step()

    trainer = Plain(model, [images], torch.optim.SGD(model.parameters(), 0.05, momentum=0.9))
    trainer.register_hooks([OrthogonalRegularizer(COEFF, convs=dict(model.named_children()))])
    trainer.train(0, 3)
    return {
        name: (x.full_tensor() if hasattr(x, "full_tensor") else x).detach()
        for name, x in model.named_parameters()
    }


def train_sharded(folder) -> None:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    model, mesh = network(), init_device_mesh("cpu", (2,))
    for conv in model:
        fully_shard(conv, mesh=mesh)
    weights = train(fully_shard(model, mesh=mesh), IMAGES.chunk(2)[comm.get_rank()])
    if comm.is_main_process():
        torch.save(weights, folder / "weights")


@pytest.mark.usefixtures("fork_server")
def test_sharded_weights_train_as_in_one_process(tmp_path):
    launch(train_sharded, 2, args=(tmp_path,))
    sharded, whole = torch.load(tmp_path / "weights"), train(network(), IMAGES)
    assert sharded.keys() == whole.keys()
    for name, weight in whole.items():
        torch.testing.assert_close(sharded[name], weight, rtol=0, atol=1e-9)


def test_flattened_weights_are_refused_at_the_start():
    conv = nn.Conv2d(3, 6, 3)
    conv.weight = nn.Parameter(conv.weight.detach().flatten()[:40])
    with pytest.raises(UserError, match=r"shape \(40,\), as FSDP leaves it; use fully_shard"):
        OrthogonalRegularizer(COEFF, convs={"conv": conv})
