"""The command line: ``verify``, ``draw``, ``step``, ``train``, ``demo``, ``ops`` and ``info``.

Exit codes: 0 proven; 1 a check failed; 2 the command cannot be run; 3 a bug in minigrad itself;
129 SIGHUP; 130 Ctrl-C; 143 SIGTERM.
"""

import inspect
import json
import platform
import re
import sys
import traceback
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

import minigrad
from minigrad import backend, files, streams, viz
from minigrad import demo as demos
from minigrad.core.op import Op
from minigrad.declaration import REGISTRY, Declared
from minigrad.errors import (
    DataError,
    DeviceError,
    MinigradError,
    MissingPackageError,
    RenderError,
    UsageError,
    facts,
)
from minigrad.fused.declare import has_numba
from minigrad.ops.normalization import all_but_channels
from minigrad.verify import batch_norm, targets
from minigrad.verify.calls import declared_as
from minigrad.verify.exact import prove_batch_norm
from minigrad.verify.ops import check_op
from minigrad.verify.report import Report, columns, folding, to_json
from minigrad.viz.latex import plain
from minigrad.viz.render import REMEDY, renderers

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _version(asked: bool) -> None:
    if asked:
        print(f"minigrad {minigrad.__version__}")
        raise typer.Exit()


@app.callback()
def _common(
    _: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="print the version")
    ] = False,
) -> None:
    """A tiny autograd engine whose every gradient is proven, drawn and steppable."""


def _one_of(option: str, *names: str) -> Callable[[str], str]:
    """The callback of an option that accepts only ``names``."""

    def checked(value: str) -> str:
        if value not in names:
            raise UsageError(facts(option, expected=" or ".join(names), got=repr(value)))
        return value

    return checked


_dtype = _one_of("--dtype", "float64", "float32")
_mode = _one_of("--mode", "train", "eval")
Device = Annotated[str, typer.Option(help="cpu, cuda or cuda:<n>")]
Dtype = Annotated[str, typer.Option(callback=_dtype, help="float64 or float32")]
Shape = Annotated[str, typer.Option(help="shape of x, such as N,C or N,C,H,W")]
Mode = Annotated[
    str, typer.Option(callback=_mode, help="train: statistics of the batch; eval: given statistics")
]
Eps = Annotated[float, typer.Option(help="added to the variance")]
Seed = Annotated[int, typer.Option(min=0, help="seed of gamma, beta and the cotangent")]
Target = Annotated[str, typer.Argument(help="batch_norm, or the number or name of a demo")]


