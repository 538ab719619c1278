// Max pooling. `winners` keeps the row-major place of the first maximum of each window; a window
// that holds nan has none and gets place 0, as in minigrad/ops/pool.py.
//
// A thread works on one place in many planes (struct Place): in the forward on an output, whose
// window it searches; in the backward on an input, for which it adds up the cotangents of the
// outputs that it won. So no two threads write to the same place, and sums have a fixed order.

template <class T, class I>
__global__ void max_pool_forward(const T* __restrict__ x, T* __restrict__ y,
                                 I* __restrict__ winners, Integer planes, Window g,
                                 Integer together, Integer parts) {
    const int inputs = g.h * g.w, outputs = g.oh * g.ow;
    const Place own(outputs, together, parts);
    const int top = own.at / g.ow * g.sh - g.ph, left = own.at % g.ow * g.sw - g.pw;
    for (Integer plane = own.first; own.valid && plane < planes; plane += own.step) {
        T best = 0;
        int place = 0, k = 0;
        bool has_nan = false;
        for (int ky = 0; ky < g.kh; ++ky)
            for (int kx = 0; kx < g.kw; ++kx, ++k) {
                const int iy = top + ky * g.dh, ix = left + kx * g.dw;
                const bool inside = 0 <= iy && iy < g.h && 0 <= ix && ix < g.w;
                const T value = inside ? x[plane * inputs + iy * g.w + ix] : minus_infinity<T>();
                has_nan = has_nan || value != value;
                if (k == 0 || value > best) {
                    best = value;
                    place = k;
                }
            }
        y[plane * outputs + own.at] = has_nan ? not_a_number<T>() : best;
        winners[plane * outputs + own.at] = static_cast<I>(has_nan ? 0 : place);
    }
}

template <class T, class I>
__global__ void max_pool_backward(const T* __restrict__ y_bar, const I* __restrict__ winners,
                                  T* __restrict__ x_bar, Integer planes, Window g,
                                  Integer together, Integer parts) {
    const int inputs = g.h * g.w, outputs = g.oh * g.ow;
    const Place own(inputs, together, parts);
    const Readers rows(own.at / g.w, g.oh, g.kh, g.sh, g.ph, g.dh);
    const Readers columns(own.at % g.w, g.ow, g.kw, g.sw, g.pw, g.dw);
    for (Integer plane = own.first; own.valid && plane < planes; plane += own.step) {
        T sum = 0;
        for (int oy = rows.last; oy >= rows.first; --oy) {
            const int ky = rows.place_in(oy);
            const Integer row = plane * outputs + oy * g.ow;
#pragma unroll 1
            for (int ox = columns.last; ky >= 0 && ox >= columns.first; --ox) {
                const int kx = columns.place_in(ox);
                const T bar = y_bar[row + ox];  // loaded together with the winner, not after it
                const int winner = winners[row + ox];
                sum += kx >= 0 && winner == ky * g.kw + kx ? bar : T(0);
            }
        }
        x_bar[plane * inputs + own.at] = sum;
    }
}
