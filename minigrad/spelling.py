"""Missing attributes: an error that says what to write for a name of PyTorch, or of an op.

For ``x.view(3)``: ``'Tensor' object has no attribute 'view'; write x.reshape(shape)``.
"""

import re
import sys
from collections.abc import Callable
from typing import Any, NoReturn

from minigrad.protocol import QUERIES

# A missing name, and what to write. A prefix restricts it: mg. and nn. to these modules, net. to
# objects of nn.Module.
_TABLE = """
abs              mg.absolute(x)
add_             x += y
arange           mg.tensor(np.arange(n))
argmax           x.argmax(axis=1)
argmin           x.argmin(axis=1)
as_tensor        mg.tensor(a)
autograd         mg.grad(f)
avg_pool2d       mg.ops.avg_pool(images, kernel_size=2)
binary_cross_entropy mg.binary_cross_entropy_with_logits(logits, targets)
bmm              x @ y
bool             x.astype("bool")
cat              mg.concatenate(xs, axis=0)
chunk            mg.split(x, n)
clamp            x.clip(min=0)
clone            x.copy()
concat           mg.concatenate(xs, axis=0)
contiguous       x
conv2d           mg.ops.conv(images, w)
copy_            x[...] = y.data
cpu              x.to("cpu")
cuda             x.to("cuda")
detach_          x.detach()
device           "cpu" if mg.backend.unavailable() else "cuda"
dim              x.ndim
div              x / y
dot              x @ y
double           x.astype("float64")
dropout          mg.nn.Dropout(0.5)
empty            mg.tensor(np.zeros(shape))
enable_grad      mg.tensor(a, requires_grad=True)
eq               x == y
expand           mg.broadcast_to(x, shape)
expand_as        mg.broadcast_to(x, y.shape)
eye              mg.tensor(np.eye(n))
fill_            x[...] = 1.0
flatten          x.flatten(1)
float            x.astype("float32")
float32          mg.tensor(a, dtype="float32")
float64          mg.tensor(a, dtype="float64")
from_numpy       mg.tensor(a)
full             mg.tensor(np.full(shape, 1.0))
functional       mg.ops
gather           x[index]
ge               x >= y
grad_fn          x.node
gt               x > y
half             x.astype("float16")
hessian          mg.jacobian(mg.grad(f))
index_select     x[index]
inference_mode   mg.no_grad()
int              x.astype("int32")
int64            mg.tensor(a, dtype="int64")
is_cuda          x.device != "cpu"
is_grad_enabled  net.training
is_tensor        isinstance(x, mg.Tensor)
le               x <= y
linspace         mg.tensor(np.linspace(0, 1, n))
load             np.load(file)
long             x.astype("int64")
lt               x < y
manual_seed      mg.nn.manual_seed(0)
masked_fill      mg.where(mask, 0.0, x)
masked_select    x[mask]
max_pool2d       mg.ops.max_pool(images, kernel_size=2)
mm               x @ y
mT               x.swapaxes(-1, -2)
mul              x * y
mul_             x *= y
multinomial      rng.choice(len(a), p=a / a.sum())
ne               x != y
neg              -x
nelement         x.size
nll_loss         mg.cross_entropy(logits, labels)
norm             mg.sqrt(mg.sum(x**2))
normal           mg.tensor(rng.normal(size=shape))
normal_          mg.nn.init.normal_(x)
numel            x.size
one_hot          np.eye(n)[labels]
ones             mg.tensor(np.ones(shape))
outer            x[:, None] * y
permute          x.transpose(axes)
pow              x**2
rand             mg.tensor(rng.uniform(size=shape))
rand_like        mg.tensor(rng.uniform(size=x.shape))
randint          rng.integers(0, n, shape)
randn            mg.tensor(rng.normal(size=shape))
randn_like       mg.tensor(rng.normal(size=x.shape))
random_split     mg.data.train_test_split(a, test=1)
randperm         rng.permutation(n)
ravel            x.flatten()
register_hook    x.retain_grad()
repeat           mg.concatenate([x, x], axis=0)
requires_grad_   x.requires_grad = True
round            np.round(x.numpy())
rsqrt            1 / mg.sqrt(x)
save             np.savez(file, **net.state_dict())
set_grad_enabled mg.no_grad()
silu             x * mg.sigmoid(x)
sort             x[np.argsort(x, axis=0), np.arange(x.shape[1])]
sub              x - y
sub_             x -= y
t                x.T
tril             x * np.tril(np.ones(shape))
trunc_normal_    mg.nn.init.normal_(x, std=0.02)
type             x.astype("float32")
type_as          x.astype(y.dtype)
unbind           mg.unstack(x)
uniform_         mg.nn.init.uniform_(x)
unsqueeze        mg.expand_dims(x, axis=0)
values           x.max(axis=1)
view             x.reshape(shape)
view_as          x.reshape(y.shape)
zero_            p.grad = None
zeros            mg.tensor(np.zeros(shape))
AdaptiveAvgPool2d mg.nn.GlobalAvgPool2d()
BCELoss          mg.nn.BCEWithLogitsLoss()
CosineAnnealingWarmRestarts mg.optim.LambdaLR(optimizer, factor)
DataLoader       mg.data.DataLoader(dataset)
Dataset          mg.data.TensorDataset(a)
FloatTensor      mg.tensor(a, dtype="float32")
LogSoftmax       mg.log_softmax(x)
LongTensor       mg.tensor(a, dtype="int64")
ModuleDict       setattr(net, name, layer)
NLLLoss          mg.nn.CrossEntropyLoss()
OneCycleLR       mg.optim.LambdaLR(optimizer, factor)
Parameter        mg.tensor(a, requires_grad=True)
ParameterList    setattr(net, name, mg.tensor(a, requires_grad=True))
RMSprop          mg.optim.Adam(net.parameters(), betas=(0.0, 0.99))
ReduceLROnPlateau optimizer.param_groups[0]["lr"] *= 0.1
SequentialLR     mg.optim.LambdaLR(optimizer, factor)
SiLU             x * mg.sigmoid(x)
Subset           mg.data.TensorDataset(a[index])
mg.cuda          "cpu" if mg.backend.unavailable() else "cuda"
mg.utils         mg.data.DataLoader(dataset)
net.add_module   setattr(net, name, layer)
net.cpu          net.to("cpu")
net.cuda         net.to("cuda")
net.double       net.to(dtype="float64")
net.extend       net.append(layer)
net.float        net.to(dtype="float32")
net.register_forward_hook y = net[0](x)
net.register_module setattr(net, name, layer)
net.register_parameter setattr(net, name, mg.tensor(a, requires_grad=True))
nn.utils         mg.optim.clip_grad_norm_(net.parameters(), 1.0)
"""
INSTEAD: dict[str, str] = dict(re.findall(r"(\S+) +(.+)", _TABLE))
NAMES = frozenset(name for name in INSTEAD if "." not in name) | QUERIES


