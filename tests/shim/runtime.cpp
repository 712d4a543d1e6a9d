// Runs the threads of a CUDA grid as fibers on one CPU thread, block by block, in an order shuffled by a seed.
//
// A thread runs until it needs others: at a barrier, a warp exchange, a barrier of the grid, or its end. Shared memory
// is filled with NaN bits before each block. Barriers that not all threads reach, exchanges whose lanes never come, and
// grid barriers in an ordinary launch end the launch with an error.
#include "runtime.h"
#include <algorithm>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <sys/mman.h>
#include <vector>
#if !defined(__x86_64__) || defined(SHIM_UCONTEXT)
#include <ucontext.h>
#define PORTABLE 1
#endif

enum State { NEW, READY, BARRIER, EXCHANGE, GRID, DONE };
static const size_t STACK = 256 * 1024;
static const int LANE_BYTES = 64;

struct Copy {
    void* to;
    const void* from;
    int bytes, valid;
    unsigned group;
};
struct Fiber {
    Triple index;
    unsigned block, thread, barriers, exchanges;
    State state;
    int line, bytes;
    unsigned mask;
    const void* mine;
    char* stack;
    unsigned groups, copied;  // of asynchronous copies: groups that are complete, copies that have happened
    std::vector<Copy> copies; // asked for
#ifdef PORTABLE
    ucontext_t context;
#else
    void* sp;
#endif
};

extern "C" {
Triple threadIdx, blockIdx, blockDim, gridDim;
alignas(128) unsigned char shim_dynamic[232448]; // 227 KB, the most that a block may have on an H100
}

static Fiber* current;
static void (*body)(void*);
static void* body_arguments;
static char* error_text;
static int error_room;
static bool failed;
static std::vector<Fiber> fibers;
static std::vector<unsigned> order;
static char* stacks; // of all threads of a launch, one after the other: a mapping each would be more than Linux allows
static size_t stacks_bytes;
static std::vector<std::vector<char>> tables; // of each warp, what its lanes gave to an exchange
static unsigned threads, grids;

static void leave();
void shim_fail(const char* format, ...) {
    if (failed) return;
    failed = true;
    va_list list;
    va_start(list, format);
    vsnprintf(error_text, error_room, format, list);
    va_end(list);
    if (current) leave(); // never to return: what the thread was about to do would spoil this process
}
const char* shim_where(unsigned block, unsigned thread) {
    static char text[4][64];
    static int turn;
    turn = (turn + 1) & 3;
    snprintf(text[turn], 64, "block %u thread %u", block, thread);
    return text[turn];
}
Place shim_place() { return {current->block, current->thread, current->barriers, current->exchanges, grids}; }
bool shim_own_stack(uintptr_t p) { return p >= (uintptr_t)current->stack && p < (uintptr_t)current->stack + STACK; }

// -- fibers ----------------------------------------------------------------------------------------------------------

#ifdef PORTABLE
static ucontext_t scheduler;
static void leave() { swapcontext(&current->context, &scheduler); }
#else
static void* scheduler;
extern "C" void shim_switch(void** save, void* to); // keeps the callee-saved registers on the old stack
asm(".text\n.globl shim_switch\n.type shim_switch,@function\nshim_switch:\n"
    " pushq %rbp\n pushq %rbx\n pushq %r12\n pushq %r13\n pushq %r14\n pushq %r15\n movq %rsp,(%rdi)\n movq %rsi,%rsp\n"
    " popq %r15\n popq %r14\n popq %r13\n popq %r12\n popq %rbx\n popq %rbp\n ret\n");
static void leave() { shim_switch(&current->sp, scheduler); }
#endif

static void enter() {
    body(body_arguments);
    current->state = DONE;
    leave();
    abort();
}

static bool reserve_stacks(size_t bytes) {
    if (bytes <= stacks_bytes) return true;
    if (stacks) munmap(stacks, stacks_bytes);
    void* p = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    stacks = p == MAP_FAILED ? nullptr : (char*)p, stacks_bytes = stacks ? bytes : 0;
    return stacks;
}

