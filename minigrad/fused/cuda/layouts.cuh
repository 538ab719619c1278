// Which values of a channel a thread owns. The values of a channel are cut into slices; a block
// works on one slice at a time. Both layouts have the same members:
//
//   channel, valid   the channel of this thread, and whether there is one
//   slice            which slice of the channel this is
//   rank, ranks      the number of this thread among those of its channel in this block
//   count            packs of `width` values in this slice; thread `rank` owns every `ranks`-th
//   walk()           the addresses of the packs that this thread owns, one after the other
//   place(i)         where pack i is held in shared memory; below room()
//   sum(values)      sums over the threads of this channel in this block, for the one of rank 0
//   room_of_sums()   doubles of scratch that `sum` of one value takes

// An address that advances from pack to pack; `s` is its position in a row of S consecutive values.
struct Walk {
    Integer address, step, wrap;
    int s, step_s, length;  // 32 bits: registers are scarce

    __device__ void advance() {
        address += step;
        s += step_s;
        if (s >= length) {  // into the next row
            s -= length;
            address += wrap;
        }
    }
};

struct Shape {
    Integer n, c, s;         // (N, C, S) in C order
    Integer slices, length;  // slices per channel, and values in each but the last
};

// (N, C, S): a block reads one channel, S consecutive values at a time; V divides S.
template <class T, int V>
struct Planes {
    using Value = T;
    static constexpr int width = V;
    // packs loaded before the first is used: as many as 64 registers have room for
    static constexpr int depth = sizeof(T) == 8 ? 4 / V : V > 1 ? 4 : 8;
    static constexpr int tile = 1;  // channels per block

    const Shape shape;
    double* const scratch;
    unsigned first;  // where the slice starts in the channel; its values are counted with 32 bits
    int channel, slice;
    int rank, ranks, count;
    static constexpr bool valid = true;

    __device__ Planes(const Shape& g, unsigned block, double* memory) : shape(g), scratch(memory) {
        const unsigned slices = static_cast<unsigned>(g.slices), values = g.n * g.s;
        channel = block / slices;
        slice = block % slices;
        rank = threadIdx.x;
        ranks = blockDim.x;
        first = slice * static_cast<unsigned>(g.length);
        const unsigned rest = values - first, most = static_cast<unsigned>(g.length);
        count = (rest < most ? rest : most) / V;
    }

    __device__ Walk walk() const {
        const unsigned length = static_cast<unsigned>(shape.s), own = first + rank * V;
        const unsigned n = own / length, s = own % length, step = ranks * V;
        const Integer row = shape.c * shape.s;
        return {n * row + channel * shape.s + s,
                step / length * row + step % length,
                row - shape.s,
                static_cast<int>(s),
                static_cast<int>(step % length),
                static_cast<int>(length)};
    }

    __device__ int place(int i) const { return i; }
    __device__ int room() const { return static_cast<int>(shape.length / V); }

    static __device__ int room_of_sums() { return blockDim.x / 32; }

    template <int M>
    __device__ void sum(double (&values)[M]) const {
        block_sum<M>(values, scratch);
    }
};

// (N, C): a warp reads 32 neighbouring channels of one row, so that its reads coalesce.
template <class T>
struct Columns {
    using Value = T;
    static constexpr int width = 1;
    static constexpr int depth = 32 / sizeof(T);
    static constexpr int tile = 32;

    const Shape shape;
    double* const scratch;
    Integer first;
    int channel, slice;
    int rank, ranks, count;
    bool valid;

    __device__ Columns(const Shape& g, unsigned block, double* memory) : shape(g), scratch(memory) {
        const unsigned slices = static_cast<unsigned>(g.slices);
        slice = block % slices;
        channel = block / slices * 32 + threadIdx.x % 32;
        valid = channel < g.c;
        rank = threadIdx.x / 32;
        ranks = blockDim.x / 32;
        first = slice * g.length;
        const Integer end = first + g.length;
        count = valid ? static_cast<int>((end < g.n ? end : g.n) - first) : 0;
    }

    __device__ Walk walk() const {
        return {(first + rank) * shape.c + channel, ranks * shape.c, 0, 0, 0, 1};
    }

    __device__ int place(int i) const { return i * 32 + threadIdx.x % 32; }
    __device__ int room() const { return static_cast<int>(shape.length * 32); }

    static __device__ int room_of_sums() { return blockDim.x; }

    // Adds in the order of the warps, always the same.
    template <int M>
    __device__ void sum(double (&values)[M]) const {
        const int column = threadIdx.x % 32;
        for (int m = 0; m < M; ++m) scratch[(m * ranks + rank) * 32 + column] = values[m];
        __syncthreads();
        for (int r = 1; rank == 0 && r < ranks; ++r)
            for (int m = 0; m < M; ++m) values[m] += scratch[(m * ranks + r) * 32 + column];
        __syncthreads();
    }
};
