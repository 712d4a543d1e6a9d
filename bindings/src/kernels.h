/* All kernels of one variant and type, as a table: each of the small .c files beside this one is one variant, compiled
 * for its own instructions whatever the compiler's flags are.
 *
 * The ABI (abi*.h) has checked every argument before a kernel sees it.
 */
#if REAL_BITS == 32
#define JOB eqk_job_f32
#else
#define JOB eqk_job_f64
#endif

#include "packing.h"
#include "table.h"
#include "vector.h"

#include "neurons.h"

#include "gemm.h"

#include "zeros.h"

#include "samples.h"

#include "elements.h"

#include "correlate.h"

#include "pooling.h"

#include "winners.h"

#include "trace.h"

#include "conv.h"

#include "tiles.h"

#include "products.h"

#include "drives.h"

#include "chain.h"

#include "phases.h"

#include "learn.h"

#include "update.h"

#include "dense.h"

#include "diffusion.h"

#include "field.h"

static void neurons_rate(real *out, const real *drive, int64_t count, int neuron) {
    for (int64_t i = 0; i < count; i += LANES)
        v_store_some(out + i, rate_of(v_load_some(drive + i, count - i), neuron), count - i);
}

static void neurons_difference(real *out, const real *mean, const real *c, int64_t count, int neuron) {
    for (int64_t i = 0; i < count; i += LANES) {
        vec value = difference_of(v_load_some(mean + i, count - i), v_load_some(c + i, count - i), neuron);
        v_store_some(out + i, value, count - i);
    }
}

static void neurons_relax(real *state, const real *drive, double step, int64_t count, int neuron) {
    for (int64_t i = 0; i < count; i += LANES) {
        vec old = v_load_some(state + i, count - i), goal = rate_of(v_load_some(drive + i, count - i), neuron);
        v_store_some(state + i, v_add(old, v_mul(v_set((real)step), v_sub(goal, old))), count - i);
    }
}

static void neurons_softmax(real *out, const real *drive, int64_t batch, int64_t n) {
    for (int64_t b = 0; b < batch; b++)
        softmax_rows(out + b * n, drive + b * n, n, 1);
}

const KERNELS = {
    free_phase,       nudged_phase,      update,
    dense_energy,     dense_drive_post,  dense_drive_pre,    dense_hebbian,
    bias_energy,      bias_drive_post,   bias_hebbian,
    conv_energy,      conv_drive_post,   conv_drive_pre,     conv_hebbian,       conv_choose,
    neurons_rate,     neurons_relax,     neurons_difference, neurons_softmax,
    diffusion_energy, diffusion_drive_post, diffusion_hebbian,
    field_advance,
};
