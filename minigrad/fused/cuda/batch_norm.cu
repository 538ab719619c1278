// Batch norm, forward and backward, in one launch each.
//
// Every block reads one slice of a channel, keeps it in shared memory where it fits (HOLD), takes
// its sums, meets the other blocks of that channel, and writes its part of the result: x is then
// read once from memory. Where a channel does not fit it is read a second time. The mean is kept as
// high + low, so that x - mean is rounded once.

// How many values of a channel are in slice k.
template <class L>
__device__ double values_in(const L& own, Integer k) {
    const Integer all = own.shape.n * own.shape.s, begin = k * own.shape.length;
    const Integer rest = all - begin;
    return static_cast<double>(rest < own.shape.length ? rest : own.shape.length);
}

// The moments of the whole channel from those of its slices: `partials` is (C, slices, 2).
template <class L>
__device__ Moments channel_moments(const L& own, const Moments& mine, double* partials,
                                   unsigned* arrivals) {
    if (own.shape.slices == 1) return mine;
    double* slices = partials + own.channel * own.shape.slices * 2;
    if (own.rank == 0 && own.valid) {
        slices[own.slice * 2] = mine.mean;
        slices[own.slice * 2 + 1] = mine.squares;
    }
    meet(arrivals, static_cast<unsigned>(own.shape.slices));
    double sum[1] = {0}, squares[1] = {0};
    const Integer count = own.valid ? own.shape.slices : 0;
    for (Integer k = own.rank; k < count; k += own.ranks)
        sum[0] += values_in(own, k) * slices[k * 2];
    own.sum(sum);
    const double mean = sum[0] / (static_cast<double>(own.shape.n) * own.shape.s);
    for (Integer k = own.rank; k < count; k += own.ranks) {
        const double d = slices[k * 2] - mean;
        squares[0] += slices[k * 2 + 1] + values_in(own, k) * d * d;
    }
    own.sum(squares);
    return {mean, squares[0]};
}

// y = (x - mean) scale + shift for the values of this thread; numbers: mean, low, scale, shift.
template <class L, bool HOLD>
__device__ void write(const L& own, const typename L::Value* x,
                      const typename L::Value (&numbers)[4], const Values<L>* held,
                      typename L::Value* y) {
    using T = typename L::Value;
    constexpr int depth = HOLD ? 1 : L::depth / 2;  // only memory needs loads in advance
    Walk at = own.walk();
    for (int i = own.rank; i < own.count; i += depth * own.ranks) {
        Values<L> packs[depth];
        Integer places[depth];
#pragma unroll
        for (int u = 0; u < depth; ++u) {
            if (const int j = i + u * own.ranks; j < own.count) {
                places[u] = at.address;
                packs[u] = HOLD ? held[own.place(j)] : load<T, L::width>(x + at.address);
                at.advance();
            }
        }
#pragma unroll
        for (int u = 0; u < depth; ++u) {
            if (i + u * own.ranks < own.count) {
                for (T& value : packs[u].at)
                    value = ((value - numbers[0]) - numbers[1]) * numbers[2] + numbers[3];
                store<T, L::width>(y + places[u], packs[u]);
            }
        }
    }
}

