// Many arrays copied by one launch.

constexpr int MOST = 64;

struct Copies {
    unsigned long long from[MOST], to[MOST];  // addresses of arrays
    Integer words[MOST];                      // their sizes in units of 4 bytes
};

// Each array is copied by `blocks` blocks.
__global__ void copy_all(Copies all, Integer blocks) {
    const Integer which = blockIdx.x / blocks, first = blockIdx.x % blocks * blockDim.x;
    const unsigned* from = reinterpret_cast<const unsigned*>(all.from[which]);
    unsigned* to = reinterpret_cast<unsigned*>(all.to[which]);
    for (Integer i = first + threadIdx.x; i < all.words[which]; i += blocks * blockDim.x)
        to[i] = from[i];
}
