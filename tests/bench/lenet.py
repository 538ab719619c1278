"""One training step of LeNet-BN: forward, cross entropy, backward, gradient descent.

The net is ``minigrad.nn.models.lenet`` in every library, from the same initial parameters: conv
6@5x5, BN, sigmoid, max pool 2; conv 16@5x5, BN, sigmoid, max pool 2; 120, BN, sigmoid; 84, BN,
sigmoid; 10. Running statistics are kept, except in MyGrad, whose batch norm has none.
"""

from typing import Any

import numpy as np

from .contestant import Contestant, host, load, load_jax, load_torch, value_of

LR, EPS, MOMENTUM = 0.1, 1e-5, 0.1
# layers by their index in the net; those between them have no parameters
CONVOLUTIONS = {0: (6, 1, 5, 5), 4: (16, 6, 5, 5)}
LINEARS = {9: (120, 256), 12: (84, 120), 15: (10, 84)}
NORMS = {1: 6, 5: 16, 10: 120, 13: 84}


def parameters(dtype: str) -> dict[str, np.ndarray]:
    """The initial parameters under the names of a state dict, in the order of the layers."""
    rng = np.random.default_rng(0)
    found = {}
    for i in sorted([*CONVOLUTIONS, *LINEARS, *NORMS]):
        if i in NORMS:
            weight, bias = rng.uniform(0.5, 1.5, NORMS[i]), rng.normal(size=NORMS[i])
        else:
            shape = CONVOLUTIONS.get(i) or LINEARS[i]
            weight = rng.normal(size=shape) / np.sqrt(np.prod(shape[1:]))
            bias = 0.1 * rng.normal(size=shape[0])
        found[f"{i}.weight"], found[f"{i}.bias"] = weight.astype(dtype), bias.astype(dtype)
    return found


def batch_of(size: int, dtype: str) -> tuple[np.ndarray, np.ndarray]:
    """Images (size, 1, 28, 28) and labels (size,)."""
    rng = np.random.default_rng(1)
    images = rng.normal(size=(size, 1, 28, 28)).astype(dtype)
    return images, rng.integers(0, 10, size)


def _state(net: Any) -> dict[str, Any]:
    """Parameters and running statistics, without the counts of batches."""
    return {k: v for k, v in net.state_dict().items() if not k.endswith("num_batches_tracked")}


def _net(dtype: str, device: str) -> tuple[Any, Any]:
    """The net of minigrad and its optimizer."""
    mg = load("minigrad")
    net = mg.nn.models.lenet(dtype=dtype)
    net.load_state_dict({**net.state_dict(), **parameters(dtype)})
    net.to(device)
    return net, mg.optim.SGD(net.parameters(), lr=LR)


def recorded(batch: int, dtype: str, device: str, inner: int) -> Contestant:
    """minigrad's step as one CUDA graph; each batch is copied to the device."""
    net, optimizer = _net(dtype, device)
    images, labels = batch_of(batch, dtype)
    graph = load("minigrad.train.recorded").RecordedStep(net, optimizer, images, labels)
    last: dict[str, Any] = {}

    def step() -> None:
        for _ in range(inner):
            loss, _ = graph(images, labels)
        last["loss"] = float(loss)

    def result() -> dict[str, np.ndarray]:
        graph.release()
        return host(loss=np.asarray(last["loss"]), **_state(net))

    return Contestant(step, result, inner)


def minigrad(batch: int, dtype: str, device: str = "cpu", inner: int = 1) -> Contestant:
    return minigrad_steps(*_net(dtype, device), batch, dtype, device, inner)


def minigrad_steps(
    net: Any, optimizer: Any, batch: int, dtype: str, device: str = "cpu", inner: int = 1
) -> Contestant:
    mg = load("minigrad")
    images, labels = batch_of(batch, dtype)
    x = mg.tensor(images, device=device)
    last: dict[str, Any] = {}

    def step() -> None:
        for _ in range(inner):
            optimizer.zero_grad()
            loss = mg.ops.cross_entropy(net(x), labels)
            loss.backward()
            optimizer.step()
        last["loss"] = loss.item() if device != "cpu" else value_of(loss)

    return Contestant(step, lambda: host(**last, **_state(net)), inner)


def torch(batch: int, dtype: str, device: str = "cpu", inner: int = 1) -> Contestant:
    torch = load_torch()
    nn = torch.nn
    net = nn.Sequential(
        *(nn.Conv2d(1, 6, 5), nn.BatchNorm2d(6), nn.Sigmoid(), nn.MaxPool2d(2)),
        *(nn.Conv2d(6, 16, 5), nn.BatchNorm2d(16), nn.Sigmoid(), nn.MaxPool2d(2), nn.Flatten()),
        *(nn.Linear(256, 120), nn.BatchNorm1d(120), nn.Sigmoid()),
        *(nn.Linear(120, 84), nn.BatchNorm1d(84), nn.Sigmoid(), nn.Linear(84, 10)),
    ).to(device, getattr(torch, dtype))
    given = {name: torch.tensor(a) for name, a in parameters(dtype).items()}
    net.load_state_dict({**net.state_dict(), **given})
    return torch_steps(net, batch, dtype, device, inner)


