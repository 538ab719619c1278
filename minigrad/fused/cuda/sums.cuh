// Adds up partial sums, a row from each block of another kernel, in double.

// partials: (rows, columns); sums: (columns,). A block sums 8 columns, so that many blocks read at
// once; its threads share the rows. Always in the same order. Shared memory: a double per thread.
template <class T>
__global__ void sum_rows(const double* __restrict__ partials, T* __restrict__ sums, Integer rows,
                         Integer columns) {
    double* scratch = reinterpret_cast<double*>(block_memory());
    const Integer column = static_cast<Integer>(blockIdx.x) * 8 + threadIdx.x % 8;
    const int ranks = blockDim.x / 8;
    double total = 0;
    for (Integer row = threadIdx.x / 8; row < rows; row += 8 * ranks) {
        double values[8];  // loaded together, to wait for memory once
#pragma unroll
        for (int u = 0; u < 8; ++u) {
            const bool has = row + u * ranks < rows && column < columns;
            values[u] = has ? partials[(row + u * ranks) * columns + column] : 0;
        }
#pragma unroll
        for (int u = 0; u < 8; ++u) total += values[u];
    }
    scratch[threadIdx.x] = total;
    __syncthreads();
    if (threadIdx.x >= 8 || column >= columns) return;
    total = 0;
#pragma unroll 8
    for (int rank = 0; rank < ranks; ++rank) total += scratch[rank * 8 + threadIdx.x];
    sums[column] = static_cast<T>(total);
}
