// Batch norm, forward and backward, in one launch each.
//
// The values of a channel are cut into slices; a block works on one slice after another. Where a
// slice fits into shared memory it is kept there (HOLD), and a step of a block is this:
//
//   1. It takes the two sums of slice `now`, and publishes them for other blocks of the channel.
//   2. It adds up the sums of all slices of the channel of slice `before`, which other blocks have
//      mostly published by now, so that it does not wait for long.
//   3. It writes the result of slice `before`, and loads slice `next` into the places that this
//      frees, pack by pack.
//
// So every input is read from memory once. A slice that is not held is read twice, for its sums and
// for its result, both in one step; the forward of evaluation takes no sums and reads it once.
// Precision: see moments.cuh; the sums of slices are added in double, always in the same order.

// The shared memory of a block.
template <class L>
struct SharedMemory {
    using T = typename L::Value;
    double* sums;           // scratch
    T* numbers;             // four per channel, computed by one thread for all
    unsigned* next_number;  // the slice to be worked on after `now`
    Values<L>* held;

    __device__ explicit SharedMemory(Integer held_at) {
        sums = reinterpret_cast<double*>(block_memory());
        double* const end = sums + 2 * L::room_of_sums();
        numbers = reinterpret_cast<T*>(end) + (L::tile > 1 ? threadIdx.x % 32 * 4 : 0);
        next_number = reinterpret_cast<unsigned*>(end + 4 * L::tile);
        held = reinterpret_cast<Values<L>*>(block_memory() + held_at);
    }
};

// Hands out the slices, of M arrays, that this block works on. Slice `now` is in one half of the
// held memory, `before` in the other, where `next` replaces it while its result is written.
//
// Blocks never wait forever: they get slices in the order in which they ask, a block asks only when
// no other waits for its sums, and the launcher cuts a channel into no more slices than the running
// blocks can have in hand. So a block waits only for blocks that are running.
template <class L, bool HOLD, int M>
struct SliceQueue {
    const SharedMemory<L>& shared;
    unsigned* const tickets;  // how many numbers were taken; null: a block takes its own number
    const unsigned count;     // slices of all channels; as the number of a slice it means none
    const bool more_than_blocks;  // else each block has one slice, and no second half
    unsigned before, now, next;
    Values<L>*half, *other_half;

    __device__ SliceQueue(const Shape& g, const SharedMemory<L>& shared, unsigned* tickets,
                          const typename L::Value* const (&arrays)[M])
        : shared(shared), tickets(tickets),
          count(static_cast<unsigned>((g.c + L::tile - 1) / L::tile * g.slices)),
          more_than_blocks(HOLD && count > gridDim.x), before(count), now(take()), next(count),
          half(shared.held), other_half(half + M * L(g, 0, shared.sums).room()) {
        if (more_than_blocks) next = take();
        if (HOLD && now < count) fetch<M>(L(g, now, shared.sums), arrays, half);
        if (HOLD && next < count) fetch<M>(L(g, next, shared.sums), arrays, other_half);
    }

    __device__ unsigned take() const {
        if (threadIdx.x == 0)
            *shared.next_number = tickets == nullptr ? blockIdx.x : atomicAdd(tickets, 1u);
        __syncthreads();
        const unsigned number = *shared.next_number;
        __syncthreads();
        return number;
    }

    // take() in two steps, with a barrier between them and another before the next request.
    __device__ void request() const {
        if (HOLD && threadIdx.x == 0)
            *shared.next_number = more_than_blocks ? atomicAdd(tickets, 1u) : count;
    }
    __device__ void receive() {
        if (HOLD) next = *shared.next_number;
    }

    // The slice whose result is written in this step.
    __device__ unsigned to_write() const { return HOLD ? before : now; }

    __device__ bool has_work() const { return now < count || before < count; }

    __device__ void advance() {
        Values<L>* const free = other_half;
        other_half = half;
        half = free;
        before = HOLD ? now : count;
        now = HOLD ? next : count;  // without HOLD there is a block for each slice
    }
};

