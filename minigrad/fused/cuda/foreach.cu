// One launch for many arrays; `blocks` blocks work on each.

constexpr int MOST = 64;
using Address = unsigned long long;

struct Copies {
    Integer words[MOST];  // sizes in units of 4 bytes
    Address from[MOST], to[MOST];
};

struct Sums {
    Integer size[MOST];  // elements
    Address x[MOST], y[MOST], out[MOST];
    double a[MOST], b[MOST];
};

__global__ void copy_all(Copies all, Integer blocks) {
    const Integer which = blockIdx.x / blocks, first = blockIdx.x % blocks * blockDim.x;
    const unsigned* from = reinterpret_cast<const unsigned*>(all.from[which]);
    unsigned* to = reinterpret_cast<unsigned*>(all.to[which]);
    for (Integer i = first + threadIdx.x; i < all.words[which]; i += blocks * blockDim.x)
        to[i] = from[i];
}

// out = a x + b y
template <typename T>
__global__ void axpby_all(Sums all, Integer blocks) {
    const Integer which = blockIdx.x / blocks, first = blockIdx.x % blocks * blockDim.x;
    const T* x = reinterpret_cast<const T*>(all.x[which]);
    const T* y = reinterpret_cast<const T*>(all.y[which]);
    T* out = reinterpret_cast<T*>(all.out[which]);
    const T a = static_cast<T>(all.a[which]), b = static_cast<T>(all.b[which]);
    for (Integer i = first + threadIdx.x; i < all.size[which]; i += blocks * blockDim.x)
        out[i] = a * x[i] + b * y[i];
}