static void resume(Fiber* f) {
    current = f;
    threadIdx = f->index;
    bool fresh = f->state == NEW;
    f->state = READY;
#ifdef PORTABLE
    if (fresh) {
        getcontext(&f->context);
        f->context.uc_stack.ss_sp = f->stack;
        f->context.uc_stack.ss_size = STACK;
        makecontext(&f->context, enter, 0);
    }
    swapcontext(&scheduler, &f->context);
#else
    if (fresh) {
        void** top = (void**)(f->stack + STACK - 64);
        *--top = nullptr;
        *--top = (void*)enter;
        for (int i = 0; i < 6; i++) *--top = nullptr;
        f->sp = top;
    }
    shim_switch(&scheduler, f->sp);
#endif
    current = nullptr;
    uint64_t& end = *(uint64_t*)f->stack; // zero in a fresh mapping
    if (end) end = 0, shim_fail("%s needs more than %zu bytes of stack", shim_where(f->block, f->thread), STACK);
}

static void wait(State why, int line) {
    current->state = why;
    current->line = line;
    leave();
}
extern "C" void shim_barrier(int line) { wait(BARRIER, line); }
extern "C" void shim_grid_barrier(int line) { wait(GRID, line); }
extern "C" const void* shim_exchange(unsigned mask, const void* mine, int bytes, int line) {
    if (bytes > LANE_BYTES) shim_fail("a warp exchange of %d bytes a lane", bytes);
    current->mask = mask;
    current->mine = mine;
    current->bytes = bytes;
    wait(EXCHANGE, line);
    return tables[current->thread / 32].data();
}

extern "C" void shim_copy(void* to, const void* from, int bytes, int valid) {
    if (((uintptr_t)to | (uintptr_t)from) % bytes) shim_fail("a copy of %d bytes that is not aligned so", bytes);
    current->copies.push_back({to, from, bytes, valid, current->groups});
}
extern "C" void shim_end_group() { current->groups++; }
extern "C" int shim_next_copy(int groups, Copy* copy) {
    std::vector<Copy>& copies = current->copies;
    if (current->copied == copies.size() || (int)(current->groups - copies[current->copied].group) <= groups) return 0;
    memcpy(copy, &copies[current->copied++], offsetof(Copy, group));
    if (current->copied == copies.size()) copies.clear(), current->copied = 0;
    return 1;
}

// -- scheduler -------------------------------------------------------------------------------------------------------

// Completes the exchanges of a block whose lanes have all come (lanes that ended count as come); whether any did.
static bool exchange(Fiber* block) {
    bool any = false;
    for (unsigned warp = 0; warp * 32 < threads; warp++) {
        Fiber* lanes = block + warp * 32;
        unsigned n = std::min(32u, threads - warp * 32), waiting = 0, need = 0;
        Fiber* first = nullptr;
        for (unsigned i = 0; i < n; i++) {
            if (lanes[i].state == EXCHANGE) {
                waiting |= 1u << i;
                if (!first) first = &lanes[i];
            }
        }
        if (!first) continue;
        need = first->mask & (n == 32 ? ~0u : (1u << n) - 1);
        for (unsigned i = 0; i < n; i++)
            if (lanes[i].state == DONE) need &= ~(1u << i);
        if ((need & waiting) != need) continue;
        std::vector<char>& table = tables[warp];
        table.assign(32 * LANE_BYTES, (char)0xFF);
        for (unsigned i = 0; i < n; i++) {
            if (!(need >> i & 1)) continue;
            if (lanes[i].line != first->line) {
                shim_fail("a warp meets at lines %d and %d (%s)", first->line, lanes[i].line,
                          shim_where(lanes[i].block, lanes[i].thread));
                return false;
            }
            if (lanes[i].bytes) memcpy(table.data() + i * first->bytes, lanes[i].mine, first->bytes);
            lanes[i].state = READY;
            lanes[i].exchanges++;
        }
        // Each lane reads the table as soon as it runs; the next exchange waits for all of them.
        any = true;
    }
    return any;
}

