"""In inference batch norm costs nothing: folded into the layer before it, it adds no operation.

In evaluation, y = s (W x + b - mean) + beta with s = gamma / sqrt(var + eps) is an affine map of x.
So W' = s W and b' = s (b - mean) + beta give the same outputs, up to rounding.

Source: Jacob et al. 2018, arXiv:1712.05877, section 3.2.
"""

# %% A trained network
# Train LeNet with batch norm on 1,437 digits, then fold it. `fold_batch_norm` replaces each batch
# norm by an `Identity`. After a linear layer it is a `Folded`, an identity that accepts at most two
# axes: with more, the layer maps the last axis, but its batch norm scaled the second.
import numpy as np

import minigrad as mg
from minigrad import demo, nn
from minigrad.core.node import ancestors

run = demo.start(__doc__)

epochs = 2 if run.fast else 10
trained = mg.train.train("lenet-bn", epochs=epochs, seed=run.seed, say=lambda line: None)
net, folded = trained.net, nn.fold_batch_norm(trained.net)
print(folded)

# %% The number of operations
# One evaluation of the folded network records as many operations as a network without batch norm.

images, labels = mg.train.load_images("digits").test


def operations(model):
    """How many operations one evaluation records."""
    y = model.eval()(mg.tensor(images[:1], requires_grad=True))
    return sum(node.op is not None for node in ancestors(y.node))


twin = nn.models.lenet(False, side=8, dtype="float32")
run.number("operations with batch norm", operations(net))
run.number("operations folded", operations(folded))
run.number("operations of the twin without batch norm", operations(twin))

# %% The same outputs
# In float64 the difference is about 2^-29 times that in float32, so it is only rounding.

for dtype in ("float32", "float64"):
    y = net.to(dtype=dtype)(images.astype(dtype)).numpy()
    y_folded = nn.fold_batch_norm(net)(images.astype(dtype)).numpy()
    name = f"largest |difference of logits| / largest |logit|, {dtype}"
    run.number(name, np.max(abs(y_folded - y)) / np.max(abs(y)))
    run.number(f"same answers of {len(labels)}, {dtype}", np.sum(y.argmax(1) == y_folded.argmax(1)))

# %% The first convolution
# Each kernel is multiplied by its own s.

fig, axes = demo.figure(2, 6, height=2.9)
limit = max(abs(m[0].weight.numpy()).max() for m in (net, folded))
for row, (model, name, b) in enumerate(((net, "W", "b"), (folded, "W' = s W", "b'"))):
    for c, ax in enumerate(axes[row]):
        ax.imshow(model[0].weight.numpy()[c, 0], vmin=-limit, vmax=limit, cmap="RdBu_r")
        bias = round(model[0].bias.numpy()[c].item(), 2) + 0.0  # + 0.0 makes -0.0 a plain 0
        ax.set(xticks=[], yticks=[], xlabel=f"{b} = {bias:.2f}")
    axes[row, 0].set_ylabel(name)
s = net[1].weight.numpy() / np.sqrt(net[1].running_var.numpy() + net[1].eps)
for c, ax in enumerate(axes[0]):
    ax.set_title(f"s = {s[c]:.2f}", loc="center")
run.save("22_folding.svg", fig)
