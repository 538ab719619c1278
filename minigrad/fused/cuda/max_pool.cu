// Max pooling. `winners` keeps the row-major place of the first maximum of each window; a window
// that holds nan has none and gets place 0, as in minigrad/ops/pool.py.

template <class T, class I>
__global__ void max_pool_forward(const T* x, T* y, I* winners, Integer planes, Window g) {
    const Integer outputs = static_cast<Integer>(g.oh) * g.ow, size = planes * outputs;
    const Integer step = static_cast<Integer>(gridDim.x) * blockDim.x;
    for (Integer i = static_cast<Integer>(blockIdx.x) * blockDim.x + threadIdx.x; i < size;
         i += step) {
        const int o = static_cast<int>(i % outputs);
        const T* plane = x + i / outputs * g.h * g.w;
        const int top = o / g.ow * g.sh - g.ph, left = o % g.ow * g.sw - g.pw;
        T best = 0;
        int place = 0;
        bool has_nan = false;
        for (int k = 0; k < g.kh * g.kw; ++k) {
            const int iy = top + k / g.kw * g.dh, ix = left + k % g.kw * g.dw;
            const bool inside = 0 <= iy && iy < g.h && 0 <= ix && ix < g.w;
            const T value = inside ? plane[iy * g.w + ix] : minus_infinity<T>();
            has_nan = has_nan || value != value;
            if (k == 0 || value > best) {
                best = value;
                place = k;
            }
        }
        y[i] = has_nan ? not_a_number<T>() : best;
        winners[i] = static_cast<I>(has_nan ? 0 : place);
    }
}

// Each thread gathers what the windows around one element give it: no two write to one place.
template <class T, class I>
__global__ void max_pool_backward(const T* y_bar, const I* winners, T* x_bar, Integer planes,
                                  Window g) {
    const Integer inputs = static_cast<Integer>(g.h) * g.w, size = planes * inputs;
    const Integer step = static_cast<Integer>(gridDim.x) * blockDim.x;
    for (Integer i = static_cast<Integer>(blockIdx.x) * blockDim.x + threadIdx.x; i < size;
         i += step) {
        const int iy = static_cast<int>(i % inputs) / g.w, ix = static_cast<int>(i % inputs) % g.w;
        const Integer plane = i / inputs * g.oh * g.ow;
        T sum = 0;
        for (int ky = 0; ky < g.kh; ++ky) {
            const int oy = row_of(g, iy, ky);
            for (int kx = 0; oy >= 0 && kx < g.kw; ++kx) {
                const int ox = column_of(g, ix, kx);
                const Integer o = plane + oy * g.ow + ox;
                if (ox >= 0 && winners[o] == ky * g.kw + kx) sum += y_bar[o];
            }
        }
        x_bar[i] = sum;
    }
}
