"""Batch norm is 10 primitive ops; x_bar takes 30 ops as the engine derives it, 17 in closed form.

Folded, the graph is one card; unfolded, it shows every value, shape and gradient. The backward
sweep is a graph of ops, too, so it can be drawn and differentiated again.
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


# %% The recorded graph
# `batch_norm` is a composite: a function with a name in the literature, written with primitive ops.
# Its parts run in scopes, and each node remembers the scope in which it was made.
for node in recorded_ops(y):
    scopes = " > ".join(scope.name for scope in node.scope.path())
    print(f"  {node.op.name:10} {node.value.shape!s:7} {node.name or '':8} in {scopes}")
run.number("ops of the forward pass", len(recorded_ops(y)), key=True)
edges = [parent for node in recorded_ops(y) for parent in node.parents if parent is not None]
run.number("edges", len(edges))

# %% Backward
# The cotangent is random. With ones, the gradient of x would be 0 everywhere.
y_bar = run.rng.normal(size=y.shape)
y.backward(y_bar)

# %% Folded and unfolded
# `depth` is the number of levels of scopes to open. A folded scope is one card with its outputs.
for depth in (0, 1, 2):
    dot = mg.viz.to_dot(y, depth=depth)
    run.number(
        f"cards at depth {depth}", sum("[label=<<TABLE" in line for line in dot.splitlines())
    )
run.graph = y
run.save("06_folded.svg", lambda path: mg.viz.draw(y, path, depth=0))
run.save("06_graph_of_batch_norm.svg", lambda path: mg.viz.draw(y, path))

# %% The derived backward pass beside the one written by hand
# The sweep goes back op by op, without using that terms cancel. The closed form
# x_bar = inv_std (g - mean(g) - x_hat mean(g x_hat)) is shorter and gives the same numbers. Both
# counts include 7 ops of the forward pass, up to 1 / sqrt(var + eps); the sweep itself is 23 ops.
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
