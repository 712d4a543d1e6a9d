// What the scheduler (runtime.cpp) and the memory checker (checker.cpp) know of each other.
#pragma once
#include <cstddef>
#include <cstdint>

struct Place {          // who accesses memory, and when: a block, a thread in it, and the barriers it has passed
    unsigned block, thread, barriers, exchanges, grids;
};
struct Triple { unsigned x, y, z; };

extern "C" {
extern Triple threadIdx, blockIdx, blockDim, gridDim;
extern unsigned char shim_dynamic[];
extern char __start_shim_shared[] __attribute__((visibility("hidden")));
extern char __stop_shim_shared[] __attribute__((visibility("hidden")));
}

Place shim_place();                                  // of the running thread
bool shim_own_stack(uintptr_t address);              // whether it lies on the running thread's stack
void shim_fail(const char* format, ...);             // ends the launch with this error; a thread that says so stops there
const char* shim_where(unsigned block, unsigned thread);

void checker_begin(size_t dynamic);                  // before a launch
void checker_block(unsigned block, bool fresh);       // before a block runs; a fresh one has new shared memory
void checker_end();
