// Direct convolution of small images. Larger images go through im2col and cuBLAS.
//
// A block computes a tile of 8 channels of some of the images, one image after another, which it
// copies to shared memory. Reading shared memory takes longer than multiplying. So a thread keeps
// the sums of 8 channels at one or two places (or taps) in registers: a value that it has read
// serves 8 products, and the 8 weights serve each place.
//
// A sum over one image has the type of the arrays. The cotangents of the weights are sums over the
// images, too: a block adds those of its images in double, and sum_rows adds the blocks.

constexpr int CHANNELS = 8;

struct Conv {
    int n, c, a, groups, biased;  // images, input and output channels; whether there is a bias
    Window at;
};

// A tile: up to 8 neighbouring channels of one group, where `groups` groups share `channels`.
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

// Adds to sums[p] the product of values[p] with each of the 8 numbers at `from`. These start at a
// multiple of 16 bytes, so that they are loaded as packs.
template <int P, class T>
__device__ void add_products(T (&sums)[P][CHANNELS], const T (&values)[P], const T* from) {
    constexpr int width = 16 / sizeof(T);
#pragma unroll
    for (int a = 0; a < CHANNELS; a += width) {
        const Pack<T, width> pack = load<T, width>(from + a);
#pragma unroll
        for (int p = 0; p < P; ++p)
#pragma unroll
            for (int v = 0; v < width; ++v) sums[p][a + v] += values[p] * pack.at[v];
    }
}

// Calls write(i, read(i)) for all i < size. A thread reads four values before it writes them, to
// wait for memory once.
template <class Read, class Write>
__device__ void copy(int size, Read read, Write write) {
    const int step = static_cast<int>(blockDim.x);
    for (int first = threadIdx.x; first < size; first += 4 * step) {
        decltype(read(0)) values[4];
#pragma unroll
        for (int u = 0; u < 4; ++u)
            values[u] = read(first + u * step < size ? first + u * step : first);
#pragma unroll
        for (int u = 0; u < 4; ++u)
            if (first + u * step < size) write(first + u * step, values[u]);
    }
}

// Copies `size` values to shared memory, 16 bytes at a time if they are aligned.
template <class T>
__device__ void copy_values(const T* from, T* to, int size) {
    constexpr int pack = 16 / sizeof(T);
    if (size % pack == 0 && reinterpret_cast<unsigned long long>(from) % 16 == 0)
        copy(size / pack, [&](int i) { return load<T, pack>(from + i * pack); },
             [&](int i, const Pack<T, pack>& values) { store<T, pack>(to + i * pack, values); });
    else
        copy(size, [&](int i) { return from[i]; }, [&](int i, T value) { to[i] = value; });
}

// Copies `planes` planes with borders of zeros, so that windows need not be checked against edges.
template <class T>
__device__ void copy_padded(const T* from, T* to, int planes, const Window& g) {
    const int w = g.w + 2 * g.pw, h = g.h + 2 * g.ph, size = planes * h * w;
    if (g.ph == 0 && g.pw == 0) return copy_values(from, to, size);
    const auto read = [&](int i) {
        const int y = i / w % h - g.ph, x = i % w - g.pw;
        const bool inside = y >= 0 && y < g.h && x >= 0 && x < g.w;
        return inside ? from[(i / (h * w) * g.h + y) * g.w + x] : T(0);
    };
    copy(size, read, [&](int i, T value) { to[i] = value; });
}

// Adds to sums[0] and sums[1] the products of the weights with the windows whose corners are `one`
// and `other`, over all channels. KW: the width of the windows if it is known at compile time, else
// 0.
template <int KW, class T>
__device__ void add_windows(T (&sums)[2][CHANNELS], const T* one, const T* other, const T* weight,
                            int channels, const Window& g, int plane, int width) {
    const int kw = KW > 0 ? KW : g.kw;
    for (int c = 0; c < channels; ++c)
        for (int ky = 0; ky < g.kh; ++ky) {
            const int row = c * plane + ky * g.dh * width;
#pragma unroll
            for (int kx = 0; kx < kw; ++kx, weight += CHANNELS) {
                const T values[2] = {one[row + kx * g.dw], other[row + kx * g.dw]};
                add_products<2>(sums, values, weight);
            }
        }
}

