// Watches every access to memory of kernels built with -fsanitize=thread, whose hooks are defined here.
//
// Finds races, accesses outside the arrays of a launch, writes through pointers to const and reads of shared memory that
// nobody has written. Counts, for each warp access, 32-byte sectors of global memory and passes over the banks of shared
// memory.
#include "runtime.h"
#include <algorithm>
#include <cstdlib>
#include <map>
#include <unordered_map>
#include <vector>

namespace {

struct Access {
    Place at;
    bool made, atomic;
};
struct Cell { // four bytes: their last write, and the last reads by two different threads
    Access write, read, earlier;
};
struct Range {
    uintptr_t low, high;
    bool constant;
    std::vector<Cell> cells;
};
struct Request { // what the lanes of a warp do with one instruction at a time
    uintptr_t address[32]; // 0 of a lane that does nothing
    int bytes;
    bool shared, write;
};
using Key = std::pair<const void*, uint64_t>; // instruction; block, warp and how often the lane has come by

bool on, profiling, running, atomic_now;
size_t dynamic_bytes;
std::vector<Range> ranges;
std::unordered_map<unsigned, std::vector<Cell>> shared_cells; // of a block
std::vector<Cell>* shared_now;
std::map<Key, Request> requests;
std::map<Key, unsigned> visits;

bool inside(uintptr_t p, const void* low, const void* high) { return p >= (uintptr_t)low && p < (uintptr_t)high; }

// Whether the access `old` of another thread may happen before or after one at `now`: no barrier lies between.
bool unordered(const Access& old, const Place& now, bool shared) {
    if (!old.made) return false;
    if (old.at.block != now.block) return !shared && old.at.grids == now.grids;
    if (old.at.thread == now.thread || old.at.grids != now.grids || old.at.barriers != now.barriers) return false;
    return old.at.thread / 32 != now.thread / 32 || old.at.exchanges == now.exchanges;
}

void race(const char* now, const char* before, bool shared, const Place& me, const Access& other) {
    shim_fail("race on %s memory: %s by %s and %s by %s with no barrier between", shared ? "shared" : "global", now,
              shim_where(me.block, me.thread), before, shim_where(other.at.block, other.at.thread));
}

void check(Cell& cell, bool write, bool shared) {
    Place me = shim_place();
    if (cell.write.made && !(atomic_now && cell.write.atomic) && unordered(cell.write, me, shared))
        return race(write ? "a write" : "a read", "a write", shared, me, cell.write);
    if (write) {
        for (Access* read : {&cell.read, &cell.earlier})
            if (!(atomic_now && read->atomic) && unordered(*read, me, shared))
                return race("a write", "a read", shared, me, *read);
        cell.write = {me, true, atomic_now};
        return;
    }
    if (shared && !cell.write.made)
        shim_fail("a read of shared memory that nobody has written, by %s", shim_where(me.block, me.thread));
    if (cell.read.made && (cell.read.at.thread != me.thread || cell.read.at.block != me.block)) cell.earlier = cell.read;
    cell.read = {me, true, atomic_now};
}

void note(uintptr_t p, int bytes, bool write, bool shared, const void* instruction) {
    Place me = shim_place();
    uint64_t lane = ((uint64_t)me.block << 32) | me.thread, warp = ((uint64_t)me.block << 40) | me.thread / 32;
    unsigned turn = visits[{instruction, lane}]++;
    Request& request = requests[{instruction, warp << 22 | turn}];
    request.bytes = bytes, request.shared = shared, request.write = write;
    request.address[me.thread % 32] = p;
}

extern "C" __attribute__((visibility("hidden"))) char __ehdr_start[], _end[]; // this module: constants, threadIdx

void access(uintptr_t p, int bytes, bool write, const void* instruction) {
    if (!on || !running || shim_own_stack(p)) return;
    bool dynamic = inside(p, shim_dynamic, shim_dynamic + 232448);
    if (dynamic || inside(p, __start_shim_shared, __stop_shim_shared)) {
        size_t at = dynamic ? p - (uintptr_t)shim_dynamic : p - (uintptr_t)__start_shim_shared + 232448;
        if (dynamic && at + bytes > dynamic_bytes) {
            Place me = shim_place();
            shim_fail("out of bounds: a %s at byte %zu of %zu bytes of dynamic shared memory by %s",
                      write ? "write" : "read", at, dynamic_bytes, shim_where(me.block, me.thread));
            return;
        }
        for (size_t word = at / 4; word * 4 < at + bytes; word++) check((*shared_now)[word], write, true);
        if (profiling) note(p, bytes, write, true, instruction);
        return;
    }
    Range* home = nullptr;
    for (Range& range : ranges)
        if (p >= range.low && p + bytes <= range.high && (!home || !range.constant)) home = &range;
    if (!home) {
        if (inside(p, __ehdr_start, _end)) return;
        Place me = shim_place();
        long nearest = 1L << 62, size = 0;
        for (Range& range : ranges) {
            long past = (long)(p - range.low);
            if (std::labs(past) < std::labs(nearest)) nearest = past, size = range.high - range.low;
        }
        shim_fail("out of bounds: a global %s at byte %ld of an array of %ld bytes by %s", write ? "write" : "read",
                  nearest, size, shim_where(me.block, me.thread));
        return;
    }
    if (write && home->constant) {
        Place me = shim_place();
        shim_fail("a write through a pointer to const by %s", shim_where(me.block, me.thread));
        return;
    }
    if (!home->constant) {
        size_t at = p - home->low;
        for (size_t word = at / 4; word * 4 < at + bytes; word++) check(home->cells[word], write, false);
    }
    if (profiling) note(p, bytes, write, false, instruction);
}

// Sectors of 32 bytes that a request touches.
size_t sectors(const Request& r) {
    std::vector<uintptr_t> found;
    for (int i = 0; i < 32; i++)
        for (uintptr_t s = r.address[i] / 32; r.address[i] && s <= (r.address[i] + r.bytes - 1) / 32; s++) found.push_back(s);
    std::sort(found.begin(), found.end());
    return std::unique(found.begin(), found.end()) - found.begin();
}

// Passes over the 32 banks: 8-byte accesses go by half warps, 16-byte ones by quarters.
size_t passes(const Request& r) {
    int together = r.bytes <= 4 ? 32 : r.bytes <= 8 ? 16 : 8;
    size_t total = 0;
    for (int first = 0; first < 32; first += together) {
        std::map<int, std::vector<uintptr_t>> banks;
        for (int i = first; i < first + together; i++)
            for (uintptr_t w = r.address[i] / 4; r.address[i] && w < (r.address[i] + r.bytes + 3) / 4; w++) banks[w & 31].push_back(w);
        size_t most = !banks.empty();
        for (auto& bank : banks) {
            auto& words = bank.second;
            std::sort(words.begin(), words.end());
            most = std::max<size_t>(most, std::unique(words.begin(), words.end()) - words.begin());
        }
        total += most;
    }
    return total;
}

} // namespace

