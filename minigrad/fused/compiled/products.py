"""What convolution and the norms share: loops over rows.

The loops of convolution take two output rows and four input rows at a time, so that each value in
a register serves several products. They sum in the precision of the rows; callers keep rows short.
"""

from minigrad.fused.compiled.jit import inner, summing


@inner
def add(row, total):
    for j in range(total.size):
        total[j] += row[j]


@inner
def output_row(i, step, height):
    """The row of the outputs whose window begins at row i of the images; -1 if there is none."""
    o = i // step
    return o if o * step == i and 0 <= o < height else -1


@inner
def add_4(out, other, r0, r1, r2, r3, w, v):
    """``out += sum_i w_i r_i`` and ``other += sum_i v_i r_i``: two outputs share the reads."""
    w0, w1, w2, w3 = w[0], w[1], w[2], w[3]
    v0, v1, v2, v3 = v[0], v[1], v[2], v[3]
    for i in range(out.size):
        a, b, c, d = r0[i], r1[i], r2[i], r3[i]
        out[i] = out[i] + w0 * a + w1 * b + w2 * c + w3 * d  # four fused operations
        other[i] = other[i] + v0 * a + v1 * b + v2 * c + v3 * d


@inner
def add_1(out, row, w):
    for i in range(out.size):
        out[i] += w * row[i]


@summing
def dot_4(g, h, r0, r1, r2, r3, sums, others):
    """Add the dot products of g and of h with four rows to ``sums`` and ``others``."""
    zero = g.dtype.type(0)
    g0, g1, g2, g3, h0, h1, h2, h3 = zero, zero, zero, zero, zero, zero, zero, zero
    for i in range(g.size):
        a, b = g[i], h[i]
        g0 += a * r0[i]
        g1 += a * r1[i]
        g2 += a * r2[i]
        g3 += a * r3[i]
        h0 += b * r0[i]
        h1 += b * r1[i]
        h2 += b * r2[i]
        h3 += b * r3[i]
    sums[0] += g0
    sums[1] += g1
    sums[2] += g2
    sums[3] += g3
    others[0] += h0
    others[1] += h1
    others[2] += h2
    others[3] += h3


@summing
def dot_1(g, row):
    total = g.dtype.type(0)
    for i in range(g.size):
        total += g[i] * row[i]
    return total


@summing
def row_sum(row):
    total = row.dtype.type(0)
    for i in range(row.size):
        total += row[i]
    return total


@summing
def row_deviations(row, centre):
    """The sum of the deviations from ``centre``, and that of their squares."""
    total, squares = row.dtype.type(0), row.dtype.type(0)
    for i in range(row.size):
        d = row[i] - centre
        total += d
        squares += d * d
    return total, squares


@inner
def merged(count_a, mean_a, m2_a, count_b, mean_b, m2_b):
    """Mean and m2, the sum of squared deviations, of two groups together (Chan's formula).

    Group a may be empty, and the square of ``delta`` infinite: it is never formed.
    """
    delta = mean_b - mean_a
    step = delta * (count_b / (count_a + count_b))
    return mean_a + step, m2_a + m2_b + delta * count_a * step