// Leaves the sums of this slice for the other blocks of the channel. `slots`: (C, slices, 2).
template <class L>
__device__ void publish_sums(const L& own, const double (&sums)[2], Slot* slots) {
    if (own.rank > 0 || !own.valid) return;
    Slot* const to = slots + (own.channel * own.shape.slices + own.slice) * 2;
    publish(to, sums[0]);
    publish(to + 1, sums[1]);
}

// Adds up the sums of all slices of the channel, always in the same order; rank 0 gets the result.
template <class L>
__device__ void channel_sums(const L& own, double (&sums)[2], Slot* slots) {
    sums[0] = sums[1] = 0;
    const Integer count = own.valid ? own.shape.slices : 0;
    for (Integer k = own.rank; k < count; k += own.ranks) {
        const Slot* const from = slots + (own.channel * own.shape.slices + k) * 2;
        double found[2];
        await<2>({from, from + 1}, found);
        sums[0] += found[0];
        sums[1] += found[1];
    }
    own.sum(sums);
}

// x: (N, C, S). statistics: (2, C), mean and 1/sqrt(var + eps). In training mean and var (C,) are
// written, else read. slots: a counter, then (C, slices, 2), all 0; not touched in evaluation.
// y = (x - high) scale + shift; high is the mean rounded to T, and the rest of it is in the shift.
template <class L, bool HOLD, bool TRAIN>
__global__ void __launch_bounds__(512, 2)
batch_norm_forward(const typename L::Value* x, const typename L::Value* gamma,
                   const typename L::Value* beta, typename L::Value* y, double* statistics,
                   typename L::Value* mean, typename L::Value* var, Slot* slots, Integer n,
                   Integer c, Integer s, Integer slices, Integer length, Integer held_at,
                   double eps) {
    using T = typename L::Value;
    const Shape shape{n, c, s, slices, length};
    const SharedMemory<L> shared(held_at);
    unsigned* const tickets = TRAIN ? reinterpret_cast<unsigned*>(slots) : nullptr;
    SliceQueue<L, HOLD, 1> queue(shape, shared, tickets, {x});
    for (; queue.has_work(); queue.advance()) {
        if (TRAIN && queue.now < queue.count) {
            const L own(shape, queue.now, shared.sums);
            const T centre = own.valid ? x[own.channel * s] : T(0);
            double sums[2];
            slice_sums<HOLD>(own, x, queue.half, centre, sums);
            publish_sums(own, sums, slots + 1);
        }
        if (queue.to_write() < queue.count) {
            const L own(shape, queue.to_write(), shared.sums);
            const Integer i = own.channel;
            const bool leads = own.rank == 0 && own.valid;
            T scale = 0, shift = 0, centre = 0;
            if (leads) {  // loaded early: the whole block waits for the numbers below
                scale = gamma[i];
                shift = beta[i];
                centre = x[i * s];
            }
            double sums[2] = {0, 0};
            if (TRAIN) channel_sums(own, sums, slots + 1);
            queue.request();
            if (leads) {
                const Moments all = TRAIN ? moments_of(sums, static_cast<double>(n) * s, centre)
                                          : Moments{mean[i], var[i]};
                const double inv_std = rsqrt(all.var + eps);
                const T high = static_cast<T>(all.mean);
                shared.numbers[0] = high;
                shared.numbers[1] = static_cast<T>(inv_std * scale);
                shared.numbers[2] = static_cast<T>(shift - (all.mean - high) * inv_std * scale);
                if (own.slice == 0) {
                    statistics[i] = all.mean;
                    statistics[c + i] = inv_std;
                    if (TRAIN) mean[i] = high;
                    if (TRAIN) var[i] = static_cast<T>(all.var);
                }
            }
            __syncthreads();
            const T high = own.valid ? shared.numbers[0] : T(0);
            scale = own.valid ? shared.numbers[1] : T(0);
            shift = own.valid ? shared.numbers[2] : T(0);
            queue.receive();
            write_packs<HOLD, 1>(own, L(shape, queue.next, shared.sums), queue.next < queue.count,
                                 {x}, queue.other_half, y, [&](Values<L>(&packs)[1]) {
                for (T& value : packs[0].at) value = (value - high) * scale + shift;
                return packs[0];
            });
        }
    }
}

