"""In a recurrent network, batch norm speeds up learning more on the inputs than in the recurrence.

The network reads images row by row and classifies the last state. If the inputs are normalized over
all examples and rows, the rate may be larger. The training loss is then half as large after 4
epochs, the small size, and a fifth as large after 12. In the recurrence, with statistics for each
row, the rate may be larger still, and the loss falls faster at first. After 12 epochs, which the
small size does not show, that gain is lost. Neither improves the accuracy on the test images.
Source: Laurent et al. 2015, arXiv:1510.01378; Amodei et al. 2015, arXiv:1512.02595, section 3.2;
for the statistics of each step Cooijmans et al. 2016, arXiv:1603.09025.
"""

# %% Places for batch norm in a network of 64 units
# nowhere:      h_t = tanh(W x_t + U h_{t-1} + b)
# on inputs:    h_t = tanh(BN(W x_t) + U h_{t-1} + b)
# inside:       h_t = tanh(BN_t(W x_t + U h_{t-1}) + b)
import numpy as np

import minigrad as mg
from minigrad import demo, nn

run = demo.start(__doc__, minutes=1)
data = mg.train.load_images("digits", dtype="float64")
epochs, rates = (4, [0.5, 1.0, 2.0]) if run.fast else (12, [0.05, 0.1, 0.2, 0.5, 1.0, 2.0])


class Inside(nn.RNN):
    """An RNN over 8 rows of 8 pixels, normalized before each activation."""

    def __init__(self, rng):
        super().__init__(8, 64, rng=rng)
        self.norms = nn.ModuleList([nn.BatchNorm1d(64) for _ in range(8)])

    def forward(self, x):
        h = np.zeros((x.shape[0], 64))
        for t, norm in enumerate(self.norms):
            of_x, of_h = mg.matmul(x[:, t], self.weight_ih.T), mg.matmul(h, self.weight_hh.T)
            h = mg.tanh(norm(of_x + of_h) + self.bias)
        return None, h


def network(kind):
    rng = np.random.default_rng(run.seed)
    net = nn.models.RowRNN(kind == "on inputs", side=8, rng=rng)
    if kind == "inside":
        net.rnn = Inside(rng)
    return net


# %% Training at several learning rates
# A network has learned if its loss is below ln 10, the loss of guessing ten digits uniformly.
fig, axes = demo.figure(1, 2, width=8, height=3.6)
for kind in ("nowhere", "on inputs", "inside"):
    histories = []
    for lr in rates:
        net = network(kind)
        optimizer = mg.optim.SGD(net.parameters(), lr=lr)
        options = {"batch_size": 64, "seed": run.seed}
        trainer = mg.train.Trainer(net, optimizer, data.train, data.test, **options)
        histories.append(list(trainer.fit(epochs)))
    best = min(histories, key=lambda history: history[-1].loss)
    run.number(f"training loss at the best rate, BN {kind}", best[-1].loss, key=True)
    run.number(f"that rate, BN {kind}", rates[histories.index(best)])
    learned = [lr for lr, h in zip(rates, histories, strict=True) if h[-1].loss < np.log(10)]
    run.number(f"largest rate that learns, BN {kind}", max(learned))
    run.number(f"test accuracy, BN {kind}", best[-1].test_acc)
    axes[0].loglog(rates, [history[-1].loss for history in histories], "o-", label=kind)
    axes[1].semilogy(range(1, epochs + 1), [epoch.loss for epoch in best])
axes[0].set(title=f"training loss after {epochs} epochs", xlabel="learning rate")
axes[0].set_xticks(rates, rates)
axes[0].set_xticks([], minor=True)
axes[0].legend(title="batch norm")
axes[1].set(title="training loss, best rate", xlabel="epoch", xticks=range(1, epochs + 1))
run.save("23_recurrent.svg", fig)
