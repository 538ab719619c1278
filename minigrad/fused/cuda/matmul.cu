// C = A B by tiles, for small products, and for recorded steps, where CuPy refuses cuBLAS. Any
// strides, so that transposed operands need no copy.
//
// A block computes one tile of C. It walks along k in steps of DEPTH: the rows of A and the columns
// of B in this step are copied to shared memory, and those of the next step are loaded into
// registers meanwhile. A small product has small tiles, so that more multiprocessors take part; if
// they are still too few and k is long, the sum over k is cut into slices, each for other blocks,
// which sum_rows adds in double. Within a slice sums have the type of the operands.
//
// A tile has SIDE x SIDE threads, each with 4 x 4 elements. If these are fewer than 256 threads,
// several such groups share a tile: each sums over its share of the DEPTH places. In shared memory
// places along k are adjacent, and are read 16 bytes at a time.
constexpr int THREADS = 256, EACH = 4;

template <class T, int SIDE>
struct Sizes {
    static constexpr int TILE = EACH * SIDE, GROUPS = THREADS / (SIDE * SIDE);
    static constexpr int DEPTH = GROUPS > 1 ? 128 : 16, SHARE = DEPTH / GROUPS;
    static constexpr int PACK = 16 / sizeof(T);
    static constexpr int ROW = DEPTH + (GROUPS > 1 ? 2 : 1) * PACK;  // padded, for other banks
    static constexpr int VALUES = TILE * DEPTH / THREADS;  // of an operand, copied by a thread
};

// The values of an operand, (rows, k), that a thread copies to shared memory in each step.
template <class T, int SIDE>
struct Operand {
    using S = Sizes<T, SIDE>;
    const T* at;
    Integer step, next;            // to its next value, and to the next step
    int row, d, step_row, step_d;  // where its values lie in the tile
    int rows, ones_row;            // how many rows of the tile exist; the row of ones, or -1
    T values[S::VALUES];

    __device__ Operand(const T* from, Integer all_rows, bool ones, Integer row0, Integer k0,
                       Integer stride, Integer stride_k) {
        // neighbouring threads read neighbouring elements, whichever way the operand lies
        const bool along = stride_k == 1;
        row = along ? threadIdx.x / S::DEPTH : threadIdx.x % S::TILE;
        d = along ? threadIdx.x % S::DEPTH : threadIdx.x / S::TILE;
        step_row = along ? THREADS / S::DEPTH : 0;
        step_d = along ? 0 : THREADS / S::TILE;
        rows = static_cast<int>(all_rows - row0 < S::TILE ? all_rows - row0 : S::TILE);
        ones_row = ones ? rows : -1;
        at = from + (row0 + row) * stride + (k0 + d) * stride_k;
        step = step_row * stride + step_d * stride_k;
        next = S::DEPTH * stride_k;
    }

    // Loads the values of the next step; `left` places along k are left.
    __device__ void fetch(Integer left) {
        const int depth = static_cast<int>(left < S::DEPTH ? left : S::DEPTH);
        const T* from = at;
#pragma unroll
        for (int i = 0; i < S::VALUES; ++i, from += step)
            if (d + i * step_d < depth && row + i * step_row < rows)
                values[i] = *from;
            else
                values[i] = d + i * step_d < depth && row + i * step_row == ones_row ? T(1) : T(0);
        at += next;
    }

    __device__ void put(T* tile) const {
#pragma unroll
        for (int i = 0; i < S::VALUES; ++i)
            tile[(row + i * step_row) * S::ROW + d + i * step_d] = values[i];
    }
};

