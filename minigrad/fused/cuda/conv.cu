// Direct convolution of small images: a block holds the planes it needs in shared memory, and each
// thread computes one place for 8 channels at once, so that a value is read once for 8 products.
// Larger images go through im2col and cuBLAS.

constexpr int CHANNELS = 8;

struct Conv {
    int n, c, a, groups, biased;  // images, input and output channels; whether there is a bias
    Window at;
};

// Which 8 of `channels` channels per group are those of `tile`.
struct Tile {
    int group, first, count;

    __device__ Tile(int tile, int groups, int channels) {
        const int per_group = (channels / groups + CHANNELS - 1) / CHANNELS;
        group = tile / per_group;
        const int inside = tile % per_group * CHANNELS, rest = channels / groups - inside;
        first = group * (channels / groups) + inside;
        count = rest < CHANNELS ? rest : CHANNELS;
    }
};

// Adds `value` times each of the 8 numbers at `from`, which is aligned: shared memory begins with
// groups of 8, so that two instructions read what eight would.
template <class T>
__device__ void add_products(T (&sums)[CHANNELS], T value, const T* from) {
    constexpr int width = 16 / sizeof(T);
#pragma unroll
    for (int a = 0; a < CHANNELS; a += width) {
        const Pack<T, width> pack = load<T, width>(from + a);
#pragma unroll
        for (int v = 0; v < width; ++v) sums[a + v] += value * pack.at[v];
    }
}

template <class T>
__device__ void copy(const T* from, T* to, int size) {
    for (int i = threadIdx.x; i < size; i += blockDim.x) to[i] = from[i];
}

// x: (N, C, H, W), w: (A, C / groups, KH, KW), b: (A,), y: (N, A, OH, OW). A block computes one
// tile of output channels for every `slices`-th image.
template <class T>
__global__ void conv_forward(const T* x, const T* w, const T* b, T* y, Conv g, Integer tiles,
                             Integer slices) {
    const Tile tile(static_cast<int>(blockIdx.x % tiles), g.groups, g.a);
    const int channels = g.c / g.groups, places = g.at.kh * g.at.kw, taps = channels * places;
    const int inputs = channels * g.at.h * g.at.w, outputs = g.at.oh * g.at.ow;
    T* weights = reinterpret_cast<T*>(block_memory());  // (taps, CHANNELS)
    T* image = weights + taps * CHANNELS;
    for (int i = threadIdx.x; i < taps * CHANNELS; i += blockDim.x) {
        const int a = i % CHANNELS;
        weights[i] = a < tile.count ? w[(tile.first + a) * taps + i / CHANNELS] : T(0);
    }
    for (Integer n = blockIdx.x / tiles; n < g.n; n += slices) {
        __syncthreads();  // the image before is used up
        copy(x + (n * g.groups + tile.group) * inputs, image, inputs);
        __syncthreads();
        for (int o = threadIdx.x; o < outputs; o += blockDim.x) {
            T sums[CHANNELS] = {};
            const int top = o / g.at.ow * g.at.sh - g.at.ph;
            const int left = o % g.at.ow * g.at.sw - g.at.pw;
            const T* weight = weights;
            for (int c = 0; c < channels; ++c) {
                for (int ky = 0; ky < g.at.kh; ++ky) {
                    const int iy = top + ky * g.at.dh;
                    const bool has_row = iy >= 0 && iy < g.at.h;
                    const T* row = image + (c * g.at.h + iy) * g.at.w;
                    for (int kx = 0; kx < g.at.kw; ++kx, weight += CHANNELS) {
                        const int ix = left + kx * g.at.dw;
                        if (has_row && ix >= 0 && ix < g.at.w) add_products(sums, row[ix], weight);
                    }
                }
            }
            for (int a = 0; a < tile.count; ++a)
                y[(n * g.a + tile.first + a) * outputs + o] =
                    g.biased ? sums[a] + b[tile.first + a] : sums[a];
        }
    }
}

