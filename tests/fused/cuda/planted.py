"""Errors to plant into the text of kernels, each with the check that must notice it.

``compare``: results differ from the reference. ``address``: memory outside of an array or of shared
memory is accessed. ``thread``: two threads access one place in no order, one of them writing.
"""

import numpy as np
from pairs import check_batch_norm, check_layer_norm, normal, run, wide

import minigrad as mg
from minigrad.fused.cuda import PAIRS
from minigrad.fused.cuda.foreach import axpby_all

RNG = np.random.default_rng(5)


def train(shape, dtype=np.float32, drift=0.0, **words):
    """Batch norm in training, of values that grow by ``drift`` deviations along the batch."""

    def check(gpu):
        (x, *others), y_bar = normal(shape, dtype, RNG, **words)
        x = x + np.linspace(0, drift, x.size, dtype=dtype).reshape(shape)
        check_batch_norm(gpu, (x, *others), y_bar)

    return check


def evaluate(shape):
    given = [np.full(shape[1], value, np.float32) for value in (0.5, 2.0)]
    return lambda gpu: check_batch_norm(gpu, *normal(shape, np.float32, RNG), 1e-5, *given)


def normalize_rows(rows, features):
    def check(gpu):
        x, y_bar = (RNG.normal(size=(rows, features)).astype(np.float32) for _ in range(2))
        gamma, beta = (RNG.uniform(0.5, 2, features).astype(np.float32) for _ in range(2))
        check_layer_norm(gpu, x, gamma, beta, y_bar)

    return check


def equal(name, shapes, **params):
    """The pair ``name`` against the op of that name; integers, so that sums are exact."""

    def check(gpu):
        xs = [RNG.integers(-3, 4, shape).astype(np.float32) for shape in shapes]
        y, pullback = mg.vjp(lambda *a: getattr(mg.ops, name)(*a, **params), *map(wide, xs))
        y_bar = RNG.integers(-3, 4, y.shape).astype(np.float32)
        found = run(gpu, name, xs, y_bar, **params)
        references = [y.data, *(bar.data for bar in pullback(wide(y_bar)))]
        for got, expected in zip((found.y, *found.bars), references, strict=True):
            np.testing.assert_allclose(got, expected, rtol=1e-6, atol=1e-6)

    return check


def classify(labels, k):
    def check(gpu):
        logits = RNG.normal(size=(len(labels), k)).astype(np.float32)
        pair = PAIRS["cross_entropy"]
        y, cache = pair.forward(gpu.xp, gpu.array(logits), gpu.array(np.array(labels)))
        pair.backward(gpu.xp, gpu.array(np.float32(1)), cache)
        known = all(0 <= label < k for label in labels)
        expected = mg.ops.cross_entropy(logits, np.array(labels)) if known else np.nan
        np.testing.assert_allclose(gpu.host(y), expected, rtol=1e-5)

    return check


def add_two(gpu):
    """``axpby`` of two pairs: 2 x + 3 y and 4 x + 5 y."""
    x = gpu.array(np.ones(3, np.float32))
    sums = axpby_all(gpu.xp, [(2, x, 3, x), (4, x, 5, x)])
    np.testing.assert_array_equal([gpu.host(out) for out in sums], [[5] * 3, [9] * 3])


