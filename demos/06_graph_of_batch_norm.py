"""Batch norm is 10 primitive ops; the way to x_bar takes 30 as derived, 17 in closed form.

Folded, the graph is one card; unfolded, every value, shape and gradient is there. The backward
sweep is itself a graph of ops, so it can be drawn, and differentiated again.
"""

# %% One call
import numpy as np

import minigrad as mg
from minigrad import demo
from minigrad.core.node import ancestors

run = demo.start(__doc__)
inputs = {"x": run.rng.normal(size=(4, 3)), "gamma": np.array([1.0, 0.5, 2.0]), "beta": np.zeros(3)}
x, gamma, beta = (mg.tensor(a, requires_grad=True, name=name) for name, a in inputs.items())
y = mg.batch_norm(x, gamma, beta)
y.name = "y"


def recorded_ops(z):
    """The ops that computed z, oldest first."""
    return [node for node in ancestors(z.node) if node.op is not None]


# %% What was recorded
# `batch_norm` is a composite: a function with a name in the literature, written with primitive ops.
# While it runs, its blocks are scopes, and each node remembers the scope it was made in.
for node in recorded_ops(y):
    scopes = " > ".join(scope.name for scope in node.scope.path())
    print(f"  {node.op.name:10} {node.value.shape!s:7} {node.name or '':8} in {scopes}")
run.number("ops of the forward pass", len(recorded_ops(y)), key=True)
edges = [parent for node in recorded_ops(y) for parent in node.parents if parent is not None]
run.number("edges", len(edges))

# %% Backward
# With a random cotangent: with ones every gradient of x would be 0.
y_bar = run.rng.normal(size=y.shape)
y.backward(y_bar)

# %% Folded and unfolded
# Each level of depth opens one level of scopes; a folded scope is one card that shows its outputs.
for depth in (0, 1, 2):
    dot = mg.viz.to_dot(y, depth=depth)
    run.number(
        f"cards at depth {depth}", sum("[label=<<TABLE" in line for line in dot.splitlines())
    )
run.graph = y
run.save("06_folded.svg", lambda path: mg.viz.draw(y, path, depth=0))
run.save("06_graph_of_batch_norm.svg", lambda path: mg.viz.draw(y, path))

# %% The derived backward pass beside the one written by hand
# The sweep goes back op by op, without knowing that terms cancel. The closed form
# x_bar = inv_std (g - mean(g) - x_hat mean(g x_hat)) is shorter; both are the same number. Either
# count begins with 7 ops of the forward pass, to 1 / sqrt(var + eps): the sweep itself is 23.
derived, by_hand = mg.viz.beside(
    mg.batch_norm, mg.analytic.batch_norm_vjp, inputs.values(), names=list(inputs), seed=y_bar
)
run.number("ops to x_bar, derived", len(recorded_ops(derived)), key=True)
scopes = [[scope.name for scope in node.scope.path()] for node in recorded_ops(derived)]
run.number("ops of the sweep among them", sum("∇ batch_norm" in path for path in scopes))
run.number("ops to x_bar, in closed form", len(recorded_ops(by_hand)), key=True)
run.number("largest difference", abs(derived.numpy() - by_hand.numpy()).max())
run.number("the same as x.grad", bool((x.grad.numpy() == derived.numpy()).all()))
both = [derived, by_hand]
run.save("06_backward.svg", lambda path: mg.viz.draw(both, path, values=False, grads=False))