// y_bar, x, x_bar: (N, C, S); statistics as the forward wrote them; slots as in the forward. In
// evaluation the sums are needed for gamma_bar and beta_bar only: the block of a channel's last
// slice adds them up, since all other slices were taken before it.
// x_bar = scale (y_bar - mean path - x_hat variance path) = scale y_bar + slope (x - high) + shift.
template <class L, bool HOLD, bool TRAIN>
__global__ void __launch_bounds__(512, 2)
batch_norm_backward(const typename L::Value* y_bar, const typename L::Value* x,
                    const typename L::Value* gamma, const double* statistics,
                    typename L::Value* x_bar, typename L::Value* gamma_bar,
                    typename L::Value* beta_bar, Slot* slots, Integer n, Integer c, Integer s,
                    Integer slices, Integer length, Integer held_at) {
    using T = typename L::Value;
    const Shape shape{n, c, s, slices, length};
    const SharedMemory<L> shared(held_at);
    unsigned* const tickets = reinterpret_cast<unsigned*>(slots);
    SliceQueue<L, HOLD, 2> queue(shape, shared, tickets, {y_bar, x});
    for (; queue.has_work(); queue.advance()) {
        if (queue.now < queue.count) {
            const L own(shape, queue.now, shared.sums);
            const T high = own.valid ? static_cast<T>(statistics[own.channel]) : T(0);
            T lanes[4] = {0, 0, 0, 0}, products[4] = {0, 0, 0, 0};
            double sums[2] = {0, 0};  // of y_bar and of y_bar (x - high)
            const auto add = [&](const Values<L>(&packs)[2], int lane) {
                for (int v = 0; v < L::width; ++v) {
                    lanes[lane + v] += packs[0].at[v];
                    products[lane + v] += packs[0].at[v] * (packs[1].at[v] - high);
                }
            };
            for_each_pack<HOLD, 2>(own, {y_bar, x}, queue.half, add, [&] {
                drain(lanes, sums[0]);
                drain(products, sums[1]);
            });
            own.sum(sums);
            publish_sums(own, sums, slots + 1);
        }
        if (queue.to_write() < queue.count) {
            const L own(shape, queue.to_write(), shared.sums);
            const Integer i = own.channel;
            const T high = own.valid ? static_cast<T>(statistics[i]) : T(0);
            const bool leads = own.rank == 0 && own.valid;
            double low = 0, inv_std = 0, scale_ = 0;
            if (leads) {  // loaded early: the whole block waits for the numbers below
                low = statistics[i] - high;
                inv_std = statistics[c + i];
                scale_ = gamma[i] * inv_std;
            }
            const bool is_last = own.slice == slices - 1;
            double sums[2] = {0, 0};
            if (TRAIN || is_last) channel_sums(own, sums, slots + 1);
            queue.request();
            if (leads) {
                const double along_x_hat = (sums[1] - low * sums[0]) * inv_std;
                const double values = static_cast<double>(n) * s;
                const double slope_ = -scale_ * inv_std * along_x_hat / values;
                shared.numbers[0] = static_cast<T>(scale_);
                shared.numbers[1] = static_cast<T>(slope_);
                shared.numbers[2] = static_cast<T>(-scale_ * sums[0] / values - slope_ * low);
                if (is_last) beta_bar[i] = static_cast<T>(sums[0]);
                if (is_last) gamma_bar[i] = static_cast<T>(along_x_hat);
            }
            __syncthreads();
            const T scale = own.valid ? shared.numbers[0] : T(0);
            const T slope = own.valid ? shared.numbers[1] : T(0);
            const T shift = own.valid ? shared.numbers[2] : T(0);
            queue.receive();
            write_packs<HOLD, 2>(own, L(shape, queue.next, shared.sums), queue.next < queue.count,
                                 {y_bar, x}, queue.other_half, x_bar, [&](Values<L>(&packs)[2]) {
                for (int v = 0; v < L::width; ++v) {
                    T& value = packs[0].at[v];
                    value *= scale;
                    if (TRAIN) value += slope * (packs[1].at[v] - high) + shift;
                }
                return packs[0];
            });
        }
    }
}
