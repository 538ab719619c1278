"""One backward sweep gives all four derivatives of a neuron; forward mode needs four sweeps.

Each backward step multiplies by one local derivative and adds the result to the cotangent of an
input. The cotangent of v, the derivative of the loss with respect to v, is written v_bar. Source:
Griewank, Walther 2008, Evaluating Derivatives, chapter 3.
"""

# %% A neuron and its loss
# The loss is (tanh(w v + b) - t)^2: four inputs, one number as output.
import numpy as np

import minigrad as mg
from minigrad import demo

run = demo.start(__doc__)
inputs = {"w": 0.7, "v": 1.5, "b": -0.3, "t": 0.2}


def neuron(w, v, b, t):
    s = w * v + b
    a = mg.tanh(s)
    r = a - t
    s.name, a.name, r.name = "s", "a", "r"
    return r * r


w, v, b, t = (mg.tensor(value, requires_grad=True, name=name) for name, value in inputs.items())
loss = neuron(w, v, b, t)
loss.name = "loss"

# %% Forward, then the seed, then backward
# `trace` holds every step of both sweeps. A backward step takes the cotangent of an op's result to
# one of its inputs. If an input is used twice, like r in r * r, its two contributions add up.
steps = mg.viz.trace(loss).steps
for kind in ("forward", "seed", "backward"):
    count = sum(step.kind == kind for step in steps)
    run.number(f"{kind} steps", count, key=kind == "backward")
loss.backward()
gradient = np.array([p.grad.item() for p in (w, v, b, t)])
for p in (w, v, b, t):
    print(f"  {p.name}_bar = {p.grad.item():+.6f}")

# %% The same by the chain rule, one factor at a time
# From the last op to the first: loss_bar = 1, r_bar = 2 r, a_bar = r_bar, s_bar = a_bar (1 - a^2),
# w_bar = s_bar v, v_bar = s_bar w, b_bar = s_bar.
s = inputs["w"] * inputs["v"] + inputs["b"]
a = np.tanh(s)
r_bar = 2 * (a - inputs["t"])
s_bar = r_bar * (1 - a * a)
by_hand = np.array([s_bar * inputs["v"], s_bar * inputs["w"], s_bar, -r_bar])
run.number("largest difference from the chain rule by hand", abs(gradient - by_hand).max())

# %% Forward mode needs one sweep per input
# A forward sweep pushes one tangent through the ops. It tells how fast the loss changes if only one
# input, such as w, moves. A million parameters would need a million sweeps.
primals = tuple(inputs.values())
sweeps = np.array([mg.jvp(neuron, primals, tuple(e))[1].item() for e in np.eye(4)])
run.number("sweeps of forward mode", len(sweeps), key=True)
run.number("largest difference from forward mode", abs(gradient - sweeps).max(), key=True)

# %% The picture, and a page to step through with the arrow keys
run.graph = loss
run.save("02_chain_rule.svg", lambda path: mg.viz.draw(loss, path))
run.save("02_chain_rule.html", lambda path: mg.viz.step(loss, path))