// x: (N, C, S). statistics: (2, C), mean and 1/sqrt(var + eps). In training mean and var (C,) are
// written, else read. partials: (C, slices, 2). counters: 1 + one per tile of channels, zeros;
// neither is touched where there is one slice.
template <class L, bool HOLD, bool TRAIN>
__global__ void __launch_bounds__(512, 2)
batch_norm_forward(const typename L::Value* x, const typename L::Value* gamma,
                   const typename L::Value* beta, typename L::Value* y, double* statistics,
                   typename L::Value* mean, typename L::Value* var, double* partials,
                   unsigned* counters, Integer n, Integer c, Integer s, Integer slices,
                   Integer length, Integer held_at, double eps) {
    using T = typename L::Value;
    double* scratch = reinterpret_cast<double*>(block_memory());
    Values<L>* held = reinterpret_cast<Values<L>*>(block_memory() + held_at);
    const bool meets = TRAIN && slices > 1;
    const unsigned block = meets ? take_ticket(counters, scratch) : blockIdx.x;
    const L own(Shape{n, c, s, slices, length}, block, scratch);
    Moments all{0, 0};
    if (TRAIN) {
        all = slice_moments<L, HOLD>(own, x, held);
        all = channel_moments(own, all, partials, counters + 1 + block / slices);
    }
    T numbers[4];
    share(own, [&](T* to) {
        const Integer i = own.channel;
        const double mu = TRAIN ? all.mean : static_cast<double>(mean[i]);
        const double biased = TRAIN ? all.squares / (static_cast<double>(n) * s)
                                    : static_cast<double>(var[i]);
        const double inv_std = 1 / sqrt(biased + eps);
        to[0] = static_cast<T>(mu);
        to[1] = static_cast<T>(mu - to[0]);
        to[2] = static_cast<T>(inv_std * gamma[i]);
        to[3] = beta[i];
        if (own.slice == 0) {
            statistics[i] = mu;
            statistics[c + i] = inv_std;
            if (TRAIN) mean[i] = to[0];
            if (TRAIN) var[i] = static_cast<T>(biased);
        }
    }, numbers);
    write<L, HOLD>(own, x, numbers, held, y);
}

// The sums of y_bar and of y_bar * x_hat over this block's slice; holds y_bar, then x_hat.
template <class L, bool HOLD>
__device__ void slice_sums(const L& own, const typename L::Value* y_bar,
                           const typename L::Value* x, const typename L::Value (&numbers)[4],
                           Values<L>* held, double (&sums)[2]) {
    using T = typename L::Value;
    constexpr int depth = L::depth / 2;  // two arrays: as many loads in flight as in the forward
    Walk at = own.walk();
    for (int i = own.rank; i < own.count; i += depth * own.ranks) {
        Values<L> bars[depth], hats[depth];
        int n = 0;
#pragma unroll
        for (int u = 0; u < depth; ++u) {
            if (i + u * own.ranks < own.count) {
                bars[u] = load<T, L::width>(y_bar + at.address);
                hats[u] = load<T, L::width>(x + at.address);
                at.advance();
                n = u + 1;
            }
        }
        T sum = 0, products = 0;
#pragma unroll
        for (int u = 0; u < depth; ++u) {
            if (u < n) {
                for (int v = 0; v < L::width; ++v) {
                    T& hat = hats[u].at[v];
                    hat = ((hat - numbers[0]) - numbers[1]) * numbers[2];
                    sum += bars[u].at[v];
                    products += bars[u].at[v] * hat;
                }
                if (HOLD) held[own.place(i + u * own.ranks)] = bars[u];
                if (HOLD) held[own.room() + own.place(i + u * own.ranks)] = hats[u];
            }
        }
        sums[0] += sum;
        sums[1] += products;
    }
    own.sum(sums);
}

// The sums over the channel from those over its slices. In evaluation only the block that arrives
// last needs them; the others return false.
template <class L, bool TRAIN>
__device__ bool channel_sums(const L& own, double (&sums)[2], double* partials,
                             unsigned* arrivals) {
    if (own.shape.slices == 1) return true;
    double* slices = partials + own.channel * own.shape.slices * 2;
    if (own.rank == 0 && own.valid) {
        slices[own.slice * 2] = sums[0];
        slices[own.slice * 2 + 1] = sums[1];
    }
    const unsigned expected = static_cast<unsigned>(own.shape.slices);
    if (TRAIN)
        meet(arrivals, expected);
    else if (!arrive(arrivals, expected, own.scratch))
        return false;
    sums[0] = sums[1] = 0;
    const Integer count = own.valid ? own.shape.slices : 0;
    for (Integer k = own.rank; k < count; k += own.ranks) {
        sums[0] += slices[k * 2];
        sums[1] += slices[k * 2 + 1];
    }
    own.sum(sums);
    return TRAIN ? own.slice == 0 : true;
}