# name, file, text of the file, text planted instead, check that notices it, call it is made with
ERRORS = [
    ("the sums of a block are read before all warps wrote theirs", "common.cuh",
     "scratch[m * warps + warp] = values[m];\n    __syncthreads();",
     "scratch[m * warps + warp] = values[m];", "thread", train((3, 2, 40))),
    ("blocks of a channel do not wait for each other", "common.cuh",
     "is_waiting |= bits == 0;", "is_waiting |= false;", "compare", train((2, 1, 4000))),
    ("no block is the last of a channel", "batch_norm.cu",
     "is_last = own.slice == slices - 1;", "is_last = own.slice == slices;", "compare",
     evaluate((2, 1, 4000))),
    ("values are used before their copies have ended", "moments.cuh",
     "if (HOLD) await_copies();", "", "compare", train((3, 2, 8))),
    ("the next slice is not loaded", "moments.cuh",
     "loads = has_next ? next.count : 0;", "loads = has_next ? 0 * next.count : 0;", "compare",
     train((40, 9, 40))),
    ("a slice is written from the half of another", "batch_norm.cu",
     "other_half = half;", "other_half = free;", "compare", train((40, 9, 40))),
    ("the last slice reads beyond the channel", "layouts.cuh",
     "(rest < most ? rest : most)", "(rest > 0 ? most : 0)", "address", train((3, 1, 1001))),
    ("a tile of columns reads beyond the last channel", "layouts.cuh",
     "valid = channel < g.c;", "valid = channel <= g.c;", "address", train((20, 33))),
    ("a walk enters the next row one value late", "layouts.cuh",
     "if (s >= length)", "if (s > length)", "compare", train((40, 2, 7))),
    ("nothing is subtracted before sums are taken", "moments.cuh",
     "if (n == 0) x0 = packs[0].at[0];", "", "compare", train((64, 2, 16, 16), mean=1e4)),
    ("the sums of a thread stay from its first value", "moments.cuh",
     "sums[0] = sum + n * d;", "sums[0] = sum;", "compare", train((2, 1, 4000))),
    ("the squares of the other slices are missed", "batch_norm.cu",
     "sums[1] += found[1];", "sums[1] += 0 * found[1];", "compare", train((2, 1, 4000))),
    ("the mean is rounded to float32", "batch_norm.cu",
     "shift - (all.mean - high) * inv_std * scale", "shift", "compare",
     train((64, 2, 8, 8), mean=1e4)),
    ("the variance is divided by N - 1", "moments.cuh",
     "var = sums[1] / n - mean * mean", "var = (sums[1] - sums[0] * mean) / (n - 1)", "compare",
     train((5, 3))),
    ("eps is added to the deviation", "batch_norm.cu",
     "rsqrt(all.var + eps)", "1 / (sqrt(all.var) + eps)", "compare", train((5, 3), std=0.01)),
    ("the mean path is lost", "batch_norm.cu",
     "-scale_ * sums[0] / values - slope_ * low", "-slope_ * low", "compare", train((5, 3))),
    ("the variance path is lost", "batch_norm.cu",
     "slope * (packs[1].at[v] - high) + shift", "0 * slope + shift", "compare", train((5, 3))),
    ("the cotangents of x_hat are of a rounded mean", "batch_norm.cu",
     "(sums[1] - low * sums[0])", "(sums[1] - 0 * low)", "compare",
     train((4, 2, 3, 3), mean=1e5)),
    ("x is held over y_bar", "moments.cuh",
     "held + m * own.room() + own.place(i),", "held + own.place(i),", "compare", train((3, 2, 8))),
    ("gamma is that of the row", "layer_norm.cu",
     "load<T, L::width>(gamma + at.s)", "load<T, L::width>(gamma + at.s % 4)", "compare",
     normalize_rows(3, 8)),
    ("what is left over by packs is forgotten", "sigmoid.cu",
     "if (first < size - packs * V) y[", "if (false) y[", "compare", equal("sigmoid", [(7,)])),
    ("the last maximum wins", "max_pool.cu",
     "value > best", "value >= best", "compare",
     equal("max_pool", [(2, 2, 6, 6)], kernel_size=2)),
    ("a thread works on its first planes only", "windows.cuh",
     "step = gridDim.x / blocks * together;", "step = 1 << 20;", "compare",
     equal("max_pool", [(1, 200, 5, 5)], kernel_size=2)),
    ("an image is overwritten while it is read", "conv.cu",
     "__syncthreads();  // the image before is used up", "", "thread",
     equal("conv", [(70, 1, 6, 6), (1, 1, 3, 3)])),
    ("cotangents of outputs are overwritten while they are read", "conv.cu",
     "__syncthreads();  // the cotangents before are used up", "", "thread",
     equal("conv", [(70, 1, 6, 6), (1, 1, 3, 3)])),
    ("the bias is multiplied with what a tap reads", "conv.cu",
     "is_bias[p] = tap >= taps;", "is_bias[p] = tap > taps;", "compare",
     equal("conv", [(1, 1, 5, 5), (3, 1, 2, 2), (3,)])),
    ("a last tile of channels writes eight", "conv.cu",
     "count = rest < CHANNELS ? rest : CHANNELS;", "count = rest > 0 ? CHANNELS : 0;", "address",
     equal("conv", [(1, 1, 5, 5), (3, 1, 2, 2)])),
    ("padding is not subtracted", "conv.cu",
     "i / w % h - g.ph", "i / w % h", "compare",
     equal("conv", [(1, 1, 5, 5), (3, 1, 2, 2)], padding=1)),
    ("a tile is overwritten while it is read", "matmul.cu",
     "__syncthreads();  // this step is used up", "", "thread",
     equal("matmul", [(3, 200), (200, 5)])),
    ("a warp keeps the sum of one of its groups", "matmul.cu",
     " + __shfl_xor_sync(0xffffffffu, sums[i][j], 16)", "", "compare",
     equal("matmul", [(3, 200), (200, 5)])),
    ("the bias is added once per slice", "matmul.cu",
     "biased && slice == 0", "biased", "compare", equal("linear", [(2, 1100), (3, 1100), (3,)])),
    ("a label is an address, whatever it is", "cross_entropy.cu",
     "losses[row] = 0 <= label && label < k ?", "losses[row] = true ?", "address",
     classify([0, 900_000, 1], 3)),
    ("all arrays get the factor of the first", "foreach.cu",
     "b = static_cast<T>(own.b)", "b = static_cast<T>(all.of[0].b)", "compare", add_two),
]  # fmt: skip