def torch_steps(
    net: Any, batch: int, dtype: str, device: str = "cpu", inner: int = 1
) -> Contestant:
    torch = load_torch()
    optimizer = torch.optim.SGD(net.parameters(), lr=LR)
    images, labels = (torch.tensor(a, device=device) for a in batch_of(batch, dtype))
    last: dict[str, Any] = {}

    def step() -> None:
        for _ in range(inner):
            optimizer.zero_grad()
            loss = torch.nn.functional.cross_entropy(net(images), labels)
            loss.backward()
            optimizer.step()
        last["loss"] = loss.item() if device != "cpu" else value_of(loss)

    return Contestant(step, lambda: host(**last, **_state(net)), inner)


def mygrad(batch: int, dtype: str) -> Contestant:
    my = load("mygrad")
    layers, losses = load("mygrad.nnet.layers"), load("mygrad.nnet.losses")
    sigmoid = load("mygrad.nnet.activations").sigmoid
    p = {name: my.tensor(a) for name, a in parameters(dtype).items()}
    images, labels = batch_of(batch, dtype)
    last: dict[str, Any] = {}

    def normalized(x: Any, i: int) -> Any:
        norm = layers.batchnorm(x, gamma=p[f"{i}.weight"], beta=p[f"{i}.bias"], eps=EPS)
        return sigmoid(norm)

    def convolved(x: Any, i: int) -> Any:
        x = layers.conv_nd(x, p[f"{i}.weight"], stride=1) + p[f"{i}.bias"].reshape(1, -1, 1, 1)
        return layers.max_pool(normalized(x, i + 1), (2, 2), 2)

    def linear(x: Any, i: int) -> Any:
        return my.matmul(x, p[f"{i}.weight"].T) + p[f"{i}.bias"]

    def step() -> None:
        x = convolved(convolved(images, 0), 4).reshape(batch, -1)
        x = normalized(linear(normalized(linear(x, 9), 10), 12), 13)
        loss = losses.softmax_crossentropy(linear(x, 15), labels)
        loss.backward()
        for value in p.values():
            value.data -= LR * value.grad
            value.null_grad()
        last["loss"] = value_of(loss)

    return Contestant(step, lambda: host(**last, **p))


def jax(batch: int, dtype: str) -> Contestant:
    jax = load_jax(dtype)
    p = {name: jax.numpy.asarray(a) for name, a in parameters(dtype).items()}
    running = {i: (p[f"{i}.bias"] * 0, p[f"{i}.bias"] * 0 + 1) for i in NORMS}
    images, labels = (jax.numpy.asarray(a) for a in batch_of(batch, dtype))
    step_of = _jax_step(jax)
    last = {"state": (p, running, None)}

    def step() -> None:
        now, running, _ = last["state"]
        last["state"] = jax.block_until_ready(step_of(now, running, images, labels))

    def result() -> dict[str, np.ndarray]:
        p, running, loss = last["state"]
        names = ("running_mean", "running_var")
        kept = {f"{i}.{name}": s for i in NORMS for name, s in zip(names, running[i], strict=True)}
        return host(loss=loss, **p, **kept)

    return Contestant(step, result)


def _jax_step(jax: Any) -> Any:
    """``(parameters, running, images, labels) -> (parameters, running, loss)``, compiled."""
    jnp, lax = jax.numpy, jax.lax

    def normalized(x: Any, p: Any, i: int, running: Any) -> Any:
        axes = tuple(axis for axis in range(x.ndim) if axis != 1)
        m, channels = x.size // x.shape[1], (-1,) + (1,) * (x.ndim - 2)
        mean = jnp.mean(x, axis=axes, keepdims=True)
        xc = x - mean
        var = jnp.mean(xc * xc, axis=axes, keepdims=True)
        new = (mean.reshape(-1), var.reshape(-1) * (m / (m - 1)))
        pairs = zip(running[i], new, strict=True)
        running[i] = tuple(
            (1 - MOMENTUM) * old + MOMENTUM * lax.stop_gradient(s) for old, s in pairs
        )
        x_hat = xc * lax.rsqrt(var + EPS)
        gamma, beta = (p[f"{i}.{name}"].reshape(channels) for name in ("weight", "bias"))
        return jax.nn.sigmoid(gamma * x_hat + beta)

    def convolved(x: Any, p: Any, i: int, running: Any) -> Any:
        x = lax.conv(x, p[f"{i}.weight"], (1, 1), "VALID") + p[f"{i}.bias"].reshape(-1, 1, 1)
        x, tiles = normalized(x, p, i + 1, running), (1, 1, 2, 2)
        return lax.reduce_window(x, -jnp.inf, lax.max, tiles, tiles, "VALID")

    def linear(x: Any, p: Any, i: int) -> Any:
        return x @ p[f"{i}.weight"].T + p[f"{i}.bias"]

    def loss_of(p: Any, running: Any, images: Any, labels: Any) -> Any:
        running = dict(running)
        x = convolved(convolved(images, p, 0, running), p, 4, running)
        x = x.reshape(len(images), -1)
        x = normalized(linear(x, p, 9), p, 10, running)
        x = normalized(linear(x, p, 12), p, 13, running)
        rows = jax.nn.log_softmax(linear(x, p, 15))
        return -jnp.mean(rows[jnp.arange(len(labels)), labels]), running

    def step(p: Any, running: Any, images: Any, labels: Any) -> Any:
        found, grads = jax.value_and_grad(loss_of, has_aux=True)(p, running, images, labels)
        return jax.tree.map(lambda w, g: w - LR * g, p, grads), found[1], found[0]

    return jax.jit(step, donate_argnums=(0, 1))


MAKERS = {
    "minigrad": minigrad,
    "minigrad-plain": minigrad,
    "torch": torch,
    "jax": jax,
    "mygrad": mygrad,
}