@app.command()
def verify(
    context: typer.Context,
    target: Annotated[
        str,
        typer.Argument(
            help="batch_norm, all or an op; MODULE:forward,backward checks a batch norm at many "
            "points; MODULE:forward,backward,inputs checks any pair at the arrays in inputs"
        ),
    ] = "batch_norm",
    device: Device = "cpu",
    dtype: Dtype = "float64",
    shape: Shape = "32,64",
    axes: Annotated[
        str | None, typer.Option(help="axes to average over; default: all but axis 1")
    ] = None,
    mode: Mode = "train",
    eps: Eps = 1e-5,
    gamma: Annotated[float | None, typer.Option(help="one value for all channels")] = None,
    seed: Seed = 0,
    order: Annotated[
        int,
        typer.Option(
            min=1,
            max=10,
            help="highest order of derivatives, for ops; each takes up to 3.5 times as long",
        ),
    ] = 2,
    probes: Annotated[
        str,
        typer.Option(
            help="points for MODULE:forward,backward: batch_norm, or batch_norm:NC for (N, C)"
        ),
    ] = "batch_norm",
    out: Annotated[
        Path | None,
        typer.Option(help="folder for the picture of batch_norm, else for a JSON report"),
    ] = None,
    exact: Annotated[
        bool, typer.Option(help="derive the formula symbolically, with sympy")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="print one JSON document")] = False,
) -> None:
    """Prove gradients: batch norm three ways, declared ops, or a hand-written backward."""
    kind = "exact" if exact else _kind_of(target)
    given = _given(context, f"verify {target}", _OPTIONS[kind])
    if exact:
        raise typer.Exit(_exact(target, as_json))
    problem = None
    if kind == "batch_norm":
        problem = batch_norm.problem(
            shape=_integers(shape, "--shape"),
            axes=None if axes is None else _integers(axes, "--axes"),
            mode=mode,
            dtype=dtype,
            eps=eps,
            gamma=gamma,
            seed=seed,
        )
    if out is not None:
        files.make_folder(out, f"verify {target}: --out")  # fail before the checks, not after
        if problem is None:
            out = out.resolve()  # checked code may change the working directory
    given_dtype = dtype if "dtype" in given else None
    # a user's code may print, or replace the stream
    with redirect_stdout(sys.stderr if as_json else sys.stdout):
        if problem is not None:
            report = problem.report(device)
            report.facts = {"mode": mode, **report.facts}
        elif kind == "all":
            dtypes = (given_dtype,) if given_dtype else ("float64", "float32")
            report = targets.check_all(order=order, dtypes=dtypes, device=device)
        elif kind == "op":
            report = check_op(target, order=order, dtype=dtype, device=device)
            report.facts = {"dtype": dtype, **report.facts}
        elif kind == "code at":
            report = targets.check_code_at(target, dtype=given_dtype, device=device)
        else:
            report = targets.check_code(target, probes, dtype=given_dtype, device=device)
    report.facts = {"target": target, "device": device, **report.facts}
    _show(report, problem and _heading(problem), as_json)
    if out is not None:
        path = out / re.sub(r"\W+", "_", target)
        if problem is not None:
            _draw_verdicts(problem.traced(device), report, path.with_suffix(".svg"), quiet=as_json)
        else:
            files.write(path.with_suffix(".json"), to_json(report.to_dict()) + "\n")
    raise typer.Exit(0 if report.ok else 1)


@app.command()
def draw(
    context: typer.Context,
    target: Target = "batch_norm",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help=".svg .png .pdf or .dot")
    ] = None,
    depth: Annotated[
        int | None, typer.Option(help="levels of groups to open; default: all")
    ] = None,
    backward: Annotated[
        bool, typer.Option("--backward", help="the derived gradient beside the closed form")
    ] = False,
    shape: Shape = "4,3",
    mode: Mode = "train",
    eps: Eps = 1e-5,
    seed: Seed = 0,
    device: Device = "cpu",
) -> None:
    """Draw the computation graph of batch norm, or of a demo, with its values and gradients."""
    if target != "batch_norm":
        path = _demo("draw", target)
        if backward:
            raise UsageError("draw --backward: only batch_norm has a closed form")
        _given(context, f"draw {target}", "output depth seed")
        run = demos.run_with_graph(path, seed=seed)  # with the gradients that the demo left
        typer.echo(f"wrote {viz.draw(run.graph, output or f'{path.stem}.svg', depth=depth)}")
        return
    problem = _batch_norm(shape, mode, eps, seed)
    output = output or Path("batch_norm.svg")
    if not backward:
        typer.echo(f"wrote {viz.draw(problem.traced(device), output, depth=depth)}")
        return
    _given(context, "draw --backward", "backward output depth shape mode eps seed")
    both = viz.beside(
        minigrad.batch_norm,
        minigrad.analytic.batch_norm_vjp,
        problem.inputs,
        names=batch_norm.NAMES,
        **problem.params,
    )
    typer.echo(f"wrote {viz.draw(both, output, depth=depth, values=False, grads=False)}")


