// CUDA's names for a C++20 compiler, so that the text of a kernel runs on a CPU.
//
// Every block has its own memory, and as many blocks run at once as the launch says. Shared memory
// starts as nan and has exactly the requested size, so that values a kernel forgets to write, and
// writes out of bounds, show. For a sanitizer every CUDA thread is a std::thread. Otherwise all are
// fibers of one thread, which take turns, each until it has to wait, in a tenth of the time.
#define MINIGRAD_HOST
#undef _FORTIFY_SOURCE  // its longjmp rejects jumps between stacks
#include <atomic>
#include <bit>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>
#include <tuple>
#include <utility>
#include <vector>

#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
#define SHIM_THREADS
#include <condition_variable>
#include <mutex>
#include <thread>
#else
#include <csetjmp>
#include <functional>
#include <ucontext.h>
#endif

#define __device__
#define __global__
#define __launch_bounds__(...)

using std::exp, std::fabs, std::fmax, std::log, std::sqrt;
inline double rsqrt(double value) { return 1 / sqrt(value); }

namespace shim {

struct Index {
    unsigned x = 0;
};

#ifdef SHIM_THREADS
// Not std::barrier: its library version counts waiters of all barriers in one table, which orders
// threads of different blocks and hides from ThreadSanitizer that they race.
class Gate {
public:
    explicit Gate(long long threads) : expected(threads) {}
    void arrive_and_wait() {
        std::unique_lock lock(mutex);
        const long long mine = phase;
        if (++arrived == expected) {
            arrived = 0;
            ++phase;
            opened.notify_all();
        } else {
            opened.wait(lock, [&] { return phase != mine; });
        }
    }

private:
    std::mutex mutex;
    std::condition_variable opened;
    long long expected, arrived = 0, phase = 0;
};
#else
inline void take_turns();

class Gate {
public:
    explicit Gate(long long threads) : expected(threads) {}
    void arrive_and_wait() {
        const long long mine = phase;
        if (++arrived == expected) {
            arrived = 0;
            ++phase;
        }
        while (phase == mine) take_turns();
    }

private:
    long long expected, arrived = 0, phase = 0;
};
#endif

struct Warp {
    explicit Warp(long long lanes) : gate(lanes) {}
    Gate gate;
    alignas(16) char slots[32][16];
};

struct Copy {
    void* to;
    const void* from;
    std::size_t size;
};

struct Block {
    Block(long long threads, std::size_t bytes) : gate(threads), copies(threads), size(bytes) {
        for (long long lane = 0; lane < threads; lane += 32)
            warps.push_back(std::make_unique<Warp>(std::min(32LL, threads - lane)));
        memory = static_cast<char*>(operator new[](bytes, std::align_val_t(16)));
    }
    ~Block() { operator delete[](memory, std::align_val_t(16)); }
    Gate gate;
    std::vector<std::unique_ptr<Warp>> warps;
    std::vector<std::vector<Copy>> copies;  // that each thread has started
    std::size_t size;
    char* memory;
    long long number = 0;
};

inline thread_local Block* current = nullptr;

}  // namespace shim

inline thread_local shim::Index threadIdx, blockIdx, blockDim, gridDim;

inline void __syncthreads() { shim::current->gate.arrive_and_wait(); }

inline void back_off() {
#ifdef SHIM_THREADS
    std::this_thread::yield();
#else
    shim::take_turns();
#endif
}
inline char* block_memory() { return shim::current->memory; }

inline unsigned long long bits_of(double value) { return std::bit_cast<unsigned long long>(value); }
inline double number_of(unsigned long long bits) { return std::bit_cast<double>(bits); }
inline unsigned long long peek(const unsigned long long* slot) {
    auto& place = const_cast<unsigned long long&>(*slot);
    return std::atomic_ref<unsigned long long>(place).load(std::memory_order_relaxed);
}
inline void put(unsigned long long* slot, unsigned long long bits) {
    std::atomic_ref<unsigned long long>(*slot).store(bits, std::memory_order_relaxed);
}

// Copies are made when they are awaited, so that reading too early gives old values.
template <class P>
void copy_async(P* to, const P* from) {
    shim::current->copies[threadIdx.x].push_back({to, from, sizeof(P)});
}
inline void await_copies() {
    for (const shim::Copy& copy : shim::current->copies[threadIdx.x])
        std::memcpy(copy.to, copy.from, copy.size);
    shim::current->copies[threadIdx.x].clear();
}

inline unsigned atomicAdd(unsigned* address, unsigned value) {
    return std::atomic_ref<unsigned>(*address).fetch_add(value, std::memory_order_relaxed);
}

template <class T>
T __shfl_xor_sync(unsigned, T value, int mask) {
    const int lane = threadIdx.x % 32;
    shim::Warp& warp = *shim::current->warps[threadIdx.x / 32];
    std::memcpy(warp.slots[lane], &value, sizeof(T));
    warp.gate.arrive_and_wait();
    T other;
    std::memcpy(&other, warp.slots[lane ^ mask], sizeof(T));
    warp.gate.arrive_and_wait();
    return other;
}

