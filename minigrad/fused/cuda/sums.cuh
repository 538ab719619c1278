// The columns of a matrix of doubles, summed: the second stage of sums that blocks began.

// partials: (rows, columns); sums: (columns,). A block sums 32 columns; its warps share the rows
// and are added in their order. Shared memory: a double per thread.
template <class T>
__global__ void sum_rows(const double* partials, T* sums, Integer rows, Integer columns) {
    double* scratch = reinterpret_cast<double*>(block_memory());
    const Columns<double> own(Shape{rows, columns, 1, 1, rows}, blockIdx.x, scratch);
    double total[1] = {0};
    for (Integer row = own.rank; row < own.count; row += own.ranks)
        total[0] += partials[row * columns + own.channel];
    own.sum(total);
    if (own.rank == 0 && own.valid) sums[own.channel] = static_cast<T>(total[0]);
}
