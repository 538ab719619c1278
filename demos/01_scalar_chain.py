"""The derivative of exp(sin(x * x)) is a sum over the two paths from y back to x.

Each op records one node: the op, its operands and its value. Local derivatives along a path
multiply, and the paths add up. Source: Baydin et al. 2018, arXiv:1502.05767, section 3.
"""

# %% Run the computation
# The code is three ordinary operations on one number. It does not mention a graph.
import numpy as np

import minigrad as mg
from minigrad import demo

run = demo.start(__doc__)
x = mg.tensor(0.8, requires_grad=True, name="x")
square = x * x
sine = mg.sin(square)
y = mg.exp(sine)
square.name, sine.name, y.name = "square", "sine", "y"

# %% The recorded graph
# A node knows the nodes it was computed from. There is one edge per operand of an op: `x * x` uses
# x twice, so it has two edges.
nodes, waiting = [], [y.node]
while waiting:
    node = waiting.pop()
    if node not in nodes:
        nodes.append(node)
        waiting += node.parents
for node in sorted(nodes, key=lambda node: node.index):
    op = "a leaf" if node.op is None else f"{node.op.name} of {[p.name for p in node.parents]}"
    print(f"  {node.name:6} = {float(node.value):.6f}  {op}")
run.number("nodes", len(nodes))
run.number("edges", sum(len(node.parents) for node in nodes))

# %% Every path from y back to x
# The local derivative of exp is exp itself, that of sin is cos, and that of a product is the other
# factor, once for each of the two edges into `x * x`.
local = {
    "exp": lambda value, sine: [value],
    "sin": lambda value, square: [np.cos(square)],
    "multiply": lambda value, left, right: [right, left],
}


def paths(node):
    """The product of the local derivatives along each path from `node` back to x."""
    if node.op is None:
        return [1.0]
    slopes = local[node.op.name](node.value, *node.inputs)
    return [s * p for s, parent in zip(slopes, node.parents, strict=True) for p in paths(parent)]


products = paths(y.node)
run.number("paths from y to x", len(products), key=True)
by_paths = run.number("their sum", sum(products), ".15g", key=True)

# %% The backward sweep
# The number of paths can double wherever a value is used twice. The backward sweep instead visits
# each node once, youngest first, and adds up all contributions to a node before it goes on.
y.backward()
swept = run.number("the sweep", x.grad, ".15g", key=True)
v = x.item()
closed = 2 * v * np.cos(v * v) * np.exp(np.sin(v * v))
run.number("2 x cos(x^2) exp(sin(x^2))", closed, ".15g")
run.number("largest difference / eps", max(abs(by_paths - closed), abs(swept - closed)) / 2**-52)

# %% Many paths, one sweep
# 50 doublings in a row have 2^50 paths, but only 51 nodes.
z = w = mg.tensor(1.0, requires_grad=True)
for _ in range(50):
    z = z + z
z.backward()
run.number("log2 of the derivative of 50 doublings", np.log2(w.grad.item()))

# %% The picture
# Two edges lead from x to the product. With only one, the derivative would lack the factor 2.
run.graph = y
run.save("01_scalar_chain.svg", lambda path: mg.viz.draw(y, path))
