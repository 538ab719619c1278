"""What to write for a name of PyTorch, or of an op, that is asked for where there is none."""

import re
import sys
from typing import Any, NoReturn

from minigrad import ops

_TABLE = """
abs              abs(x)
arange           mg.tensor(np.arange(n))
as_tensor        mg.tensor(a)
bmm              x @ y
bool             x.astype("bool")
cat              mg.concatenate(xs, axis=0)
chunk            mg.split(x, n)
clamp            x.clip(min=0)
clone            x.copy()
concat           mg.concatenate(xs, axis=0)
contiguous       x
conv2d           mg.ops.conv(images, w)
cpu              x.to("cpu")
cuda             x.to("cuda")
dim              x.ndim
div              x / y
dot              x @ y
double           x.astype("float64")
dropout          mg.nn.Dropout(0.5)
enable_grad      mg.tensor(a, requires_grad=True)
eq               x == y
expand           mg.broadcast_to(x, shape)
eye              mg.tensor(np.eye(n))
float            x.astype("float32")
float32          mg.tensor(a, dtype="float32")
float64          mg.tensor(a, dtype="float64")
from_numpy       mg.tensor(a)
full             mg.tensor(np.full(shape, 1.0))
functional       mg.ops
gather           x[index]
ge               x >= y
gt               x > y
grad_fn          x.node
half             x.astype("float16")
hessian          mg.jacobian(mg.grad(f))
index_select     x[index]
inference_mode   mg.no_grad()
int              x.astype("int32")
le               x <= y
linspace         mg.tensor(np.linspace(0, 1, n))
load             np.load(file)
long             x.astype("int64")
lt               x < y
manual_seed      mg.nn.manual_seed(0)
masked_fill      mg.where(mask, 0.0, x)
max_pool2d       mg.ops.max_pool(images, kernel_size=2)
mm               x @ y
mul              x * y
mT               x.swapaxes(-1, -2)
ne               x != y
neg              -x
nelement         x.size
nll_loss         mg.cross_entropy(logits, labels)
norm             mg.sqrt(mg.sum(x**2))
numel            x.size
ones             mg.tensor(np.ones(shape))
ones_like        np.ones_like(x)
permute          x.transpose(axes)
pow              x**2
rand             mg.tensor(rng.uniform(size=shape))
randn            mg.tensor(rng.normal(size=shape))
ravel            x.flatten()
requires_grad_   x.requires_grad = True
rsqrt            1 / mg.sqrt(x)
save             np.savez(file, **net.state_dict())
silu             x * mg.sigmoid(x)
sub              x - y
t                x.T
type             x.astype("float32")
unbind           mg.unstack(x)
unsqueeze        mg.expand_dims(x, axis=0)
view             x.reshape(shape)
zeros            mg.tensor(np.zeros(shape))
zeros_like       np.zeros_like(x)
AdaptiveAvgPool2d  mg.nn.GlobalAvgPool2d()
BCELoss          mg.nn.BCEWithLogitsLoss()
DataLoader       mg.data.DataLoader(dataset)
LogSoftmax       mg.log_softmax(x)
NLLLoss          mg.nn.CrossEntropyLoss()
Parameter        mg.tensor(a, requires_grad=True)
SiLU             x * mg.sigmoid(x)
utils            mg.optim.clip_grad_norm_(net.parameters(), 1.0)
"""
INSTEAD: dict[str, str] = dict(re.findall(r"(\S+) +(.+)", _TABLE))
NAMES = frozenset(INSTEAD) | frozenset(ops.__all__)


def absent(owner: str, name: str) -> AttributeError:
    """That ``owner`` has no ``name``, with what to write instead where that is known."""
    instead = INSTEAD.get(name)
    if instead is None and name in NAMES:
        home = "mg" if name in vars(sys.modules["minigrad"]) else "mg.ops"
        instead = f"{home}.{name}(x)"
    remedy = f"; write {instead}" if instead else ""
    return AttributeError(f"{owner} has no attribute {name!r}{remedy}")


class Absent:
    """In the place of an attribute that a class has not: as if it were not there, but for the text.

    A ``__getattr__`` would say the same, but makes each op on scalars 7 % slower.
    """

    def __init__(self, name: str):
        self.name = name

    def __get__(self, instance: Any, owner: type) -> NoReturn:
        raise absent(f"{owner.__name__!r} object", self.name)