namespace shim {

struct Geometry {
    long long grid, threads, shared, resident;
};

template <class... A, std::size_t... I>
void call(void (*kernel)(A...), void** args, std::index_sequence<I...>) {
    kernel(*static_cast<std::decay_t<A>*>(args[I])...);
}

#ifdef SHIM_THREADS
class Crew {
public:
    template <class F>
    void hire(F work) {
        threads.emplace_back(work);
    }
    void finish() {
        for (std::thread& thread : threads) thread.join();
    }

private:
    std::vector<std::thread> threads;
};
#else
// A fiber is started once and then gets one piece of work after another: system calls cost more
// than all else here, and swapcontext makes one each time, for the signal mask.
struct Fiber {
    static constexpr std::size_t SIZE = 1 << 16;
    std::unique_ptr<char[]> stack{new char[SIZE]};
    std::function<void()> work;
    std::jmp_buf here;
    bool has_begun = false, is_done = false;
};

inline thread_local std::jmp_buf scheduler;
inline thread_local Fiber* running = nullptr;
inline thread_local std::vector<std::unique_ptr<Fiber>> fibers;  // kept for the next launch

inline void pause() {
    if (_setjmp(running->here) == 0) _longjmp(scheduler, 1);
}

inline void take_turns() {
    const auto place = std::tuple(current, threadIdx, blockIdx);
    pause();
    std::tie(current, threadIdx, blockIdx) = place;
}

inline void begin() {
    ucontext_t context;
    getcontext(&context);
    context.uc_stack.ss_sp = running->stack.get();
    context.uc_stack.ss_size = Fiber::SIZE;
    makecontext(&context, [] { for (;; pause()) running->work(), running->is_done = true; }, 0);
    running->has_begun = true;
    setcontext(&context);
}

inline void go_on() {
    if (_setjmp(scheduler) != 0) return;
    if (running->has_begun) _longjmp(running->here, 1);
    begin();
}

class Crew {
public:
    template <class F>
    void hire(F work) {
        if (fibers.size() == size) fibers.push_back(std::make_unique<Fiber>());
        fibers[size]->work = work;
        fibers[size++]->is_done = false;
    }
    void finish() {
        for (bool is_left = true, forward = true; is_left; forward = !forward) {
            is_left = false;
            for (std::size_t i = 0; i < size; ++i) {
                running = fibers[forward ? i : size - 1 - i].get();
                if (!running->is_done) go_on();
                is_left |= !running->is_done;
            }
        }
    }

private:
    std::size_t size = 0;
};
#endif

// Blocks are taken in order by as many teams of threads as run at once.
template <class... A>
void launch(void (*kernel)(A...), const Geometry& g, void** args) {
    std::atomic<long long> next = 0;
    std::vector<std::unique_ptr<Block>> teams;
    Crew crew;
    for (long long team = 0; team < std::min(g.grid, g.resident); ++team) {
        teams.push_back(std::make_unique<Block>(g.threads, static_cast<std::size_t>(g.shared)));
        for (long long t = 0; t < g.threads; ++t)
            crew.hire([&, block = teams.back().get(), t] {
                current = block;
                threadIdx.x = static_cast<unsigned>(t);
                blockDim.x = static_cast<unsigned>(g.threads);
                gridDim.x = static_cast<unsigned>(g.grid);
                for (;;) {
                    if (t == 0) {
                        block->number = next.fetch_add(1, std::memory_order_relaxed);
                        std::memset(block->memory, 0xff, block->size);
                    }
                    __syncthreads();
                    const long long number = block->number;
                    if (number >= g.grid) return;
                    blockIdx.x = static_cast<unsigned>(number);
                    call(kernel, args, std::index_sequence_for<A...>());
                    __syncthreads();
                }
            });
    }
    crew.finish();
}

using Entry = void (*)(const Geometry&, void**);

// The main function of a program for sanitizers: reads one launch from a file, writes its results
// to another.
inline int run_file(const Entry* entries, const char* from, const char* to) {
    std::FILE* in = std::fopen(from, "rb");
    long long head[6];  // entry, geometry, number of arguments
    if (!in || std::fread(head, 8, 6, in) != 6) return 2;
    std::vector<std::unique_ptr<char, void (*)(char*)>> memory;
    std::vector<void*> pointers(static_cast<std::size_t>(head[5])), args(pointers.size());
    std::vector<long long> sizes(pointers.size());
    for (std::size_t i = 0; i < pointers.size(); ++i) {
        long long entry[2];  // whether it is an array, bytes
        if (std::fread(entry, 8, 2, in) != 2) return 2;
        const auto bytes = static_cast<std::size_t>(entry[1]);
        char* data = static_cast<char*>(operator new[](bytes, std::align_val_t(16)));
        memory.emplace_back(data, [](char* p) { operator delete[](p, std::align_val_t(16)); });
        if (std::fread(data, 1, bytes, in) != bytes) return 2;
        pointers[i] = data;
        args[i] = entry[0] ? static_cast<void*>(&pointers[i]) : data;
        sizes[i] = entry[0] ? entry[1] : 0;
    }
    std::fclose(in);
    entries[head[0]]({head[1], head[2], head[3], head[4]}, args.data());
    std::FILE* out = std::fopen(to, "wb");
    for (std::size_t i = 0; i < pointers.size(); ++i)
        std::fwrite(pointers[i], 1, static_cast<std::size_t>(sizes[i]), out);
    std::fclose(out);
    return 0;
}

}  // namespace shim