@app.command()
def step(
    context: typer.Context,
    target: Target = "batch_norm",
    output: Annotated[Path | None, typer.Option("--output", "-o", help="the HTML file")] = None,
    text: Annotated[bool, typer.Option("--text", help="step in the terminal instead")] = False,
    shape: Shape = "4,3",
    mode: Mode = "train",
    eps: Eps = 1e-5,
    seed: Seed = 0,
    device: Device = "cpu",
) -> None:
    """Step forward and backward through batch norm, or a demo's graph: browser or terminal."""
    if text:
        _given(context, "step --text", "text shape mode eps seed device")
    if target == "batch_norm":
        problem, name = _batch_norm(shape, mode, eps, seed), target
        y, y_bar = problem.recorded(device), backend.to_device(problem.cotangent(), device)
    else:
        path = _demo("step", target)
        _given(context, f"step {target}", "output text seed")
        run = demos.run_with_graph(path, seed=seed)
        y, name = run.graph, path.stem
        y_bar = np.random.default_rng(seed).normal(size=y.shape).astype(y.dtype) if y.ndim else None
    if text:
        viz.walk(y, seed=y_bar)
    else:
        typer.echo(f"wrote {viz.step(y, output or f'{name}.html', seed=y_bar)}")


@app.command()
def train(
    model: Annotated[
        str, typer.Argument(help="lenet, mlp, resnet or rnn, each also with -bn")
    ] = "lenet-bn",
    data: Annotated[str, typer.Option(help="digits, fashion-mnist or mnist")] = "digits",
    epochs: Annotated[int | None, typer.Option(help="default: from the recipe")] = None,
    batch_size: Annotated[int | None, typer.Option(help="default: from the recipe")] = None,
    lr: Annotated[
        float | None, typer.Option(help="learning rate; default: from the recipe")
    ] = None,
    batch_norm: Annotated[
        bool | None, typer.Option(help="override the -bn of the model's name")
    ] = None,
    device: Device = "cpu",
    dtype: Annotated[str, typer.Option(help="float32 or float64")] = "float32",
    seed: Annotated[int, typer.Option(min=0, help="seed of initial values and sample order")] = 0,
    root: Annotated[Path | None, typer.Option(help="folder with the four MNIST files")] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "--plot", help="folder for checkpoint and curves")
    ] = None,
    resume: Annotated[bool, typer.Option(help="continue from the checkpoint in --out")] = False,
    population: Annotated[
        bool, typer.Option(help="then use statistics of the whole training set")
    ] = False,
    record: Annotated[bool, typer.Option(help="run each step as one CUDA graph, on a GPU")] = False,
) -> None:
    """Train a network; print loss, accuracies and examples per second of each epoch."""
    try:
        minigrad.train.train(
            model,
            data,
            epochs=epochs,
            batch_size=batch_size,
            lr=lr,
            batch_norm=batch_norm,
            device=device,
            dtype=dtype,
            seed=seed,
            root=root,
            out=out,
            resume=resume,
            population=population,
            record=record,
            progress=True,
            say=typer.echo,
        )
    except (KeyboardInterrupt, SystemExit) as stop:
        hint = "; continue with --resume" if out is not None else ""
        typer.echo(f"interrupted{hint}", err=True)
        raise typer.Exit(getattr(stop, "code", 130)) from None


@app.command()
def demo(
    name: Annotated[
        str | None, typer.Argument(help="number, name or its beginning; default: list all demos")
    ] = None,
    as_list: Annotated[
        bool, typer.Option("--list", help="list number, name and claim of all")
    ] = False,
    fast: Annotated[
        bool, typer.Option("--fast", help="small size: seconds instead of minutes")
    ] = False,
    stepwise: Annotated[
        bool, typer.Option("--step", help="pause after each cell and show what it changed")
    ] = False,
    seed: Annotated[int, typer.Option(min=0, help="seed of the random numbers")] = 0,
    out: Annotated[Path, typer.Option(help="folder for pictures")] = Path("out"),
) -> None:
    """Play a demo: a claim, the number behind it, and its picture."""
    if as_list or name is None:
        width = max((len(path.stem) for path in demos.listed()), default=0) + 2
        for path in demos.listed():
            typer.echo(streams.filled(demos.claim_of(path), f"{path.stem:{width}}", " " * width))
        return
    run, path = demos.step if stepwise else demos.play, demos.find(name)
    files.make_folder(out, f"demo {name}: --out")  # fail now, not minutes later
    run(path, fast=fast, seed=seed, out=out)


