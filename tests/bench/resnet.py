"""One training step of ``minigrad.nn.models.resnet``, a residual network with batch norm: a 3x3
convolution, then blocks of 16, 32 and 64 channels, the last two at half the resolution."""

from typing import Any

from .contestant import Contestant, load, load_torch
from .lenet import LR, minigrad_steps, torch_steps

WIDTHS = (16, 32, 64)


def _net(dtype: str) -> Any:
    return load("minigrad").nn.models.resnet(widths=WIDTHS, dtype=dtype, rng=0)


def minigrad(batch: int, dtype: str) -> Contestant:
    net = _net(dtype)
    return minigrad_steps(net, load("minigrad").optim.SGD(net.parameters(), lr=LR), batch, dtype)


def torch(batch: int, dtype: str) -> Contestant:
    torch = load_torch()
    nn = torch.nn

    def normalized(inputs: int, outputs: int, size: int, stride: int) -> list[Any]:
        conv = nn.Conv2d(inputs, outputs, size, stride, size // 2, bias=False)
        return [conv, nn.BatchNorm2d(outputs)]

    class Block(nn.Module):
        def __init__(self, inputs: int, outputs: int):
            super().__init__()
            stride = 1 if inputs == outputs else 2
            first = normalized(inputs, outputs, 3, stride)
            self.path = nn.Sequential(*first, nn.ReLU(), *normalized(outputs, outputs, 3, 1))
            shortcut = normalized(inputs, outputs, 1, stride) if stride == 2 else []
            self.shortcut = nn.Sequential(*shortcut)

        def forward(self, x: Any) -> Any:
            return nn.functional.relu(self.path(x) + self.shortcut(x))

    blocks = [Block(*pair) for pair in zip((WIDTHS[0], *WIDTHS), WIDTHS, strict=False)]
    pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    head = pool, nn.Linear(WIDTHS[-1], 10)
    net = nn.Sequential(*normalized(1, WIDTHS[0], 3, 1), nn.ReLU(), *blocks, *head)
    net.to(getattr(torch, dtype))
    net.load_state_dict({k: torch.tensor(v) for k, v in _net(dtype).state_dict().items()})
    return torch_steps(net, batch, dtype)


MAKERS = {"minigrad": minigrad, "minigrad-plain": minigrad, "torch": torch}
