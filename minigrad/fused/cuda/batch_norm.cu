// Batch norm, forward and backward, in one launch each.
//
// A block works on slices of channels, one after the other. It keeps a slice in shared memory where
// that fits (HOLD), takes two sums and leaves them for the channel's other blocks; then it writes
// its part of the result of the slice before, whose sums the others have left by now; and into the
// place of each pack that it has used it loads one of its next slice. So x is read once from
// memory, and nobody waits for long. What is not held is read twice.

// What a block has in its memory before the values that it holds.
template <class L>
struct Desk {
    using T = typename L::Value;
    double* sums;
    T* numbers;      // four per channel
    unsigned* turn;  // the number of the slice that comes next
    Values<L>* held;

    __device__ explicit Desk(Integer held_at) {
        sums = reinterpret_cast<double*>(block_memory());
        double* const end = sums + 2 * L::room_of_sums();
        numbers = reinterpret_cast<T*>(end) + (L::tile > 1 ? threadIdx.x % 32 * 4 : 0);
        turn = reinterpret_cast<unsigned*>(end + 4 * L::tile);
        held = reinterpret_cast<Values<L>*>(block_memory() + held_at);
    }
};

// The slices of M arrays that a block works on. `now` is read into one half of the held memory,
// `before` is written from the other, and `next` is loaded there. Blocks take numbers in the order
// in which they ask, and they ask when nobody waits for them. So whoever waits, waits for blocks
// that run, and the launcher cuts channels into no more slices than running blocks can hold.
template <class L, bool HOLD, int M>
struct Turns {
    const Desk<L>& desk;
    unsigned* const tickets;  // how many were taken; null where the block's own number will do
    const unsigned count;     // of the slices of all channels; what is not below it is none
    const bool has_more;      // else one each, without a second half
    unsigned before, now, next;
    Values<L>*here, *there;

    __device__ Turns(const Shape& g, const Desk<L>& desk, unsigned* tickets,
                     const typename L::Value* const (&arrays)[M])
        : desk(desk), tickets(tickets),
          count(static_cast<unsigned>((g.c + L::tile - 1) / L::tile * g.slices)),
          has_more(HOLD && count > gridDim.x), before(count), now(take()), next(count),
          here(desk.held), there(here + M * L(g, 0, desk.sums).room()) {
        if (has_more) next = take();
        if (HOLD && now < count) fetch<M>(L(g, now, desk.sums), arrays, here);
        if (HOLD && next < count) fetch<M>(L(g, next, desk.sums), arrays, there);
    }

    __device__ unsigned take() const {
        if (threadIdx.x == 0) *desk.turn = tickets == nullptr ? blockIdx.x : atomicAdd(tickets, 1u);
        __syncthreads();
        const unsigned turn = *desk.turn;
        __syncthreads();
        return turn;
    }

    // The same in two steps, with a barrier between them, and one before the next time.
    __device__ void ask() const {
        if (HOLD && threadIdx.x == 0) *desk.turn = has_more ? atomicAdd(tickets, 1u) : count;
    }
    __device__ void hear() {
        if (HOLD) next = *desk.turn;
    }

    // Of which slice the result is written: one that is not held is not left for later.
    __device__ unsigned written() const { return HOLD ? before : now; }

    __device__ bool are_left() const { return now < count || before < count; }

    __device__ void advance() {
        Values<L>* const free = there;
        there = here;
        here = free;
        before = HOLD ? now : count;
        now = HOLD ? next : count;  // there is a block for each slice that is not held
    }
};

// Leaves the sums over this slice for the other blocks of the channel. `slots`: (C, slices, 2).
template <class L>
__device__ void leave_sums(const L& own, const double (&sums)[2], Slot* slots) {
    if (own.rank > 0 || !own.valid) return;
    Slot* const to = slots + (own.channel * own.shape.slices + own.slice) * 2;
    publish(to, sums[0]);
    publish(to + 1, sums[1]);
}