@app.command()
def ops(
    name: Annotated[str | None, typer.Argument(help="name of an op; default: list all")] = None,
) -> None:
    """List the declared ops, or show one: formula, pullback, where it is checked, documentation."""
    if name is None:
        Console().print(_op_table())
        return
    declared = declared_as(name)
    lines = {"formula": plain(declared.formula), "pullback": _pullback(declared)}
    if "σ(" in lines["pullback"] and "σ(" not in lines["formula"]:
        lines["where"] = plain(REGISTRY["sigmoid"].formula).removeprefix("y = ")
    signature = getattr(declared, "signature", "")
    lines["signature"] = "elementwise" if signature == "()" else signature
    lines["checked on"] = ", ".join(f"{x} in {text}" for x, text in declared.checked_on())
    kinks = sorted({kink for domain in declared.domain for kink in domain.kinks})
    lines["kinks"] = ", ".join(map(str, kinks))
    lines["source"] = declared.source
    typer.echo(streams.filled(f"{name}{declared.__signature__}", rest="    ") + "\n")
    for key, value in lines.items():
        if value:
            typer.echo(streams.filled(value, f"{key + ':':12}", " " * 12))
    typer.echo()
    for line in (inspect.getdoc(declared) or "").replace("``", "").splitlines():
        indent = " " * (len(line) - len(line.lstrip()))
        typer.echo(streams.filled(line, rest=indent))


@app.command()
def info(
    as_json: Annotated[bool, typer.Option("--json", help="print one JSON document")] = False,
) -> None:
    """Show versions, devices and renderers of this installation."""
    lines = {
        "minigrad": minigrad.__version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "numba": version("numba") if has_numba() else "not installed; NumPy is used",
        "cuda": (backend.unavailable("cuda") or "available").removeprefix("cuda: "),
        "renderers": ", ".join(renderers()) or f"none; {REMEDY}",
        "ops": len(REGISTRY),
    }
    if as_json:
        typer.echo(json.dumps(lines, indent=2))
        return
    for key, value in lines.items():
        typer.echo(f"{key + ':':11}{value}")


def main() -> None:
    """Entry point of the ``minigrad`` command."""
    streams.prepare()
    try:
        try:
            app()
        finally:
            sys.stdout.flush()  # raises OSError on a full disk
    except (MemoryError, MinigradError, OSError) as error:
        _complain(error)
        streams.drain()
        sys.exit(2 if isinstance(error, _CANNOT_RUN) else 1)
    except Exception:  # a bug, not raised on purpose: no verdict on derivatives
        traceback.print_exc()
        sys.exit(3)


# errors of a command that could not run: exit code 2, no verdict on a derivative
_CANNOT_RUN = (
    DataError, DeviceError, MemoryError, MissingPackageError, OSError, RenderError, UsageError
)  # fmt: skip


# the options of `verify` that apply to each kind of target
_OPTIONS = {
    "batch_norm": "device dtype shape axes mode eps gamma seed out as_json",
    "all": "device dtype order out as_json",
    "op": "device dtype order out as_json",
    "code": "device dtype probes out as_json",
    "code at": "device dtype out as_json",
    "exact": "exact as_json",
}


def _kind_of(target: str) -> str:
    """The kind of the ``target`` of ``verify``: a key of ``_OPTIONS``."""
    if target in ("batch_norm", "all"):
        return target
    if ":" not in target:
        return "op"
    return "code at" if target.count(",") == 2 else "code"


