"""A training run in a process of its own, which a test may interrupt or kill."""

import multiprocessing
import warnings

import numpy as np

from minigrad import nn, optim
from minigrad.train import Trainer

_PROCESSES = multiprocessing.get_context("forkserver")  # imports the package once for all
_PROCESSES.set_forkserver_preload(["minigrad.train", "safetensors.numpy"])


def trainer(path):
    """A small network with everything that a checkpoint must hold, which trains fast."""
    nn.manual_seed(4)
    net = nn.Sequential(
        nn.Linear(6, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.2), nn.Linear(16, 3)
    ).to(dtype="float32")
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(90, 6)).astype("float32"), rng.integers(0, 3, 90)
    optimizer = optim.Adam(net.parameters(), lr=0.01)
    schedule = optim.CosineAnnealingLR(optimizer, 400)
    return Trainer(net, optimizer, (x, y), (x, y), batch_size=16, path=path, schedule=schedule)


def start(path, epochs):
    """Start a process that trains, resuming if ``path`` exists; returns when training begins."""
    ready = _PROCESSES.Event()
    process = _PROCESSES.Process(target=_train, args=(path, epochs, ready))
    process.start()
    assert ready.wait(60)
    return process


def _train(path, epochs, ready):
    warnings.simplefilter("error")
    run = trainer(path)
    if path.exists():
        run.resume()
    ready.set()
    for _ in run.fit(epochs):
        pass
