// C = A B by tiles of 64 x 64, for recorded steps, where CuPy refuses cuBLAS. Any strides, so that
// transposed operands need no copy. Where tiles are few the sum over k is cut into slices.

constexpr int TILE = 64, DEPTH = 16, EACH = 4;  // a thread computes 4 x 4 elements of a tile

// a: (M, K), b: (K, N) with strides in elements; partials: (slices, M, N). 256 threads; shared
// memory: 2 * TILE * DEPTH values.
template <class T, class Out>
__global__ void __launch_bounds__(256, 2)
matmul(const T* a, const T* b, Out* partials, Integer m, Integer n, Integer k, Integer a_row,
       Integer a_column, Integer b_row, Integer b_column, Integer length) {
    T* left = reinterpret_cast<T*>(block_memory());  // (DEPTH, TILE)
    T* right = left + DEPTH * TILE;                  // (DEPTH, TILE)
    const Integer across = (n + TILE - 1) / TILE, down = (m + TILE - 1) / TILE;
    const Integer tile = blockIdx.x % (across * down), slice = blockIdx.x / (across * down);
    const Integer row0 = tile / across * TILE, column0 = tile % across * TILE;
    const Integer end = (slice + 1) * length < k ? (slice + 1) * length : k;
    const int ty = threadIdx.x / 16, tx = threadIdx.x % 16;
    T sums[EACH][EACH] = {};
    for (Integer k0 = slice * length; k0 < end; k0 += DEPTH) {
        for (int i = threadIdx.x; i < DEPTH * TILE; i += 256) {
            // neighbouring threads read neighbouring elements, whichever way the operand lies
            const int r = a_column == 1 ? i / DEPTH : i % TILE;
            const int d = a_column == 1 ? i % DEPTH : i / TILE;
            const bool has = row0 + r < m && k0 + d < end;
            left[d * TILE + r] = has ? a[(row0 + r) * a_row + (k0 + d) * a_column] : T(0);
        }
        for (int i = threadIdx.x; i < DEPTH * TILE; i += 256) {
            const int c = b_column == 1 ? i % TILE : i / DEPTH;
            const int d = b_column == 1 ? i / TILE : i % DEPTH;
            const bool has = column0 + c < n && k0 + d < end;
            right[d * TILE + c] = has ? b[(k0 + d) * b_row + (column0 + c) * b_column] : T(0);
        }
        __syncthreads();
#pragma unroll
        for (int d = 0; d < DEPTH; ++d)
#pragma unroll
            for (int i = 0; i < EACH; ++i)
#pragma unroll
                for (int j = 0; j < EACH; ++j)
                    sums[i][j] += left[d * TILE + ty + 16 * i] * right[d * TILE + tx + 16 * j];
        __syncthreads();
    }
    for (int i = 0; i < EACH; ++i)
        for (int j = 0; j < EACH; ++j) {
            const Integer row = row0 + ty + 16 * i, column = column0 + tx + 16 * j;
            if (row < m && column < n)
                partials[(slice * m + row) * n + column] = static_cast<Out>(sums[i][j]);
        }
}