// The sums over the channel from those over its slices, always in the same order.
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
// y = (x - mean) scale + shift with the mean as high + low: low is in the shift.
template <class L, bool HOLD, bool TRAIN>
__global__ void __launch_bounds__(512, 2)
batch_norm_forward(const typename L::Value* x, const typename L::Value* gamma,
                   const typename L::Value* beta, typename L::Value* y, double* statistics,
                   typename L::Value* mean, typename L::Value* var, Slot* slots, Integer n,
                   Integer c, Integer s, Integer slices, Integer length, Integer held_at,
                   double eps) {
    using T = typename L::Value;
    const Shape shape{n, c, s, slices, length};
    const Desk<L> desk(held_at);
    unsigned* const tickets = TRAIN ? reinterpret_cast<unsigned*>(slots) : nullptr;
    for (Turns<L, HOLD, 1> turns(shape, desk, tickets, {x}); turns.are_left(); turns.advance()) {
        if (TRAIN && turns.now < turns.count) {
            const L own(shape, turns.now, desk.sums);
            const T centre = own.valid ? x[own.channel * s] : T(0);
            double sums[2];
            slice_sums<HOLD>(own, x, turns.here, centre, sums);
            leave_sums(own, sums, slots + 1);
        }
        if (turns.written() < turns.count) {
            const L own(shape, turns.written(), desk.sums);
            const Integer i = own.channel;
            const bool shares = own.rank == 0 && own.valid;
            T scale = 0, shift = 0, centre = 0;
            if (shares) {  // early: they are needed where everybody waits
                scale = gamma[i];
                shift = beta[i];
                centre = x[i * s];
            }
            double sums[2] = {0, 0};
            if (TRAIN) channel_sums(own, sums, slots + 1);
            turns.ask();
            if (shares) {
                const Moments all = TRAIN ? moments_of(sums, static_cast<double>(n) * s, centre)
                                          : Moments{mean[i], var[i]};
                const double inv_std = rsqrt(all.var + eps);
                const T high = static_cast<T>(all.mean);
                desk.numbers[0] = high;
                desk.numbers[1] = static_cast<T>(inv_std * scale);
                desk.numbers[2] = static_cast<T>(shift - (all.mean - high) * inv_std * scale);
                if (own.slice == 0) {
                    statistics[i] = all.mean;
                    statistics[c + i] = inv_std;
                    if (TRAIN) mean[i] = high;
                    if (TRAIN) var[i] = static_cast<T>(all.var);
                }
            }
            __syncthreads();
            const T high = own.valid ? desk.numbers[0] : T(0);
            scale = own.valid ? desk.numbers[1] : T(0);
            shift = own.valid ? desk.numbers[2] : T(0);
            turns.hear();
            write<HOLD, 1>(own, L(shape, turns.next, desk.sums), turns.next < turns.count, {x},
                           turns.there, y, [&](Values<L>(&packs)[1]) {
                for (T& value : packs[0].at) value = (value - high) * scale + shift;
                return packs[0];
            });
        }
    }
}

// y_bar, x, x_bar: (N, C, S); statistics as the forward wrote them; slots as there. In evaluation
// only the block of a channel's last slice needs the sums of the others, which came before it.
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
    const Desk<L> desk(held_at);
    unsigned* const tickets = reinterpret_cast<unsigned*>(slots);
    Turns<L, HOLD, 2> turns(shape, desk, tickets, {y_bar, x});
    for (; turns.are_left(); turns.advance()) {
        if (turns.now < turns.count) {
            const L own(shape, turns.now, desk.sums);
            const T high = own.valid ? static_cast<T>(statistics[own.channel]) : T(0);
            T lanes[4] = {0, 0, 0, 0}, products[4] = {0, 0, 0, 0};
            double sums[2] = {0, 0};  // of y_bar and of y_bar (x - high)
            const auto add = [&](const Values<L>(&packs)[2], int lane) {
                for (int v = 0; v < L::width; ++v) {
                    lanes[lane + v] += packs[0].at[v];
                    products[lane + v] += packs[0].at[v] * (packs[1].at[v] - high);
                }
            };
            over<HOLD, 2>(own, {y_bar, x}, turns.here, add, [&] {
                pour(lanes, sums[0]);
                pour(products, sums[1]);
            });
            own.sum(sums);
            leave_sums(own, sums, slots + 1);
        }
        if (turns.written() < turns.count) {
            const L own(shape, turns.written(), desk.sums);
            const Integer i = own.channel;
            const T high = own.valid ? static_cast<T>(statistics[i]) : T(0);
            const bool shares = own.rank == 0 && own.valid;
            double low = 0, inv_std = 0, scale_ = 0;
            if (shares) {  // early: they are needed where everybody waits
                low = statistics[i] - high;
                inv_std = statistics[c + i];
                scale_ = gamma[i] * inv_std;
            }
            const bool is_last = own.slice == slices - 1;
            double sums[2] = {0, 0};
            if (TRAIN || is_last) channel_sums(own, sums, slots + 1);
            turns.ask();
            if (shares) {
                const double along_x_hat = (sums[1] - low * sums[0]) * inv_std;
                const double values = static_cast<double>(n) * s;
                const double slope_ = -scale_ * inv_std * along_x_hat / values;
                desk.numbers[0] = static_cast<T>(scale_);
                desk.numbers[1] = static_cast<T>(slope_);
                desk.numbers[2] = static_cast<T>(-scale_ * sums[0] / values - slope_ * low);
                if (is_last) beta_bar[i] = static_cast<T>(sums[0]);
                if (is_last) gamma_bar[i] = static_cast<T>(along_x_hat);
            }
            __syncthreads();
            const T scale = own.valid ? desk.numbers[0] : T(0);
            const T slope = own.valid ? desk.numbers[1] : T(0);
            const T shift = own.valid ? desk.numbers[2] : T(0);
            turns.hear();
            write<HOLD, 2>(own, L(shape, turns.next, desk.sums), turns.next < turns.count,
                           {y_bar, x}, turns.there, x_bar, [&](Values<L>(&packs)[2]) {
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