// Runs a block until all its threads have ended or wait for the grid.
static void run_block(Fiber* block) {
    while (!failed) {
        for (unsigned k = 0; k < threads && !failed; k++) {
            Fiber* f = block + order[k];
            if (f->state == NEW || f->state == READY) resume(f);
        }
        if (failed || exchange(block)) continue;
        unsigned at[DONE + 1] = {0}, line = 0, lines = 0;
        for (unsigned i = 0; i < threads; i++) {
            at[block[i].state]++;
            if (block[i].state != BARRIER) continue;
            if (lines == 0 || (unsigned)block[i].line != line) lines++;
            line = block[i].line;
        }
        if (at[BARRIER]) {
            if (at[BARRIER] != threads || lines > 1) {
                shim_fail("divergent barrier in block %u: %u threads wait at line %u%s, %u have ended, %u wait for a "
                          "warp, %u for the grid", block->block, at[BARRIER], line, lines > 1 ? " and others" : "",
                          at[DONE], at[EXCHANGE], at[GRID]);
                return;
            }
            for (unsigned i = 0; i < threads; i++) {
                block[i].state = READY;
                block[i].barriers++;
            }
            continue;
        }
        if (at[EXCHANGE]) shim_fail("a warp of block %u waits for lanes that never come", block->block);
        return;
    }
}

extern "C" void shim_run(void (*kernel)(void*), void* arguments, const unsigned* grid, const unsigned* block,
                         unsigned dynamic, int cooperative, unsigned seed, char* error, int room) {
    body = kernel, body_arguments = arguments, error_text = error, error_room = room;
    error[0] = 0, failed = false, grids = 0;
    threads = block[0] * block[1] * block[2];
    unsigned blocks = grid[0] * grid[1] * grid[2];
    if (!threads || threads > 1024 || block[2] > 64 || !blocks || grid[1] > 65535 || grid[2] > 65535)
        return shim_fail("a launch of %ux%ux%u blocks of %u threads is not allowed", grid[0], grid[1], grid[2], threads);
    if (dynamic > sizeof shim_dynamic) return shim_fail("%u bytes of dynamic shared memory are too many", dynamic);
    blockDim = {block[0], block[1], block[2]}, gridDim = {grid[0], grid[1], grid[2]};
    std::mt19937 random(seed);
    std::vector<unsigned> turns(blocks);
    for (unsigned i = 0; i < blocks; i++) turns[i] = i;
    if (seed) std::shuffle(turns.begin(), turns.end(), random);
    order.resize(threads);
    for (unsigned i = 0; i < threads; i++) order[i] = i;
    tables.resize((threads + 31) / 32);
    size_t fixed = __stop_shim_shared - __start_shim_shared;
    fibers.assign((size_t)threads * (cooperative ? blocks : 1), Fiber());
    if (!reserve_stacks(fibers.size() * STACK)) return shim_fail("no memory for the stacks of %zu threads", fibers.size());
    std::vector<std::vector<char>> kept(cooperative ? blocks : 0); // shared memory of blocks that wait for the grid
    checker_begin(dynamic);

    auto begin = [&](Fiber* f, unsigned b) {
        for (unsigned t = 0; t < threads; t++) {
            f[t] = Fiber();
            f[t].index = {t % block[0], t / block[0] % block[1], t / (block[0] * block[1])};
            f[t].block = b, f[t].thread = t, f[t].stack = stacks + (f + t - fibers.data()) * STACK;
        }
        memset(__start_shim_shared, 0xFF, fixed);
        memset(shim_dynamic, 0xFF, dynamic);
        checker_block(b, true);
        if (seed) std::shuffle(order.begin(), order.end(), random);
    };
    for (bool first = true; !failed; first = false, grids++) {
        unsigned ended = 0;
        for (unsigned b : turns) {
            Fiber* f = &fibers[cooperative ? (size_t)b * threads : 0];
            blockIdx = {b % grid[0], b / grid[0] % grid[1], b / (grid[0] * grid[1])};
            if (first) begin(f, b);
            else {
                memcpy(__start_shim_shared, kept[b].data(), fixed);
                memcpy(shim_dynamic, kept[b].data() + fixed, dynamic);
                checker_block(b, false);
                for (unsigned t = 0; t < threads; t++)
                    if (f[t].state == GRID) f[t].state = READY;
            }
            run_block(f);
            if (failed) break;
            unsigned done = std::count_if(f, f + threads, [](const Fiber& x) { return x.state == DONE; });
            if (!cooperative && done < threads)
                shim_fail("a barrier of the grid in an ordinary launch, block %u", b);
            ended += done == threads;
            if (cooperative) {
                kept[b].assign(__start_shim_shared, __stop_shim_shared);
                kept[b].insert(kept[b].end(), shim_dynamic, shim_dynamic + dynamic);
            }
        }
        if (ended == blocks) break;
        if (ended && !failed) shim_fail("%u of %u blocks have ended while others wait for the grid", ended, blocks);
    }
    checker_end();
}
