"""At learning rate 1, LeNet with batch norm beats LeNet without it from the first epoch on.

The recipe of Dive into Deep Learning: sigmoids, SGD with learning rate 1, batches of 256, 10 epochs
of Fashion-MNIST. If its 60,000 images are missing, 1,437 digits are used instead, in batches of 32
and with a falling rate.

Source: Zhang, Lipton, Li, Smola, Dive into Deep Learning 0.17, 6.6 and 7.5.
"""

# %% Data
# `minigrad train lenet-bn --data fashion-mnist` downloads Fashion-MNIST once; a demo never does.
import numpy as np

import minigrad as mg
from minigrad import demo

run = demo.start(__doc__)

data = "digits"
if not run.fast:
    try:
        mg.data.fashion_mnist(download=False)
        data = "fashion-mnist"
    except mg.errors.DataError:
        print("no Fashion-MNIST in the cache, so the digits are used")

# %% Training
# The two networks start from equal weights and see equal batches.

trained = {}
for name in ("lenet-bn", "lenet"):
    options = {"epochs": 3 if run.fast else 10, "lr": 1.0, "seed": run.seed}
    trained[name] = mg.train.train(name, data, **options, say=lambda line: None)
    for i, epoch in enumerate(trained[name].history):
        print(f"{name} epoch {i + 1}: loss {epoch.loss:.3f}, train acc {epoch.train_acc:.3f}")

# %% d2l's numbers beside ours
# d2l's numbers are from the book's PyTorch notebooks of November 2022. These use average pooling
# instead of max pooling, and rate 0.9 without batch norm. The order of the channels is arbitrary.

d2l = {"lenet-bn": (0.266, 0.900, 0.782), "lenet": (0.457, 0.829, 0.809)}
for name, theirs in d2l.items():
    last = trained[name].history[-1]
    ours = last.loss, last.train_acc, last.test_acc
    run.number(f"loss, train acc, test acc of {name} on {data}", ours, ".3f")
    print(f"d2l on fashion-mnist: {theirs}")
with_bn, without = ([e.train_acc for e in trained[name].history] for name in d2l)
run.number("least lead in train acc of all epochs", np.subtract(with_bn, without).min(), ".3f")

gamma, beta = trained["lenet-bn"].first_batch_norm()
run.number("gamma of the first batch norm", gamma, ".3f")
run.number("beta of the first batch norm", beta, ".3f")
d2l_gamma = 3.2870, 2.1564, 2.1719, 2.8857, 4.2039, 2.9774
d2l_beta = 2.2585, -2.3030, -2.0394, 2.5391, -2.3453, -0.1399
print(f"d2l on fashion-mnist: gamma {d2l_gamma}, beta {d2l_beta}")

# %% The picture

fig, (left, right) = demo.figure(1, 2, width=8.5, height=3.4)
for name, colour in (("lenet-bn", demo.BLUE), ("lenet", demo.VERMILION)):
    history = trained[name].history
    epochs = np.arange(len(history)) + 1
    left.plot(epochs, [e.train_acc for e in history], color=colour)
    left.plot(epochs, [e.test_acc for e in history], ":", color=colour)
    left.text(epochs[-1], history[-1].train_acc, f" {name}", color=colour, va="center")
left.set(xlabel="epoch", xticks=epochs, ylabel="accuracy", ylim=(0, 1.02))
left.set_title(f"{data}: training, test (dotted)")
right.plot(gamma, beta, "o", label=f"ours, {data}")
right.plot(d2l_gamma, d2l_beta, "D", label="d2l, fashion-mnist")
right.set(xlabel="gamma", ylabel="beta", title="first batch norm, six channels")
right.legend()
run.save("10_lenet_bn.svg", fig)
