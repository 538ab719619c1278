// What all kernels share: shared memory, vectors of values, sums and meetings of threads.
//
// The text is CUDA C++17 without headers. It also compiles as plain C++20 where MINIGRAD_HOST is
// defined and a header supplies the words of CUDA (threadIdx, __syncthreads, ...): tests run it so.

#ifndef MINIGRAD_HOST
__device__ inline char* block_memory() {
    extern __shared__ double pool[];  // double: aligned for every type that is put into it
    return reinterpret_cast<char*>(pool);
}
__device__ inline void doze() { __nanosleep(64); }
#endif

using Integer = long long;  // what the launcher passes for every integer

// N consecutive values that one instruction moves; the address must be a multiple of its size.
template <class T, int N>
struct alignas(sizeof(T) * N) Pack {
    T at[N];
};

template <class T, int N>
__device__ inline Pack<T, N> load(const T* address) {
    return *reinterpret_cast<const Pack<T, N>*>(address);
}

template <class T, int N>
__device__ inline void store(T* address, const Pack<T, N>& pack) {
    *reinterpret_cast<Pack<T, N>*>(address) = pack;
}

// Without headers there are no names for these.
template <class T>
__device__ inline T minus_infinity() {
    return log(T(0));
}

template <class T>
__device__ inline T not_a_number() {
    return sqrt(T(-1));
}

// The sum of each value over all threads of a block of whole warps, in every thread. The order of
// the additions depends on nothing but the size of the block. `scratch`: M doubles per warp.
template <int M>
__device__ inline void block_sum(double (&values)[M], double* scratch) {
    const int warps = blockDim.x / 32, warp = threadIdx.x / 32;
    for (int m = 0; m < M; ++m)
        for (int lane = 16; lane > 0; lane /= 2)
            values[m] += __shfl_xor_sync(0xffffffffu, values[m], lane);
    if (threadIdx.x % 32 == 0)
        for (int m = 0; m < M; ++m) scratch[m * warps + warp] = values[m];
    __syncthreads();
    for (int m = 0; m < M; ++m) {
        values[m] = 0;
        for (int w = 0; w < warps; ++w) values[m] += scratch[m * warps + w];
    }
    __syncthreads();  // `scratch` is free again
}

// Blocks that share a channel wait for each other, so they must all be running. Blocks therefore
// take their work in the order in which they start: whoever waits, waits for blocks that run or
// are next, and the launcher asks for fewer than the device can hold.
__device__ inline unsigned take_ticket(unsigned* tickets, double* scratch) {
    unsigned* mine = reinterpret_cast<unsigned*>(scratch);
    if (threadIdx.x == 0) *mine = atomicAdd(tickets, 1u);
    __syncthreads();
    const unsigned ticket = *mine;
    __syncthreads();
    return ticket;
}

// Publishes what thread 0 wrote before and says whether this block is the last of `expected`.
__device__ inline bool arrive(unsigned* arrivals, unsigned expected, double* scratch) {
    unsigned* before = reinterpret_cast<unsigned*>(scratch);
    __syncthreads();  // all writes of the block are done
    if (threadIdx.x == 0) {
        __threadfence();
        *before = atomicAdd(arrivals, 1u);
        __threadfence();
    }
    __syncthreads();
    const bool last = *before == expected - 1;
    __syncthreads();
    return last;
}

// As `arrive`, but returns when all `expected` blocks have arrived: their writes are visible then.
__device__ inline void meet(unsigned* arrivals, unsigned expected) {
    __syncthreads();
    if (threadIdx.x == 0) {
        __threadfence();
        atomicAdd(arrivals, 1u);
        while (atomicAdd(arrivals, 0u) < expected) doze();
        __threadfence();
    }
    __syncthreads();
}
