// One launch for many arrays. A table, passed by value, has a row for each array; `blocks` blocks
// work on each row. Each element is read once, and each result written once.

constexpr int MOST = 64;
using Address = unsigned long long;

struct Copy {
    Integer words;  // the size in units of 4 bytes
    Address from, to;
};

struct Run {
    Integer size;  // elements
    Address from;
};

struct Sum {
    Integer size;  // elements
    Address x, y, out;
    double a, b;
};

template <class Row>
struct Table {
    Row of[MOST];
};

__global__ void copy_all(Table<Copy> all, Integer blocks) {
    const Integer which = blockIdx.x / blocks, first = blockIdx.x % blocks * blockDim.x;
    const Copy& own = all.of[which];
    const unsigned* from = reinterpret_cast<const unsigned*>(own.from);
    unsigned* to = reinterpret_cast<unsigned*>(own.to);
    for (Integer i = first + threadIdx.x; i < own.words; i += blocks * blockDim.x) to[i] = from[i];
}

// out = a x + b y
template <typename T>
__global__ void axpby_all(Table<Sum> all, Integer blocks) {
    const Integer which = blockIdx.x / blocks, first = blockIdx.x % blocks * blockDim.x;
    const Sum& own = all.of[which];
    const T* x = reinterpret_cast<const T*>(own.x);
    const T* y = reinterpret_cast<const T*>(own.y);
    T* out = reinterpret_cast<T*>(own.out);
    const T a = static_cast<T>(own.a), b = static_cast<T>(own.b);
    for (Integer i = first + threadIdx.x; i < own.size; i += blocks * blockDim.x)
        out[i] = a * x[i] + b * y[i];
}

// Sets `flag`, which is 0 before, to a positive number if any element is nan or infinite.
template <typename T>
__global__ void find_nonfinite(Table<Run> all, unsigned* flag, Integer blocks) {
    const Integer which = blockIdx.x / blocks, first = blockIdx.x % blocks * blockDim.x;
    const Run& own = all.of[which];
    const T* from = reinterpret_cast<const T*>(own.from);
    bool found = false;
    for (Integer i = first + threadIdx.x; i < own.size; i += blocks * blockDim.x)
        found = found || !(from[i] - from[i] == T(0));
    if (found) atomicAdd(flag, 1u);
}

// The running statistics of C channels after one more batch: (1 - weight) old + weight new. The
// variance of the batch is multiplied by `factor` first.
template <typename T>
__global__ void track(const T* mean, const T* var, const Integer* batches, const T* new_mean,
                      const T* new_var, T* mean_out, T* var_out, Integer* batches_out, Integer c,
                      double weight, double factor) {
    const Integer i = static_cast<Integer>(blockIdx.x) * blockDim.x + threadIdx.x;
    if (i == 0) *batches_out = *batches + 1;
    if (i >= c) return;
    const T a = static_cast<T>(1 - weight), b = static_cast<T>(weight);
    const T b_var = static_cast<T>(weight * factor);
    mean_out[i] = a * mean[i] + b * new_mean[i];
    var_out[i] = a * var[i] + b_var * new_var[i];
}