void checker_begin(size_t dynamic) {
    dynamic_bytes = dynamic, running = true, atomic_now = false;
    shared_cells.clear(), requests.clear(), visits.clear();
}
void checker_block(unsigned block, bool fresh) {
    if (!on) return;
    size_t words = (232448 + (__stop_shim_shared - __start_shim_shared)) / 4 + 4;
    if (fresh && shared_cells.size() > 64) shared_cells.clear(); // of an ordinary launch, whose old blocks have ended
    shared_now = &shared_cells[block];
    if (fresh) shared_now->assign(words, Cell());
}
void checker_end() { running = false; }

extern "C" {
void shim_check(int check, int profile) { on = check, profiling = profile; }
void shim_forget() { ranges.clear(); }
void shim_array(uintptr_t at, size_t bytes, int constant) {
    for (Range& range : ranges)
        if (range.low == at && range.high == at + bytes) {
            if (range.constant && !constant) range.constant = false, range.cells.assign(bytes / 4 + 1, Cell());
            return;
        }
    ranges.push_back({at, at + bytes, (bool)constant, std::vector<Cell>(constant || !on ? 0 : bytes / 4 + 1)});
}
void shim_atomic(int begins) { atomic_now = begins; }
// For global reads, global writes, shared reads, shared writes: requests, and sectors or passes. A request of 8 or 16
// bytes a lane counts as two or four, so that 4 sectors and 1 pass are the least for each size.
void shim_profile(double* out) {
    for (int i = 0; i < 8; i++) out[i] = 0;
    for (auto& entry : requests) {
        const Request& r = entry.second;
        double* row = out + 2 * (2 * r.shared + r.write);
        row[0] += std::max(1, r.bytes / 4);
        row[1] += r.shared ? passes(r) : sectors(r);
    }
}

// -- the hooks of -fsanitize=thread ----------------------------------------------------------------------------------
#define HERE __builtin_return_address(0)
void __tsan_init() {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
void __tsan_read_range(void* p, unsigned long n) { access((uintptr_t)p, n, false, HERE); }
void __tsan_write_range(void* p, unsigned long n) { access((uintptr_t)p, n, true, HERE); }
#define HOOKS(n)                                                                              \
    void __tsan_read##n(void* p) { access((uintptr_t)p, n, false, HERE); }                    \
    void __tsan_write##n(void* p) { access((uintptr_t)p, n, true, HERE); }                    \
    void __tsan_unaligned_read##n(void* p) { access((uintptr_t)p, n, false, HERE); }          \
    void __tsan_unaligned_write##n(void* p) { access((uintptr_t)p, n, true, HERE); }          \
    void __tsan_volatile_read##n(void* p) { access((uintptr_t)p, n, false, HERE); }           \
    void __tsan_volatile_write##n(void* p) { access((uintptr_t)p, n, true, HERE); }
HOOKS(1) HOOKS(2) HOOKS(4) HOOKS(8) HOOKS(16)
}