// x_bar = scale (y_bar - mean path - x_hat variance path); numbers: mean, low, inv_std, scale.
template <class L, bool HOLD>
__device__ void write_x_bar(const L& own, const typename L::Value* y_bar,
                            const typename L::Value* x, const typename L::Value (&numbers)[4],
                            typename L::Value mean_path, typename L::Value variance_path,
                            const Values<L>* held, typename L::Value* x_bar) {
    using T = typename L::Value;
    constexpr int depth = HOLD ? 1 : L::depth / 2;
    Walk at = own.walk();
    for (int i = own.rank; i < own.count; i += depth * own.ranks) {
        Values<L> bars[depth], hats[depth];
        Integer places[depth];
#pragma unroll
        for (int u = 0; u < depth; ++u) {
            if (const int j = i + u * own.ranks; j < own.count) {
                places[u] = at.address;
                bars[u] = HOLD ? held[own.place(j)] : load<T, L::width>(y_bar + at.address);
                hats[u] = HOLD ? held[own.room() + own.place(j)]
                               : load<T, L::width>(x + at.address);
                at.advance();
            }
        }
#pragma unroll
        for (int u = 0; u < depth; ++u) {
            if (i + u * own.ranks < own.count) {
                for (int v = 0; v < L::width; ++v) {
                    T h = hats[u].at[v];
                    if (!HOLD) h = ((h - numbers[0]) - numbers[1]) * numbers[2];
                    bars[u].at[v] = numbers[3] * (bars[u].at[v] - mean_path - h * variance_path);
                }
                store<T, L::width>(x_bar + places[u], bars[u]);
            }
        }
    }
}

// y_bar, x, x_bar: (N, C, S); statistics as the forward wrote them; partials, counters as there.
template <class L, bool HOLD, bool TRAIN>
__global__ void __launch_bounds__(512, 2)
batch_norm_backward(const typename L::Value* y_bar, const typename L::Value* x,
                    const typename L::Value* gamma, const double* statistics,
                    typename L::Value* x_bar, typename L::Value* gamma_bar,
                    typename L::Value* beta_bar, double* partials, unsigned* counters, Integer n,
                    Integer c, Integer s, Integer slices, Integer length, Integer held_at) {
    using T = typename L::Value;
    double* scratch = reinterpret_cast<double*>(block_memory());
    Values<L>* held = reinterpret_cast<Values<L>*>(block_memory() + held_at);
    const bool meets = TRAIN && slices > 1;
    const unsigned block = meets ? take_ticket(counters, scratch) : blockIdx.x;
    const L own(Shape{n, c, s, slices, length}, block, scratch);
    T numbers[4];
    share(own, [&](T* to) {
        to[0] = static_cast<T>(statistics[own.channel]);
        to[1] = static_cast<T>(statistics[own.channel] - to[0]);
        to[2] = static_cast<T>(statistics[c + own.channel]);
        to[3] = static_cast<T>(statistics[c + own.channel] * gamma[own.channel]);
    }, numbers);
    double sums[2] = {0, 0};
    slice_sums<L, HOLD>(own, y_bar, x, numbers, held, sums);
    const bool writes =
        channel_sums<L, TRAIN>(own, sums, partials, counters + 1 + block / slices);
    if (writes && own.rank == 0 && own.valid) {
        beta_bar[own.channel] = static_cast<T>(sums[0]);
        gamma_bar[own.channel] = static_cast<T>(sums[1]);
    }
    const double values = static_cast<double>(n) * s;
    const T mean_path = TRAIN ? static_cast<T>(sums[0] / values) : T(0);
    const T variance_path = TRAIN ? static_cast<T>(sums[1] / values) : T(0);
    write_x_bar<L, HOLD>(own, y_bar, x, numbers, mean_path, variance_path, held, x_bar);
}
