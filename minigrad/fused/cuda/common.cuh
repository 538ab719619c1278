// Used by all kernels: shared memory, packs of values, sums over a block, and slots in which blocks
// leave numbers for each other.
//
// The text is CUDA C++17 without headers. It also compiles as plain C++20 if MINIGRAD_HOST is
// defined and a header supplies CUDA's names (threadIdx, __syncthreads, ...). This is how the tests
// run it on the CPU.

using Integer = long long;  // the type in which the launcher passes integers
using Slot = unsigned long long;

#ifndef MINIGRAD_HOST
__device__ inline char* block_memory() {
    extern __shared__ __align__(16) char pool[];  // aligned for packs
    return pool;
}
__device__ inline void back_off() { __nanosleep(32); }
__device__ inline Slot bits_of(double value) { return __double_as_longlong(value); }
__device__ inline double number_of(Slot bits) { return __longlong_as_double(bits); }
// Access to memory that other blocks write and read at the same time.
__device__ inline Slot peek(const Slot* slot) { return *static_cast<const volatile Slot*>(slot); }
__device__ inline void put(Slot* slot, Slot bits) { *static_cast<volatile Slot*>(slot) = bits; }

// Starts a copy to shared memory; `await_copies` waits for all that this thread has started.
template <class P>
__device__ inline void copy_async(P* to, const P* from) {
#if __CUDA_ARCH__ >= 800
    const unsigned address = static_cast<unsigned>(__cvta_generic_to_shared(to));
    if constexpr (sizeof(P) == 16)
        asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(address), "l"(from)
                     : "memory");
    else
        asm volatile("cp.async.ca.shared.global [%0], [%1], %2;" ::"r"(address), "l"(from),
                     "n"(sizeof(P))
                     : "memory");
#else
    *to = *from;
#endif
}
__device__ inline void await_copies() {
#if __CUDA_ARCH__ >= 800
    asm volatile("cp.async.wait_all;" ::: "memory");
#endif
}
#endif

// N consecutive values that one instruction moves; the address must be a multiple of their size.
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

// Constants, without the headers that have names for them.
template <class T>
__device__ inline T minus_infinity() {
    return log(T(0));
}

template <class T>
__device__ inline T not_a_number() {
    return sqrt(T(-1));
}

// Sums each value over all threads of a block of whole warps; thread 0 gets the sums. The order of
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
    if (threadIdx.x == 0)
        for (int w = 1; w < warps; ++w)
            for (int m = 0; m < M; ++m) values[m] += scratch[m * warps + w];
    __syncthreads();  // `scratch` is free again
}

// Blocks pass numbers to each other in slots, which start as 0. A number is stored as the
// complement of its bits, and every nan with the same bits, so that no number is stored as 0. The
// slot itself thus shows whether it was written, and no memory fence is needed.
__device__ inline void publish(Slot* slot, double value) {
    put(slot, ~bits_of(value == value ? value : not_a_number<double>()));
}

// Reads M numbers from slots, and waits until all are written.
template <int M>
__device__ inline void await(const Slot* const (&slots)[M], double (&values)[M]) {
    for (bool is_waiting = true; is_waiting;) {
        is_waiting = false;
        for (int m = 0; m < M; ++m) {
            const Slot bits = peek(slots[m]);
            values[m] = number_of(~bits);
            is_waiting |= bits == 0;
        }
        if (is_waiting) back_off();
    }
}
