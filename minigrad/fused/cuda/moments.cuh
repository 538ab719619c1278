// Sums over the values of a slice, and results written from them. Each value is read once from
// memory if the slice is held in shared memory (HOLD), else twice.
//
// A mean of 1e4 with a deviation of 1 must not cost digits. So a thread sums x - x0 and its square,
// where x0 is the first of its values; threads and blocks add their sums in double, shifted to sums
// of x - centre, where centre is one value of the channel. With a shift that is one of n values,
// the sum of squares is at most n + 1 times the sum of squared deviations (typically twice), which
// bounds the cancellation (Chan, Golub, LeVeque 1983).

template <class L>
using Values = Pack<typename L::Value, L::width>;

// Starts to copy the packs that this thread owns, of M arrays, into shared memory.
template <int M, class L>
__device__ void fetch(const L& own, const typename L::Value* const (&arrays)[M],
                      Values<L>* held) {
    Walk at = own.walk();
    for (int i = own.rank; i < own.count; i += own.ranks, at.advance())
        for (int m = 0; m < M; ++m)
            copy_async(held + m * own.room() + own.place(i),
                       reinterpret_cast<const Values<L>*>(arrays[m] + at.address));
}

// Calls f(packs, lane) for the packs of this thread, which were fetched (HOLD) or are read now.
// Value v of a pack belongs to number lane + v of four running sums; flush() is called before these
// have more than some 18 terms each.
template <bool HOLD, int M, class L, class F, class P>
__device__ void for_each_pack(const L& own, const typename L::Value* const (&arrays)[M],
                              const Values<L>* held, F f, P flush) {
    constexpr int depth = HOLD ? 4 / L::width : L::depth / M;  // loads in flight
    Walk at = own.walk();
    if (HOLD) await_copies();
    for (int i = own.rank; i < own.count; i += depth * own.ranks) {
        Values<L> packs[depth][M];
#pragma unroll
        for (int u = 0; u < depth; ++u) {
            if (const int j = i + u * own.ranks; j < own.count) {
                for (int m = 0; m < M; ++m)
                    packs[u][m] = HOLD ? held[m * own.room() + own.place(j)]
                                       : load<typename L::Value, L::width>(arrays[m] + at.address);
                at.advance();
            }
        }
#pragma unroll
        for (int u = 0; u < depth; ++u)
            if (i + u * own.ranks < own.count) f(packs[u], u * L::width % 4);
        if (!HOLD) flush();  // the number of packs has no bound
    }
    if (HOLD) flush();
}

// Adds four running sums to a sum in double, and clears them.
template <class T>
__device__ void drain(T (&lanes)[4], double& sum) {
    sum += (lanes[0] + lanes[1]) + (lanes[2] + lanes[3]);
    for (T& lane : lanes) lane = 0;
}

// The sums of x - centre and of its square over this thread's channel in the slice of this block.
template <bool HOLD, class L>
__device__ void slice_sums(const L& own, const typename L::Value* x, const Values<L>* held,
                           typename L::Value centre, double (&sums)[2]) {
    using T = typename L::Value;
    T lanes[4] = {0, 0, 0, 0}, squares[4] = {0, 0, 0, 0}, x0 = 0;
    double sum = 0, sum_of_squares = 0;
    int n = 0;
    const auto add = [&](const Values<L>(&packs)[1], int lane) {
        if (n == 0) x0 = packs[0].at[0];
        n += L::width;
        for (int v = 0; v < L::width; ++v) {
            const T d = packs[0].at[v] - x0;
            lanes[lane + v] += d;
            squares[lane + v] += d * d;
        }
    };
    for_each_pack<HOLD, 1>(own, {x}, held, add, [&] {
        drain(lanes, sum);
        drain(squares, sum_of_squares);
    });
    const double d = static_cast<double>(x0) - centre;  // x - centre is x - x0 + d
    sums[0] = sum + n * d;
    sums[1] = sum_of_squares + (sum + sums[0]) * d;
    own.sum(sums);
}

struct Moments {
    double mean, var;  // biased: divided by n
};

__device__ inline Moments moments_of(const double (&sums)[2], double n, double centre) {
    const double mean = sums[0] / n, var = sums[1] / n - mean * mean;
    return {centre + mean, var < 0 ? 0 : var};
}

// Writes f(packs) for the packs of this thread. If there is a next slice, it starts to load the
// packs of that into the places that become free, which only this thread reads.
template <bool HOLD, int M, class L, class F>
__device__ void write_packs(const L& own, const L& next, bool has_next,
                            const typename L::Value* const (&arrays)[M], Values<L>* held,
                            typename L::Value* out, F f) {
    using T = typename L::Value;
    constexpr int depth = HOLD ? 1 : L::depth / 2;  // only memory needs loads in advance
    Walk at = own.walk(), from = next.walk();
    const int loads = has_next ? next.count : 0;
    for (int i = own.rank; i < own.count || i < loads; i += depth * own.ranks) {
        Values<L> packs[depth][M];
        T* places[depth];
        Values<L>* const place = held + own.place(i);
#pragma unroll
        for (int u = 0; u < depth; ++u) {
            if (i + u * own.ranks < own.count) {
                places[u] = out + at.address;
                for (int m = 0; m < M; ++m)
                    packs[u][m] = HOLD ? place[m * own.room()]
                                       : load<T, L::width>(arrays[m] + at.address);
                at.advance();
            }
        }
#pragma unroll
        for (int u = 0; u < depth; ++u)
            if (i + u * own.ranks < own.count) store<T, L::width>(places[u], f(packs[u]));
        if (i < loads) {
            for (int m = 0; m < M; ++m)
                copy_async(place + m * own.room(),
                           reinterpret_cast<const Values<L>*>(arrays[m] + from.address));
            from.advance();
        }
    }
}
