/* The phases of layered networks with products of split factors, for the two files that say how `multiply` does them:
 * float, on the vectors of AVX-512. What else a phase does, convolutions too, is the same code in float.
 */
#define SPLIT 1
#define VARIANT_AVX512
#define REAL_BITS 32
#define JOB eqk_job_f32
#pragma GCC diagnostic ignored "-Wunused-function" /* the headers of other kernels hold more than phases need */

#include "packing.h"
#include "table.h"
#include "vector.h"

#include "neurons.h"

#include "gemm.h"

#include "elements.h"

#include "correlate.h"

#include "pooling.h"

#include "winners.h"

#include "trace.h"

#include "conv.h"

#include "tiles.h"

#include "split.h"

static tile tile_at(const JOB *job, int64_t index, int64_t place);

#include "split_products.h"

#include "drives.h"

#include "chain.h"

#include "phases.h"