def _given(context: typer.Context, what: str, options: str) -> set[str]:
    """The options given on the command line; UsageError if one is not among ``options``."""
    parameters = context.command.params
    flags = {str(p.name): p.opts[0] for p in parameters if p.opts[0].startswith("-")}
    sources = {name: context.get_parameter_source(name) for name in flags}
    given = {name for name, source in sources.items() if source and source.name == "COMMANDLINE"}
    for name in sorted(given - set(options.split())):
        expected = f"one of {' '.join(flags[option] for option in options.split())}"
        raise UsageError(facts(f"{what}: option", expected=expected, got=flags[name]))
    return given


def _exact(target: str, as_json: bool) -> int:
    """Compare derived formula and closed form for 2, 3 and 4 values; returns the exit code."""
    if target != "batch_norm":
        raise UsageError(
            f"verify --exact: no target {target!r}; only batch_norm has an exact proof"
        )
    proofs = [prove_batch_norm(n) for n in (2, 3, 4)]
    ok = all(proof.ok for proof in proofs)
    if as_json:
        as_dicts = [asdict(proof) for proof in proofs]
        typer.echo(to_json({"target": target, "ok": ok, "proofs": as_dicts}))
        return 0 if ok else 1
    typer.echo("the backward sweep, op by op:")
    for step in proofs[0].steps:
        call, formulas = step.split(": ", 1)
        typer.echo(streams.filled(f"{call}: {plain(formulas)}", "  ", "    "))
    for proof in proofs:
        verdict = "equals the closed form" if proof.ok else "DIFFERS from the closed form"
        typer.echo(f"N = {proof.n}: the derived gradient {verdict}; with R = sqrt(var + eps)")
        typer.echo(streams.filled(plain(rf"\bar x_1 = {proof.x_bar}"), "  ", "    "))
    return 0 if ok else 1


def _show(report: Report, heading: str | None, as_json: bool) -> None:
    if as_json:
        typer.echo(to_json(report.to_dict()))
        return
    if heading:
        typer.echo(streams.filled(heading))
    Console(width=columns()).print(report)


def _complain(error: Exception) -> None:
    text = "\n".join([str(error) or type(error).__name__, *getattr(error, "__notes__", ())])
    Console(stderr=True).print(text, style="red", markup=False, soft_wrap=True)


def _batch_norm(shape: str, mode: str, eps: float, seed: int) -> batch_norm.Problem:
    return batch_norm.problem(shape=_integers(shape, "--shape"), mode=mode, eps=eps, seed=seed)


def _demo(command: str, target: str) -> Path:
    try:
        return demos.find(target)
    except UsageError as error:
        raise UsageError(f"{command}: no target {target!r}; use batch_norm or a {error}") from None


def _integers(text: str, option: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError:
        raise UsageError(
            f"{option}: expected integers separated by commas, such as 4,3 (got {text!r})"
        ) from None


def _heading(problem: batch_norm.Problem) -> str:
    x = problem.inputs[0]
    axes = problem.params.get("axis") or all_but_channels(x)
    is_constant = x.max(axis=axes) == x.min(axis=axes)
    return (
        f"pixels of the UCI digits as x {x.shape} {x.dtype}, averaged over {axes}, "
        f"eps = {problem.params['eps']:g}; variance 0 in {int(is_constant.sum())} of "
        f"{is_constant.size} groups"
    )


def _draw_verdicts(y: Any, report: Report, path: Path, quiet: bool) -> None:
    try:
        verdicts = viz.verdicts(report)
        viz.draw(y, path.with_suffix(".dot"), verdicts=verdicts)
        viz.draw(y, path, verdicts=verdicts)
    except RenderError as error:
        _complain(error)
        return
    if not quiet:
        typer.echo(f"wrote {path} and {path.with_suffix('.dot')}")


def _op_table() -> Table:
    table = folding("op", "formula", "pullback")
    for name, declared in sorted(REGISTRY.items()):
        formula, pullback = plain(declared.formula), _pullback(declared)
        table.add_row(name, Text(formula), Text(pullback))  # in a str, rich reads [...] as markup
    return table


def _pullback(declared: Declared) -> str:
    return plain(declared.pullback) if isinstance(declared, Op) else "(composed)"
