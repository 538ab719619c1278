// Layer norm of (R, F): each row by itself, gamma and beta per position in the row.
//
// A block works on one row, as the only slice of a channel (layouts.cuh). A row that fits is held
// in shared memory (HOLD), so that each array is read once from memory, else twice. Precision of
// the forward: see moments.cuh; in the backward each pack is summed in T, and these sums in double.
// The cotangents of gamma and beta are sums over the rows, in double: layer_norm_columns reads
// y_bar and x once more to sum slices of the rows, and sum_rows adds these.

// Thread 0 computes M numbers and passes them to all threads of the block.
template <int M, class L, class F>
__device__ void broadcast(const L& own, F compute, typename L::Value (&numbers)[M]) {
    auto* shared = reinterpret_cast<typename L::Value*>(own.scratch);
    if (threadIdx.x == 0) compute(shared);
    __syncthreads();
    for (int i = 0; i < M; ++i) numbers[i] = shared[i];
    __syncthreads();
}

// x, y: (R, F); gamma, beta: (F,); statistics: (2, R), mean and 1/sqrt(var + eps).
template <class L, bool HOLD>
__global__ void __launch_bounds__(512, 2)
layer_norm_forward(const typename L::Value* x, const typename L::Value* gamma,
                   const typename L::Value* beta, typename L::Value* y, double* statistics,
                   Integer rows, Integer features, Integer held_at, double eps) {
    using T = typename L::Value;
    double* scratch = reinterpret_cast<double*>(block_memory());
    Values<L>* held = reinterpret_cast<Values<L>*>(block_memory() + held_at);
    const L own(Shape{1, rows, features, 1, features}, blockIdx.x, scratch);
    const T centre = x[own.channel * features];
    double sums[2];
    if (HOLD) fetch<1>(own, {x}, held);
    slice_sums<HOLD>(own, x, held, centre, sums);
    T numbers[3];
    broadcast(own, [&](T* to) {
        const Moments all = moments_of(sums, static_cast<double>(features), centre);
        const double inv_std = rsqrt(all.var + eps);
        to[0] = static_cast<T>(all.mean);
        to[1] = static_cast<T>(all.mean - to[0]);
        to[2] = static_cast<T>(inv_std);
        statistics[own.channel] = all.mean;
        statistics[rows + own.channel] = inv_std;
    }, numbers);
    Walk at = own.walk();
    for (int i = own.rank; i < own.count; i += own.ranks, at.advance()) {
        Values<L> pack = HOLD ? held[own.place(i)] : load<T, L::width>(x + at.address);
        const Values<L> scales = load<T, L::width>(gamma + at.s);
        const Values<L> shifts = load<T, L::width>(beta + at.s);
        for (int v = 0; v < L::width; ++v) {
            const T hat = ((pack.at[v] - numbers[0]) - numbers[1]) * numbers[2];
            pack.at[v] = hat * scales.at[v] + shifts.at[v];
        }
        store<T, L::width>(y + at.address, pack);
    }
}

// With g = gamma y_bar: the sums of g and of g x_hat over the row, then
// x_bar = inv_std (g - mean(g) - x_hat mean(g x_hat)). Holds g, and behind it x_hat.
template <class L, bool HOLD>
__global__ void __launch_bounds__(512, 2)
layer_norm_backward(const typename L::Value* y_bar, const typename L::Value* x,
                    const typename L::Value* gamma, const double* statistics,
                    typename L::Value* x_bar, Integer rows, Integer features, Integer held_at) {
    using T = typename L::Value;
    double* scratch = reinterpret_cast<double*>(block_memory());
    Values<L>* held = reinterpret_cast<Values<L>*>(block_memory() + held_at);
    const L own(Shape{1, rows, features, 1, features}, blockIdx.x, scratch);
    T numbers[3];
    broadcast(own, [&](T* to) {
        to[0] = static_cast<T>(statistics[own.channel]);
        to[1] = static_cast<T>(statistics[own.channel] - to[0]);
        to[2] = static_cast<T>(statistics[rows + own.channel]);
    }, numbers);
    const auto load_pair = [&](const Walk& at, Values<L>& g, Values<L>& hat) {
        g = load<T, L::width>(y_bar + at.address);
        hat = load<T, L::width>(x + at.address);
        const Values<L> scales = load<T, L::width>(gamma + at.s);
        for (int v = 0; v < L::width; ++v) {
            g.at[v] *= scales.at[v];
            hat.at[v] = ((hat.at[v] - numbers[0]) - numbers[1]) * numbers[2];
        }
    };
    double sums[2] = {0, 0};
    Walk at = own.walk();
    for (int i = own.rank; i < own.count; i += own.ranks, at.advance()) {
        Values<L> g, hat;
        load_pair(at, g, hat);
        T sum = 0, products = 0;
        for (int v = 0; v < L::width; ++v) {
            sum += g.at[v];
            products += g.at[v] * hat.at[v];
        }
        sums[0] += sum;
        sums[1] += products;
        if (HOLD) held[own.place(i)] = g;
        if (HOLD) held[own.room() + own.place(i)] = hat;
    }
    own.sum(sums);
    T means[2];
    broadcast(own, [&](T* to) {
        for (int i = 0; i < 2; ++i) to[i] = static_cast<T>(sums[i] / static_cast<double>(features));
    }, means);
    at = own.walk();
    for (int i = own.rank; i < own.count; i += own.ranks, at.advance()) {
        Values<L> g, hat;
        if (HOLD) {
            g = held[own.place(i)];
            hat = held[own.room() + own.place(i)];
        } else {
            load_pair(at, g, hat);
        }
        for (int v = 0; v < L::width; ++v)
            g.at[v] = numbers[2] * (g.at[v] - means[0] - hat.at[v] * means[1]);
        store<T, L::width>(x_bar + at.address, g);
    }
}

// Sums over slices of the rows, of y_bar x_hat and of y_bar: partials (slices, 2, F).
template <class T>
__global__ void layer_norm_columns(const T* y_bar, const T* x, const double* statistics,
                                   double* partials, Integer rows, Integer features,
                                   Integer slices, Integer length) {
    double* scratch = reinterpret_cast<double*>(block_memory());
    const Columns<T> own(Shape{rows, features, 1, slices, length}, blockIdx.x, scratch);
    double sums[2] = {0, 0};
    Walk at = own.walk();
    for (int i = own.rank; i < own.count; i += own.ranks, at.advance()) {
        const Integer row = own.first + i;
        const T mean = static_cast<T>(statistics[row]);
        const T low = static_cast<T>(statistics[row] - mean);
        const T hat = ((x[at.address] - mean) - low) * static_cast<T>(statistics[rows + row]);
        sums[0] += y_bar[at.address] * hat;
        sums[1] += y_bar[at.address];
    }
    own.sum(sums);
    if (own.rank > 0 || !own.valid) return;
    partials[(own.slice * 2) * features + own.channel] = sums[0];
    partials[(own.slice * 2 + 1) * features + own.channel] = sums[1];
}
