// Softmax and cross entropy: mean over the rows of log(sum_j e^x_j) - x_label, and its backward.
//
// Forward: a warp per row reads it for its maximum and again for the sum of exponentials, in the
// type of the logits; then one block averages the losses in double. Backward: a thread per logit.
//
// Labels are not copied to the host for a check: one outside of 0 .. K - 1 makes its row, and so
// the loss, nan.

template <class T>
__device__ T warp_max(T value) {
    for (int lane = 16; lane > 0; lane /= 2) {
        const T other = __shfl_xor_sync(0xffffffffu, value, lane);
        value = other > value || other != other ? other : value;  // nan wins
    }
    return value;
}

template <class T>
__device__ T warp_sum(T value) {
    for (int lane = 16; lane > 0; lane /= 2)
        value += __shfl_xor_sync(0xffffffffu, value, lane);
    return value;
}

// logits: (N, K), labels: (N,); rows: (N, 2), the maximum and log(sum_j e^(x_j - maximum)); losses:
// (N,).
template <class T, class I>
__global__ void cross_entropy_rows(const T* logits, const I* labels, T* rows, double* losses,
                                   Integer n, Integer k) {
    const Integer warps = static_cast<Integer>(gridDim.x) * (blockDim.x / 32);
    const Integer first = static_cast<Integer>(blockIdx.x) * (blockDim.x / 32) + threadIdx.x / 32;
    const int lane = threadIdx.x % 32;
    for (Integer row = first; row < n; row += warps) {
        const T* x = logits + row * k;
        T top = x[lane < k ? lane : 0];
        for (Integer j = lane; j < k; j += 32) top = x[j] > top || x[j] != x[j] ? x[j] : top;
        top = warp_max(top);
        T sum = 0;
        for (Integer j = lane; j < k; j += 32) sum += exp(x[j] - top);
        const T logarithm = log(warp_sum(sum));
        if (lane > 0) continue;
        const Integer label = static_cast<Integer>(labels[row]);
        rows[2 * row] = top;
        rows[2 * row + 1] = logarithm;
        losses[row] = 0 <= label && label < k ? static_cast<double>((top - x[label]) + logarithm)
                                              : not_a_number<double>();
    }
}

// loss: a scalar. One block; shared memory: a double per warp.
template <class T>
__global__ void cross_entropy_mean(const double* losses, T* loss, Integer n) {
    double sum[1] = {0};
    for (Integer i = threadIdx.x; i < n; i += blockDim.x) sum[0] += losses[i];
    block_sum<1>(sum, reinterpret_cast<double*>(block_memory()));
    if (threadIdx.x == 0) *loss = static_cast<T>(sum[0] / static_cast<double>(n));
}

// y_bar: a scalar, the cotangent of the loss.
template <class T, class I>
__global__ void cross_entropy_backward(const T* y_bar, const T* logits, const I* labels,
                                       const T* rows, T* logits_bar, Integer n, Integer k) {
    const Integer size = n * k, step = static_cast<Integer>(gridDim.x) * blockDim.x;
    const T scale = *y_bar / static_cast<T>(n);
    for (Integer i = static_cast<Integer>(blockIdx.x) * blockDim.x + threadIdx.x; i < size;
         i += step) {
        const Integer row = i / k, label = static_cast<Integer>(labels[row]);
        const T p = exp((logits[i] - rows[2 * row]) - rows[2 * row + 1]);
        const bool known = 0 <= label && label < k;
        logits_bar[i] = known ? (p - (i % k == label ? T(1) : T(0))) * scale : not_a_number<T>();
    }
}

// right: in how many rows the largest logit, the first of equal ones, is at the label; nan counts
// as the largest. One block, a row per thread; shared memory: a double per warp.
template <class T, class I>
__global__ void count_right(const T* logits, const I* labels, Integer* right, Integer n,
                            Integer k) {
    double count[1] = {0};
    for (Integer row = threadIdx.x; row < n; row += blockDim.x) {
        const T* x = logits + row * k;
        Integer best = 0;
        for (Integer j = 1; j < k && x[best] == x[best]; ++j)
            if (x[j] > x[best] || x[j] != x[j]) best = j;
        if (best == static_cast<Integer>(labels[row])) count[0] += 1;
    }
    block_sum<1>(count, reinterpret_cast<double*>(block_memory()));
    if (threadIdx.x == 0) *right = static_cast<Integer>(count[0]);
}