// x: (N, C, H, W), w: (A, C / groups, KH, KW), b: (A,), y: (N, A, OH, OW). A block computes one
// tile of output channels for every `slices`-th image, a thread two places at once.
template <class T>
__global__ void __launch_bounds__(512, 1)
conv_forward(const T* __restrict__ x, const T* __restrict__ w, const T* __restrict__ b,
             T* __restrict__ y, Conv g, Integer tiles, Integer slices) {
    const Tile tile(static_cast<int>(blockIdx.x % static_cast<unsigned>(tiles)), g.groups, g.a);
    const int channels = g.c / g.groups, taps = channels * g.at.kh * g.at.kw;
    const int inputs = channels * g.at.h * g.at.w, outputs = g.at.oh * g.at.ow;
    const int width = g.at.w + 2 * g.at.pw, plane = (g.at.h + 2 * g.at.ph) * width;
    T* weights = reinterpret_cast<T*>(block_memory());  // (taps, CHANNELS)
    T* biases = weights + taps * CHANNELS;
    T* image = biases + CHANNELS;
    const T* kernels = w + static_cast<Integer>(tile.first) * taps;
    const auto read = [&](int i) {
        const int a = i - CHANNELS * taps;
        if (i < tile.count * taps) return kernels[i];
        return g.biased && a >= 0 && a < tile.count ? b[tile.first + a] : T(0);
    };
    copy(CHANNELS * (taps + 1), read, [&](int i, T value) {
        weights[i < CHANNELS * taps ? i % taps * CHANNELS + i / taps : i] = value;
    });
    const auto corner = [&](int o) {
        return image + o / g.at.ow * g.at.sh * width + o % g.at.ow * g.at.sw;
    };
    for (Integer n = blockIdx.x / static_cast<unsigned>(tiles); n < g.n; n += slices) {
        __syncthreads();  // the image before is used up
        copy_padded(x + (n * g.groups + tile.group) * inputs, image, channels, g.at);
        __syncthreads();
        for (int o = threadIdx.x; o < outputs; o += 2 * blockDim.x) {
            const int other = o + static_cast<int>(blockDim.x) < outputs ? o + blockDim.x : o;
            T sums[2][CHANNELS];
            for (int a = 0; a < CHANNELS; ++a) sums[0][a] = sums[1][a] = biases[a];
            const auto sum_windows = [&](auto add) {
                add(sums, corner(o), corner(other), weights, channels, g.at, plane, width);
            };
            if (g.at.kw == 5)
                sum_windows(add_windows<5, T>);
            else if (g.at.kw == 3)
                sum_windows(add_windows<3, T>);
            else
                sum_windows(add_windows<0, T>);
            T* own = y + (n * g.a + tile.first) * outputs;
#pragma unroll
            for (int a = 0; a < CHANNELS; ++a, own += outputs) {
                if (a >= tile.count) break;
                own[o] = sums[0][a];
                own[other] = sums[1][a];
            }
        }
    }
}

// The cotangent of x: a block computes one tile of input channels for every `slices`-th image.
template <class T>
__global__ void __launch_bounds__(512)
conv_backward_x(const T* __restrict__ y_bar, const T* __restrict__ w, T* __restrict__ x_bar,
                Conv g, Integer tiles, Integer slices) {
    const int index = static_cast<int>(blockIdx.x % static_cast<unsigned>(tiles));
    const Tile tile(index, g.groups, g.c);
    const int channels = g.c / g.groups, kernels = g.a / g.groups, places = g.at.kh * g.at.kw;
    const int inputs = g.at.h * g.at.w, outputs = g.at.oh * g.at.ow;
    T* weights = reinterpret_cast<T*>(block_memory());  // (kernels, places, CHANNELS)
    T* bars = weights + kernels * places * CHANNELS;    // (kernels, outputs)
    const T* own = w + static_cast<Integer>(tile.group) * kernels * channels * places;
    const auto read = [&](int i) {
        const int tap = i / CHANNELS, c = tile.first % channels + i % CHANNELS;
        const bool inside = i % CHANNELS < tile.count;
        return inside ? own[(tap / places * channels + c) * places + tap % places] : T(0);
    };
    copy(kernels * places * CHANNELS, read, [&](int i, T value) { weights[i] = value; });
    for (Integer n = blockIdx.x / static_cast<unsigned>(tiles); n < g.n; n += slices) {
        const T* from = y_bar + (n * g.groups + tile.group) * kernels * outputs;
        __syncthreads();  // the cotangents before are used up
        copy_values(from, bars, kernels * outputs);
        __syncthreads();
        for (int i = threadIdx.x; i < inputs; i += blockDim.x) {
            const Readers rows(i / g.at.w, g.at.oh, g.at.kh, g.at.sh, g.at.ph, g.at.dh);
            const Readers columns(i % g.at.w, g.at.ow, g.at.kw, g.at.sw, g.at.pw, g.at.dw);
            T sums[1][CHANNELS] = {};
            for (int oy = rows.last; oy >= rows.first; --oy)
                for (int ox = columns.last; ox >= columns.first; --ox) {
                    const int ky = rows.place_in(oy), kx = columns.place_in(ox);
                    if (ky < 0 || kx < 0) continue;
                    const T* bar = bars + oy * g.at.ow + ox;
                    const T* weight = weights + (ky * g.at.kw + kx) * CHANNELS;
                    for (int a = 0; a < kernels; ++a)
                        add_products<1>(sums, {bar[a * outputs]}, weight + a * places * CHANNELS);
                }
            for (int c = 0; c < tile.count; ++c)
                x_bar[(n * g.c + tile.first + c) * inputs + i] = sums[0][c];
        }
    }
}

