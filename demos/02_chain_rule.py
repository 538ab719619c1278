"""One backward sweep gives all four derivatives of a neuron; forward mode needs four sweeps.

Each step back multiplies by one local derivative and adds to what is there. Source: Griewank,
Walther 2008, Evaluating Derivatives, chapter 3; the cotangent of v is written v_bar.
"""

# %% A neuron and its loss
# e = (tanh(w v + b) - t)^2, four inputs, one number out.
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

# %% Forward, then the seed, then back
# `trace` holds every step of both sweeps. A step back takes the cotangent of an op's result through
# one of its inputs; where two arrive (r, used twice in r * r) they add up.
steps = mg.viz.trace(loss).steps
for kind in ("forward", "seed", "backward"):
    count = sum(step.kind == kind for step in steps)
    run.number(f"{kind} steps", count, key=kind == "backward")
loss.backward()
gradient = np.array([p.grad.item() for p in (w, v, b, t)])
for p in (w, v, b, t):
    print(f"  {p.name}_bar = {p.grad.item():+.6f}")

# %% The same by the chain rule, one factor at a time
# Read from the end: loss_bar = 1, r_bar = 2 r, a_bar = r_bar, s_bar = a_bar (1 - a^2), and s_bar
# reaches w through the factor v, v through w, b through 1.
s = inputs["w"] * inputs["v"] + inputs["b"]
a = np.tanh(s)
r_bar = 2 * (a - inputs["t"])
s_bar = r_bar * (1 - a * a)
by_hand = np.array([s_bar * inputs["v"], s_bar * inputs["w"], s_bar, -r_bar])
run.number("largest difference from the chain rule by hand", abs(gradient - by_hand).max())

# %% Forward mode asks the other question
# A forward sweep pushes one tangent through the ops and answers: how fast does the loss change if
# only w moves? One sweep for each input; with a million parameters, a million sweeps.
primals = tuple(inputs.values())
sweeps = np.array([mg.jvp(neuron, primals, tuple(e))[1].item() for e in np.eye(4)])
run.number("sweeps of forward mode", len(sweeps), key=True)
run.number("largest difference from forward mode", abs(gradient - sweeps).max(), key=True)

# %% The picture, and the same as a page to step through with the arrow keys
run.graph = loss
run.save("02_chain_rule.svg", lambda path: mg.viz.draw(loss, path))
run.save("02_chain_rule.html", lambda path: mg.viz.step(loss, path))