// a: (M, K), b: (K, N) with strides in elements; bias: (N,), added to each row where the product is
// `biased`; partials: (slices, M * N), and with `ones` M more: the sums of the rows of a, as if b
// had one more column, of ones. 256 threads; shared memory: 2 * TILE * ROW values.
template <class T, class Out, int SIDE>
__global__ void __launch_bounds__(THREADS, 2)
matmul(const T* __restrict__ a, const T* __restrict__ b, const T* __restrict__ bias,
       Out* __restrict__ partials, Integer m, Integer n, Integer k, Integer a_row, Integer a_column,
       Integer b_row, Integer b_column, Integer length, Integer biased, Integer ones) {
    using S = Sizes<T, SIDE>;
    T* left = reinterpret_cast<T*>(block_memory());  // (TILE, ROW)
    T* right = left + S::TILE * S::ROW;              // (TILE, ROW)
    const unsigned across = static_cast<unsigned>((n + ones + S::TILE - 1) / S::TILE);
    const unsigned tiles = static_cast<unsigned>((m + S::TILE - 1) / S::TILE) * across;
    const unsigned tile = blockIdx.x % tiles;
    const Integer slice = blockIdx.x / tiles, first = slice * length;
    const Integer row0 = tile / across * S::TILE, column0 = tile % across * S::TILE;
    const int ty = threadIdx.x / SIDE % SIDE, tx = threadIdx.x % SIDE;
    const int group = threadIdx.x / (SIDE * SIDE);
    Operand<T, SIDE> rows(a, m, false, row0, first, a_row, a_column);
    Operand<T, SIDE> columns(b, n, ones > 0, column0, first, b_column, b_row);
    T sums[EACH][EACH] = {};
    Integer rest = (first + length < k ? first + length : k) - first;
    rows.fetch(rest);
    columns.fetch(rest);
    for (; rest > 0; rest -= S::DEPTH) {
        rows.put(left);
        columns.put(right);
        __syncthreads();
        rows.fetch(rest - S::DEPTH);  // arrives while this step is computed
        columns.fetch(rest - S::DEPTH);
#pragma unroll 1
        for (int d = 0; d < S::SHARE; d += S::PACK) {  // not unrolled: registers are scarce
            const int place = group * S::SHARE + d;
            Pack<T, S::PACK> x[EACH], y[EACH];
#pragma unroll
            for (int i = 0; i < EACH; ++i) {
                x[i] = load<T, S::PACK>(left + (ty + SIDE * i) * S::ROW + place);
                y[i] = load<T, S::PACK>(right + (tx + SIDE * i) * S::ROW + place);
            }
#pragma unroll
            for (int v = 0; v < S::PACK; ++v)
#pragma unroll
                for (int i = 0; i < EACH; ++i)
#pragma unroll
                    for (int j = 0; j < EACH; ++j) sums[i][j] += x[i].at[v] * y[j].at[v];
        }
        __syncthreads();  // this step is used up
    }
    Out* out = partials + slice * m * (n + ones);
    const auto write = [&](Integer row, Integer column, T sum) {
        if (row >= m || column >= n + ones) return;
        if (biased && slice == 0) sum += bias[column];
        out[column < n ? row * n + column : m * n + row] = static_cast<Out>(sum);
    };
    if (S::GROUPS == 1) {
#pragma unroll
        for (int i = 0; i < EACH; ++i)
#pragma unroll
            for (int j = 0; j < EACH; ++j)
                write(row0 + ty + SIDE * i, column0 + tx + SIDE * j, sums[i][j]);
        return;
    }
    // adds the two groups of a warp, then the warps in order; the tile has 256 elements
    T* tiles_of_warps = left;
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
#pragma unroll
    for (int i = 0; i < EACH; ++i)
#pragma unroll
        for (int j = 0; j < EACH; ++j) {
            const T sum = sums[i][j] + __shfl_xor_sync(0xffffffffu, sums[i][j], 16);
            const int element = (ty + SIDE * i) * S::TILE + tx + SIDE * j;
            if (lane < 16) tiles_of_warps[warp * THREADS + element] = sum;
        }
    __syncthreads();
    T sum = 0;
#pragma unroll
    for (int w = 0; w < THREADS / 32; ++w) sum += tiles_of_warps[w * THREADS + threadIdx.x];
    write(row0 + threadIdx.x / S::TILE, column0 + threadIdx.x % S::TILE, sum);
}