// The cotangents of w and b, first stage: partials (slices, A * C / groups * KH * KW + A). b is the
// weight of one more tap, which reads ones. A block takes one tile of output channels, some taps
// and every `slices`-th image; a thread takes two of these taps, `lanes` apart, and one of `parts`
// shares of the outputs.
template <class T>
__global__ void __launch_bounds__(256, 3)
conv_backward_w(const T* __restrict__ y_bar, const T* __restrict__ x,
                double* __restrict__ partials, Conv g, Integer tiles, Integer chunks,
                Integer slices, Integer taps_per_block) {
    const int lanes = static_cast<int>(taps_per_block) / 2;
    const unsigned blocks = static_cast<unsigned>(tiles * chunks);
    const int index = static_cast<int>(blockIdx.x % blocks);
    const Tile tile(index % static_cast<int>(tiles), g.groups, g.a);
    const int channels = g.c / g.groups, places = g.at.kh * g.at.kw, taps = channels * places;
    const int inputs = channels * g.at.h * g.at.w, outputs = g.at.oh * g.at.ow;
    const int width = g.at.w + 2 * g.at.pw, plane = (g.at.h + 2 * g.at.ph) * width;
    const int lane = threadIdx.x % lanes, part = threadIdx.x / lanes, parts = blockDim.x / lanes;
    const int first = index / static_cast<int>(tiles) * 2 * lanes;
    const int step_y = parts / g.at.ow, step_x = parts % g.at.ow;
    T* bars = reinterpret_cast<T*>(block_memory());  // (outputs, CHANNELS)
    T* image = bars + outputs * CHANNELS;
    const T* own[2];
    bool is_bias[2];
    for (int p = 0; p < 2; ++p) {
        const int tap = first + lane + p * lanes, k = tap % places;
        is_bias[p] = tap >= taps;  // taps beyond that of b do not exist, and are not written
        own[p] = image;
        if (tap < taps)
            own[p] += tap / places * plane + k / g.at.kw * g.at.dh * width + k % g.at.kw * g.at.dw;
    }
    const Integer slice = blockIdx.x / blocks;
    double totals[2][CHANNELS] = {};
    for (Integer n = slice; n < g.n; n += slices) {
        __syncthreads();  // the image before is used up
        copy_padded(x + (n * g.groups + tile.group) * inputs, image, channels, g.at);
        const T* from = y_bar + (n * g.a + tile.first) * outputs;
        for (int o = threadIdx.x; o < outputs; o += blockDim.x) {
            T values[CHANNELS];
#pragma unroll
            for (int a = 0; a < CHANNELS; ++a)
                values[a] = a < tile.count ? from[a * outputs + o] : T(0);
#pragma unroll
            for (int a = 0; a < CHANNELS; ++a) bars[o * CHANNELS + a] = values[a];
        }
        __syncthreads();
        T sums[2][CHANNELS] = {};
        int oy = part / g.at.ow, ox = part % g.at.ow;
#pragma unroll 4
        for (int o = part; part < parts && o < outputs; o += parts) {
            const int place = oy * g.at.sh * width + ox * g.at.sw;
            const T values[2] = {is_bias[0] ? T(1) : own[0][place],
                                 is_bias[1] ? T(1) : own[1][place]};
            add_products<2>(sums, values, bars + o * CHANNELS);
            oy += step_y;
            ox += step_x;
            if (ox >= g.at.ow) {
                ox -= g.at.ow;
                ++oy;
            }
        }
        for (int p = 0; p < 2; ++p)
            for (int a = 0; a < CHANNELS; ++a) totals[p][a] += sums[p][a];
    }
    // the shared memory of the images is used again, to add up the parts
    double* shared = reinterpret_cast<double*>(block_memory());  // (CHANNELS, threads)
    double* row = partials + slice * (static_cast<Integer>(g.a) * taps + (g.biased ? g.a : 0));
#pragma unroll
    for (int p = 0; p < 2; ++p) {
        __syncthreads();
#pragma unroll
        for (int a = 0; a < CHANNELS; ++a) shared[a * blockDim.x + threadIdx.x] = totals[p][a];
        __syncthreads();
        for (int i = threadIdx.x; i < lanes * tile.count; i += blockDim.x) {
            const int tap = first + i % lanes + p * lanes, a = i / lanes;
            if (tap >= taps + g.biased) continue;
            double total = 0;
            for (int q = 0; q < parts; ++q) total += shared[a * blockDim.x + q * lanes + i % lanes];
            const Integer channel = tile.first + a, behind = static_cast<Integer>(g.a) * taps;
            row[tap < taps ? channel * taps + tap : behind + channel] = total;
        }
    }
}