// The cotangent of x: a block computes one tile of input channels for every `slices`-th image.
template <class T>
__global__ void conv_backward_x(const T* y_bar, const T* w, T* x_bar, Conv g, Integer tiles,
                                Integer slices) {
    const Tile tile(static_cast<int>(blockIdx.x % tiles), g.groups, g.c);
    const int channels = g.c / g.groups, kernels = g.a / g.groups;
    const int places = g.at.kh * g.at.kw, taps = kernels * places;
    const int inputs = g.at.h * g.at.w, outputs = g.at.oh * g.at.ow;
    T* weights = reinterpret_cast<T*>(block_memory());  // (taps, CHANNELS)
    T* bars = weights + taps * CHANNELS;
    const T* own = w + static_cast<Integer>(tile.group) * kernels * channels * places;
    for (int i = threadIdx.x; i < taps * CHANNELS; i += blockDim.x) {
        const int tap = i / CHANNELS, c = tile.first % channels + i % CHANNELS;
        weights[i] = i % CHANNELS < tile.count
                         ? own[(tap / places * channels + c) * places + tap % places]
                         : T(0);
    }
    for (Integer n = blockIdx.x / tiles; n < g.n; n += slices) {
        __syncthreads();
        copy(y_bar + (n * g.groups + tile.group) * kernels * outputs, bars, kernels * outputs);
        __syncthreads();
        for (int i = threadIdx.x; i < inputs; i += blockDim.x) {
            T sums[CHANNELS] = {};
            const int iy = i / g.at.w, ix = i % g.at.w;
            for (int ky = 0; ky < g.at.kh; ++ky) {
                const int oy = row_of(g.at, iy, ky);
                for (int kx = 0; oy >= 0 && kx < g.at.kw; ++kx) {
                    const int ox = column_of(g.at, ix, kx);
                    const T* bar = bars + oy * g.at.ow + ox;
                    const T* weight = weights + (ky * g.at.kw + kx) * CHANNELS;
                    for (int a = 0; ox >= 0 && a < kernels; ++a)
                        add_products(sums, bar[a * outputs], weight + a * places * CHANNELS);
                }
            }
            for (int c = 0; c < tile.count; ++c)
                x_bar[(n * g.c + tile.first + c) * inputs + i] = sums[c];
        }
    }
}

// The cotangent of w, first stage: partials (slices, A, C / groups * KH * KW). A block takes one
// tile of output channels, some taps and every `slices`-th image; its threads are those taps times
// `parts` shares of the outputs. Sums over one image are of type T, over images double.
template <class T>
__global__ void conv_backward_w(const T* y_bar, const T* x, double* partials, Conv g,
                                Integer tiles, Integer chunks, Integer slices,
                                Integer taps_per_block) {
    const int width = static_cast<int>(taps_per_block);
    const int which = static_cast<int>(blockIdx.x % (tiles * chunks));
    const Tile tile(static_cast<int>(which % tiles), g.groups, g.a);
    const int channels = g.c / g.groups, places = g.at.kh * g.at.kw, taps = channels * places;
    const int inputs = channels * g.at.h * g.at.w, outputs = g.at.oh * g.at.ow;
    const int lane = threadIdx.x % width, part = threadIdx.x / width, parts = blockDim.x / width;
    const int tap = static_cast<int>(which / tiles) * width + lane, k = tap % places;
    const int dy = k / g.at.kw * g.at.dh - g.at.ph, dx = k % g.at.kw * g.at.dw - g.at.pw;
    const int step_y = parts / g.at.ow, step_x = parts % g.at.ow;
    const bool works = tap < taps && part < parts;
    T* bars = reinterpret_cast<T*>(block_memory());  // (outputs, CHANNELS)
    T* image = bars + outputs * CHANNELS;
    const Integer slice = blockIdx.x / (tiles * chunks);
    double totals[CHANNELS] = {};
    for (Integer n = slice; n < g.n; n += slices) {
        __syncthreads();
        copy(x + (n * g.groups + tile.group) * inputs, image, inputs);
        for (int i = threadIdx.x; i < outputs * CHANNELS; i += blockDim.x) {
            const int a = i % CHANNELS;
            const Integer plane = n * g.a + tile.first + a;
            bars[i] = a < tile.count ? y_bar[plane * outputs + i / CHANNELS] : T(0);
        }
        __syncthreads();
        T sums[CHANNELS] = {};
        const T* own = image + tap / places * g.at.h * g.at.w;  // not read where tap >= taps
        int oy = part / g.at.ow, ox = part % g.at.ow;
        for (int o = part; works && o < outputs; o += parts) {
            const int iy = oy * g.at.sh + dy, ix = ox * g.at.sw + dx;
            if (iy >= 0 && iy < g.at.h && ix >= 0 && ix < g.at.w)
                add_products(sums, own[iy * g.at.w + ix], bars + o * CHANNELS);
            oy += step_y;
            ox += step_x;
            if (ox >= g.at.ow) {
                ox -= g.at.ow;
                ++oy;
            }
        }
        for (int a = 0; a < CHANNELS; ++a) totals[a] += sums[a];
    }
    __syncthreads();  // the memory of images serves for the sums over the parts
    double* shared = reinterpret_cast<double*>(block_memory());
    for (int a = 0; a < CHANNELS; ++a) shared[threadIdx.x * CHANNELS + a] = totals[a];
    __syncthreads();
    if (part > 0 || tap >= taps) return;
    for (int a = 0; a < tile.count; ++a) {
        double total = 0;
        for (int p = 0; p < parts; ++p) total += shared[(p * width + lane) * CHANNELS + a];
        partials[(slice * g.a + tile.first + a) * taps + tap] = total;
    }
}
