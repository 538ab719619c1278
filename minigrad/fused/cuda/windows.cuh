// Windows that slide over images (planes, H, W); minigrad/ops/window.py defines the terms.

struct Window {
    int h, w;    // the image
    int oh, ow;  // how many windows there are, down and across
    int kh, kw;  // places in a window
    int sh, sw, ph, pw, dh, dw;  // stride, padding, dilation
};

// The place in a plane that a thread works on, in every `step`-th plane from `first` on: it
// computes once, in 32 bits, where the windows of that place lie. Planes of many places are shared
// by `parts` blocks; of planes of few places a block works on `together` at once.
struct Place {
    Integer first, step;
    int at;
    bool valid;

    __device__ Place(int places, Integer together, Integer parts) {
        const unsigned blocks = static_cast<unsigned>(parts), size = static_cast<unsigned>(places);
        const unsigned i = blockIdx.x % blocks * blockDim.x + threadIdx.x;
        first = blockIdx.x / blocks * together + i / size;
        step = gridDim.x / blocks * together;
        at = static_cast<int>(i % size);
        valid = i < together * size;
    }
};

// The windows that read input `i`, along one axis: `first` to `last`. `t` is its padded position.
struct Readers {
    int first, last, t, stride, dilation;

    __device__ Readers(int i, int outputs, int places, int s, int padding, int d)
        : t(i + padding), stride(s), dilation(d) {
        const int start = t - (places - 1) * d;
        first = start > 0 ? (start + s - 1) / s : 0;
        last = t / s < outputs ? t / s : outputs - 1;
    }

    // The place of window `o` at which it reads the input; -1 if the input lies between places.
    __device__ int place_in(int o) const {
        const int offset = t - o * stride;
        if (dilation == 1) return offset;
        return offset % dilation == 0 ? offset / dilation : -1;
    }
};
