// Logistic sigmoid. With t = e^-|x|, which never overflows: y is 1 / (1 + t) or t / (1 + t), and
// dy/dx = t / (1 + t)^2, which y (1 - y) would round to 0 in the tail. Every value is read and
// written once.

template <class T>
__device__ T sigmoid_of(T x) {
    const T t = exp(-fabs(x));
    return (x < 0 ? t : T(1)) / (1 + t);
}

template <class T>
__device__ T slope_of(T x) {
    const T t = exp(-fabs(x));
    return t / ((1 + t) * (1 + t));
}

// x, y: `size` values. A thread takes packs of V values; the first threads also take one of the
// values that are left over.
template <class T, int V>
__global__ void sigmoid_forward(const T* x, T* y, Integer size) {
    const Integer first = static_cast<Integer>(blockIdx.x) * blockDim.x + threadIdx.x;
    const Integer step = static_cast<Integer>(gridDim.x) * blockDim.x, packs = size / V;
    for (Integer i = first; i < packs; i += step) {
        Pack<T, V> pack = load<T, V>(x + i * V);
        for (int v = 0; v < V; ++v) pack.at[v] = sigmoid_of(pack.at[v]);
        store<T, V>(y + i * V, pack);
    }
    if (first < size - packs * V) y[packs * V + first] = sigmoid_of(x[packs * V + first]);
}

template <class T, int V>
__global__ void sigmoid_backward(const T* y_bar, const T* x, T* x_bar, Integer size) {
    const Integer first = static_cast<Integer>(blockIdx.x) * blockDim.x + threadIdx.x;
    const Integer step = static_cast<Integer>(gridDim.x) * blockDim.x, packs = size / V;
    for (Integer i = first; i < packs; i += step) {
        Pack<T, V> pack = load<T, V>(x + i * V);
        const Pack<T, V> bars = load<T, V>(y_bar + i * V);
        for (int v = 0; v < V; ++v) pack.at[v] = bars.at[v] * slope_of(pack.at[v]);
        store<T, V>(x_bar + i * V, pack);
    }
    const Integer i = packs * V + first;
    if (first < size - packs * V) x_bar[i] = y_bar[i] * slope_of(x[i]);
}
