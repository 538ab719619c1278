"""Checks of declared ops: of one at drawn points, or of all in a recorded graph at theirs."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from minigrad.backend import to_host
from minigrad.core.node import Node, ancestors
from minigrad.declaration import Declared
from minigrad.errors import GraphError, describe, facts
from minigrad.ops import concatenate, reshape
from minigrad.tensor import Tensor
from minigrad.verify.calls import declared_as, sample_calls
from minigrad.verify.device import elsewhere, moved
from minigrad.verify.gradcheck import gradcheck
from minigrad.verify.randomness import Seed, generator
from minigrad.verify.report import Finding, Report


def check_op(
    declared: Declared | str,
    *,
    order: int = 1,
    dtype: Any = "float64",
    rng: Seed = 0,
    device: str = "cpu",
) -> Report:
    """Check a declared op at points drawn from its signature, domains and cases.

    Args:
        declared: an op or composite, or its name.
        order: of derivatives.
        dtype: ``"float64"`` or ``"float32"``.
        rng: seed or ``numpy.random.Generator``.
        device: where the op runs, also for the differences.

    Returns:
        A Report with the rows of ``gradcheck`` at each point.

    Raises:
        UsageError: no such op, or its declaration gives no shapes. DeviceError: no such device.

    >>> mg.verify.check_op("tanh", order=2).ok
    True
    """
    declared, rng = declared_as(declared), generator(rng)
    report = Report(f"{declared.name}, {np.dtype(dtype)}, orders 1 to {order}")
    for call in sample_calls(declared, dtype, rng):
        arrays = [call.inputs[i] for i in call.real]
        names = [f"input {i} of {declared.name}({call})" for i in call.real]
        inputs, params = moved((call.inputs, call.params), device)
        f = elsewhere(_of_inputs(call.real, declared, inputs, params), device)
        at_point = gradcheck(f, arrays, order=order, names=names, rng=rng)
        # at points drawn at random nothing vanishes by chance: a 0 in both ways is the derivative
        report.rows += [
            replace(row, verdict="proven") if row.ok and row.bound else row for row in at_point.rows
        ]
        report.findings += at_point.findings
        report.notes += [note for note in at_point.notes if note not in report.notes]
    return report


def check_graph(y: Tensor, *, rng: Seed = 0) -> Report:
    """Check the vjp rule of each op call behind ``y``, oldest first.

    Record the graph under ``minigrad.anomaly_mode()`` to have the source line of a wrong op named;
    ``draw(y, path, verdicts=minigrad.viz.verdicts(report))`` shows where in the graph it stands.

    Args:
        y: a recorded result; it is not swept, and nothing of the graph changes.
        rng: seed or ``numpy.random.Generator``.

    Returns:
        A Report of all op calls; its ``ops`` has one for each of them.

    Raises:
        GraphError: nothing was recorded for ``y``.

    >>> x = mg.tensor([0.3, 0.7], requires_grad=True)
    >>> mg.verify.check_graph(mg.sum(mg.tanh(x) * x)).ok
    True
    """
    if not isinstance(y, Tensor) or y.node is None or y.node.op is None:
        raise GraphError(facts("check_graph", expected="a recorded result", got=describe(y)))
    rng = generator(rng)
    report = Report("every op of the graph, at its recorded inputs")
    done: dict[tuple, Report] = {}
    for node in ancestors(y.node):
        if node.op is None:
            continue
        key = _key(node)
        if key not in done:
            done[key] = of_node = _check_node(node, rng)
            report.rows += of_node.rows
            report.findings += of_node.findings
            report.notes += of_node.notes
        report.ops[node] = done[key]
    return report


def _key(node: Node) -> tuple:
    """Equal for equal calls, which are checked once: same op, parameters and inputs."""
    arrays = [np.asarray(to_host(x)) for x in node.inputs]
    return node.op, repr(node.params), *((a.shape, a.dtype, a.tobytes()) for a in arrays)


def _check_node(node: Node, rng: np.random.Generator) -> Report:
    """Check the op of a node by ``gradcheck`` at its inputs; constants stay as they are."""
    inputs = [to_host(x) if hasattr(x, "shape") else x for x in node.inputs]
    checked = [i for i, p in enumerate(node.parents) if p is not None and p.requires_grad]

    where = f", called at {node.origin.where}" if node.origin is not None else ""
    with np.errstate(all="ignore"):
        values = {
            "inputs are": [inputs[i] for i in checked],
            "output is": [node.op(*inputs, **node.params)],
        }
    for what, arrays in values.items():
        if not all(np.isfinite(array).all() for array in arrays):
            message = f"{node.op.name}{where}: its {what} not finite at this point"
            note = Finding("undefined", message=message, cause=node.op.name)
            return Report(node.op.name, notes=[note])
    names = [f"{node.name or node.op.name}, input {i}" for i in checked]
    f = _of_inputs(checked, node.op, inputs, node.params)
    report = gradcheck(f, [np.asarray(inputs[i]) for i in checked], names=names, rng=rng)
    report.findings, report.notes = (
        [replace(f, message=f"{node.op.name}{where}: {f.message}", cause=node.op.name)
         for f in findings]
        for findings in (report.findings, report.notes)
    )  # fmt: skip
    return report


def _of_inputs(
    positions: Sequence[int], op: Any, inputs: Sequence[Any], params: dict[str, Any]
) -> Callable[..., Tensor]:
    """``op`` as a function of the inputs at these positions, several results joined into one."""

    def f(*tensors: Tensor) -> Tensor:
        args = list(inputs)
        for i, x in zip(positions, tensors, strict=True):
            args[i] = x
        y = op(*args, **params)
        return concatenate([reshape(part, (-1,)) for part in y]) if isinstance(y, list) else y

    return f
