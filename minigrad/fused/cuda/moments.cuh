// Mean and sum of squared deviations, right where the mean is large and the deviations are small.
//
// A mean of 1e4 with a deviation of 1 must not cost digits: sums are taken of x - shift, with a
// value of x as shift, in chunks whose deviations are from the chunk's own mean; across chunks,
// threads and blocks in double (Chan, Golub, LeVeque 1983, eq. 1.5b).

template <class L>
using Values = Pack<typename L::Value, L::width>;

struct Moments {
    double mean, squares;  // squares: the sum of squared deviations
};

// Mean and squares of the values of this thread's channel in this block's slice.
template <class L, bool HOLD>
__device__ Moments slice_moments(const L& own, const typename L::Value* x, Values<L>* held) {
    using T = typename L::Value;
    double sums[3] = {0, 0, 0};  // of d, of squares inside chunks, and of chunk means squared
    Walk at = own.walk();
    T shift = 0;
    if (own.valid) {  // the first value of the slice: the same for all threads of the channel
        L first(own);
        first.rank = 0;
        shift = x[first.walk().address];
    }
    for (int i = own.rank; i < own.count; i += L::depth * own.ranks) {
        Values<L> packs[L::depth];
        int n = 0;
#pragma unroll
        for (int u = 0; u < L::depth; ++u) {
            if (i + u * own.ranks < own.count) {
                packs[u] = load<T, L::width>(x + at.address);
                at.advance();
                n = u + 1;
            }
        }
        T sum = 0, squares = 0;
#pragma unroll
        for (int u = 0; u < L::depth; ++u)
            if (u < n)
                for (int v = 0; v < L::width; ++v) sum += packs[u].at[v] - shift;
        const T mean = sum / (n * L::width);
#pragma unroll
        for (int u = 0; u < L::depth; ++u) {
            if (u < n) {
                for (int v = 0; v < L::width; ++v) {
                    const T d = (packs[u].at[v] - shift) - mean;
                    squares += d * d;
                }
                if (HOLD) held[own.place(i + u * own.ranks)] = packs[u];
            }
        }
        const double m = mean, values = n * L::width;
        sums[0] += values * m;  // of the rounded mean: the deviations above are from it
        sums[1] += squares;
        sums[2] += values * m * m;
    }
    own.sum(sums);
    const double values = static_cast<double>(own.count) * L::width;
    if (own.count == 0) return {0, 0};
    const double spread = sums[2] - sums[0] * sums[0] / values;
    return {shift + sums[0] / values, sums[1] + (spread > 0 ? spread : 0)};
}

// One thread per channel computes up to four numbers for all threads of its channel.
template <class L, class F>
__device__ void share(const L& own, F compute, typename L::Value (&numbers)[4]) {
    using T = typename L::Value;
    T* shared = reinterpret_cast<T*>(own.scratch) + (L::tile > 1 ? threadIdx.x % 32 * 4 : 0);
    if (own.rank == 0 && own.valid) compute(shared);
    __syncthreads();
    for (int i = 0; i < 4; ++i) numbers[i] = own.valid ? shared[i] : T(0);
    __syncthreads();
}