def absent(owner: str, name: str, prefix: str = "") -> AttributeError:
    """The error that ``owner`` has no ``name``; it says what to write instead, if known."""
    instead = INSTEAD.get(f"{prefix}.{name}") or INSTEAD.get(name)
    ops = sys.modules["minigrad.ops"]
    if instead is None and name in ops.__all__:
        home = "mg" if name in vars(sys.modules["minigrad"]) else "mg.ops"
        op = getattr(ops, name)
        operands = list(op.__signature__.parameters)[: op.min_arity]  # none of stack(*xs, axis=0)
        instead = f"{home}.{name}({', '.join(operands) or 'xs'})"
    elif instead is None and name in QUERIES:
        instead = f"np.{name}(x)"
    remedy = f"; write {instead}" if instead else ""
    return AttributeError(f"{owner} has no attribute {name!r}{remedy}")


def of_module(module: str) -> Callable[[str], NoReturn]:
    """The ``__getattr__`` of ``module``, which raises the error of ``absent`` for every name."""
    prefix = "mg" if module == "minigrad" else module.rpartition(".")[2]

    def __getattr__(name: str) -> NoReturn:
        raise absent(f"module {module!r}", name, prefix)

    return __getattr__


class Absent:
    """A descriptor for an attribute that a class lacks: it raises an AttributeError with advice.

    A ``__getattr__`` would do the same, but makes each op on scalars 7 % slower.
    """

    def __init__(self, name: str, prefix: str = ""):
        self.name, self.prefix = name, prefix

    def __get__(self, instance: Any, owner: type) -> NoReturn:
        raise absent(f"{owner.__name__!r} object", self.name, self.prefix)
