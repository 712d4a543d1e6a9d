/* eqkernel: equilibrium propagation in C99.
 *
 * Networks of layers 0..L: layer 0 is the clamped input, and each layer is driven by the one below it, s = rho(W s_below
 * + b + gamma W_above^T s_above [+ A s - g a]). `eqk_free_phase` settles, `eqk_nudged_phase` settles again under a nudge of
 * +beta and -beta, `eqk_update` lets every weight learn from the difference of its own two ends, `eqk_train_step` does
 * all three. Below them are the verbs of the connections, the neurons and the FitzHugh-Nagumo field.
 *
 * The library allocates nothing and keeps no state: all memory is the caller's, and every size can be asked for. Every
 * function returns an eqk_status and, unless that is EQK_OK (or EQK_DIVERGED, which says what was done), has written
 * nothing. Arrays are C-contiguous, samples first, must not overlap unless said, and are aligned as their type is. Each
 * function exists for float (_f32) and for double (_f64). A result is the same to the last bit whatever the variant,
 * the batch a sample comes in, and the threads that share the work, but for the sign of a zero, a tolerance above 0, by
 * which the samples of a tile end together, EQK_BF16X3, whose two kinds differ in last bits, and weights that are not
 * finite, which a layer at rest does not meet. Strings that are given back are constants.
 */
#ifndef EQK_REAL /* the end of this file includes the file again, once for each type of real numbers */
#ifndef EQKERNEL_H
#define EQKERNEL_H

#include <stddef.h>
#include <stdint.h>

#if defined(_WIN32) || !defined(__GNUC__)
#define EQK_API
#else
#define EQK_API __attribute__((visibility("default")))
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* <cdef> What follows, up to the closing mark, is what cffi reads too: the Python side has no second copy. */

#define EQK_ABI_VERSION 4

typedef enum {
    EQK_OK = 0,
    EQK_NULL_POINTER = 1,    /* a pointer that is needed is NULL */
    EQK_BAD_SIZE = 2,        /* a size is not positive, or so large that memory of it cannot be addressed */
    EQK_BAD_VALUE = 3,       /* a code or constant is outside its range */
    EQK_SMALL_WORKSPACE = 4, /* the working memory is smaller than was asked for */
    EQK_MISALIGNED = 5,      /* a pointer is not aligned as its type must be */
    EQK_NOT_SUPPORTED = 6,   /* this processor, or this build, cannot run the variant */
    EQK_WRONG_VERSION = 7,   /* the caller was compiled with another version of this header */
    EQK_DIVERGED = 8,        /* the states left the finite numbers: the weights were not changed */
    EQK_NOT_FINITE = 9       /* x or target holds a NaN or an infinity: nothing was computed */
} eqk_status;

/* Which code runs. EQK_AUTO is the fastest that the processor has; the others differ in speed alone. */
typedef enum {
    EQK_AUTO = 0,
    EQK_SCALAR = 1,
    EQK_AVX2 = 2,
    EQK_AVX512 = 3,
    EQK_AVX512_INTEL = 4 /* the same instructions, for the caches of Intel's cores */
} eqk_variant;

/* How the products of dense and lateral connections are formed in the phases of floats. EQK_BF16X3 writes each factor
 * as the sum of two bfloat16, and leaves out the product of the two smaller parts: it errs by 3 2^-16 of a product's
 * size at most, beside the rounding of the sums. It stands for the kind that this processor does faster. */
typedef enum {
    EQK_FULL = 0,
    EQK_BF16X3 = 1,
    EQK_BF16X3_AVX512 = 2, /* with AVX512-BF16 */
    EQK_BF16X3_AMX = 3     /* with AMX */
} eqk_precision;

typedef enum {
    EQK_HARD_SIGMOID = 0, /* rho(d) = min(max(d, 0), 1) */
    EQK_SIGMOID = 1,      /* 1 / (1 + e^-d) */
    EQK_TANH = 2,
    EQK_LINEAR = 3,
    EQK_SOFTMAX = 4, /* of the last layer above a hidden one only: a readout outside the dynamics, whose cost is
                      * cross-entropy, without lateral, adaptation or convolution */
    EQK_FHN = 5      /* s with s + s^3 = d, |d| < 1e12 (float) or 1e100 (double); far beyond it is NaN */
} eqk_neuron;

typedef enum { EQK_SYNCHRONOUS = 0, EQK_EVEN_ODD = 1, EQK_SWEEP = 2 } eqk_order;
/* What settles under the nudge: one state; the + and - states; their difference; their mean and difference. */
typedef enum { EQK_STATE = 1, EQK_STATES = 2, EQK_DIFFERENCE = 3, EQK_MEAN_DIFFERENCE = 4 } eqk_form;
typedef enum { EQK_FROZEN = 0, EQK_LIVE = 1 } eqk_nudge;
typedef enum { EQK_GRADIENT = 0, EQK_SGD = 1, EQK_MOMENTUM = 2, EQK_ADAM = 3 } eqk_rule;
typedef enum { EQK_PERIODIC = 0, EQK_NEUMANN = 1 } eqk_boundary;
typedef enum { EQK_NO_POOL = 0, EQK_MAX_POOL = 1, EQK_AVERAGE_POOL = 2 } eqk_pool;

/* One layer. weight (n, n_below), bias (n) and lateral (n, n) say where in the flat array of parameters a matrix
 * begins, -1 where there is none (only laterals may be missing, and all three in layer 0); row is the sum of the sizes
 * of layers 1.. below this one, 0 for layers 0 and 1. Of a map bias is (channels); of a convolution weight is (channels,
 * kernel, kernel, channels below). What follows row may be left out of an initialiser. */
typedef struct {
    int64_t size, weight, bias, lateral, neuron, row;
    int64_t height, width, channels;              /* of a map; all 0 where the layer is none */
    int64_t kernel, stride, padding, pool, window; /* of the convolution from the map below; all 0 where W is a matrix */
    int64_t on_rate; /* of the last layer: whether the nudge moves its rate, rho(drive) + beta (t - s), not its drive */
    double adaptation, tau; /* g >= 0 and tau >= 1 of a current a that tires a neuron as it fires, tau da/dt = s - a */
} eqk_layer;

/* How a network settles: see eqkernel's schedules. 0 < gamma <= 1, 0 < step <= 1 (< 2 in even-odd order, where more than
 * 1 over-relaxes), steps of at least 1. A phase of a tile of samples ends early once its residual (see eqk_report) is
 * below `tolerance` (0: never); a tile is EQK_TILE bytes of samples, 32 floats or 16 doubles, and half of that in a
 * network that has convolutions. */
typedef struct {
    double gamma, step, tolerance;
    int64_t free_steps, nudged_steps;
    int32_t order, form, nudge, precision; /* eqk_order, eqk_form, eqk_nudge, eqk_precision */
} eqk_schedule;

/* What a phase did to a tile: steps taken, the largest change of a state in the last of them (under a nudge, per unit
 * of beta; of a current that tires, times its strength), and the largest in the first half of the steps. */
typedef struct {
    double steps, residual, early;
} eqk_report;

/* What an optimiser needs for the step to come, all of it finite in the type of the job: rate, decoupled weight decay, which
 * biases have none of, and the constants of its rule, by which w <- (1 - rate decay) w - rate step:
 * momentum: {mu}, v <- mu v + g, step v;
 * Adam: {beta_1, 1 - beta_1, beta_2, 1 - beta_2, eps > 0, a = 1 / (1 - beta_1^t), b = 1 / (1 - beta_2^t)},
 * m <- beta_1 m + (1 - beta_1) g, v <- beta_2 v + (1 - beta_2) g^2, step a m / (sqrt(b v) + eps). */
typedef struct {
    double rate, decay, constants[7];
    int32_t rule, unused; /* eqk_rule; with EQK_GRADIENT the gradient replaces `parameters` */
} eqk_optimiser;

/* A convolution from a map (pre_height, pre_width, pre_channels): kernels of kernel x kernel, moved by `stride`, run over
 * the map with `padding` zeros on every side (padding < kernel), and windows of window x window, side by side, are pooled
 * (eqk_pool; without, window is 1; at most 2048). Averages of a stride longer than the kernel see zeros times the pixels that
 * it leaps over: an infinity there is a NaN. A side n of a map becomes ((n + 2 padding - kernel) / stride + 1) / window. */
typedef struct {
    int64_t pre_height, pre_width, pre_channels, post_channels, kernel, stride, padding, pool, window;
} eqk_conv;

/* The FitzHugh-Nagumo field on a grid: du/dt = Du lap u + u - u^3 - v and dv/dt = Dv lap v + eps (u - alpha v - beta),
 * in steps of dt for u and dt_v for v. */
typedef struct {
    double Du, Dv, eps, alpha, beta, dt, dt_v;
} eqk_field;

#define EQK_TILE 128       /* bytes of samples in a tile */
#define EQK_FIELD_STEPS 32 /* steps of the field in one pass, at most */

EQK_API int eqk_abi_version(void); /* EQK_ABI_VERSION of the library, to be compared with that of the header */
EQK_API const char *eqk_status_text(int status);
EQK_API int eqk_best_variant(void); /* what EQK_AUTO stands for on this processor */
EQK_API int eqk_runs_variant(int variant); /* whether this processor can run it */
EQK_API const char *eqk_variant_name(int variant);

/* EQK_BF16X3_AVX512 or EQK_BF16X3_AMX, what EQK_BF16X3 stands for here; EQK_FULL if this processor or build has neither.
 * Linux lends a process the registers of AMX when it asks, as this does. */
EQK_API int eqk_bf16x3(void);
EQK_API const char *eqk_precision_name(int precision);

/* The map of post, and its size n_post = height width post_channels; each may be NULL. */
EQK_API eqk_status eqk_conv_post(const eqk_conv *conv, int64_t *height, int64_t *width, int64_t *n_post);

#define EQK_REAL float
#define EQK(name) eqk_##name##_f32
#include "eqkernel.h"
#undef EQK_REAL
#undef EQK
#define EQK_REAL double
#define EQK(name) eqk_##name##_f64
#include "eqkernel.h"
#undef EQK_REAL
#undef EQK

#ifdef __cplusplus
}
#endif
#endif
#else

/* <real> EQK_REAL is float or double, EQK(dense_energy) is eqk_dense_energy_f32 or eqk_dense_energy_f64. */

/* -- layered networks, tile by tile ----------------------------------------------------------------------------------
 *
 * One structure holds what all phases of a network need; fill it once (zeros mean "not used") and call again and again.
 * work: eqk_workspace(job) bytes, which keep the free phase for the nudged one (and packed weights, see eqk_pack); they
 * are the only link between calls. A network has at most 2^20 layers, and work is divided into as many parts at most.
 */
typedef struct {
    int32_t version, variant; /* EQK_ABI_VERSION; an eqk_variant */
    const eqk_layer *layers;  /* [count], from the input to the output */
    int64_t count, parameter_count;
    EQK_REAL *parameters; /* [parameter_count] */
    eqk_schedule schedule;
    double beta;           /* > 0; for EQK_STATE either sign */
    int64_t batch;         /* B >= 1 */
    const EQK_REAL *x;     /* (B, n_0) */
    const EQK_REAL *target; /* (B, n_L); may be NULL if there are labels */
    const int64_t *labels; /* (B) in 0..n_L - 1; the target is then 1 at the label and 0 elsewhere */
    EQK_REAL *state;       /* free states of layers 1..L, one block (B, n_l) after the other */
    EQK_REAL *mean;        /* (s+ + s-)/2 in the same blocks, and */
    EQK_REAL *difference;  /* (s+ - s-)/(2 beta); for a softmax readout p and t - p; for EQK_STATE of s and the free s */
    EQK_REAL *winners;     /* the same blocks, or NULL; see eqk_update */
    eqk_report *report;    /* [2][tiles]: of the free, then of the nudged phase */
    eqk_optimiser optimiser;
    EQK_REAL *first, *second; /* [parameter_count] the optimiser's moments, where its rule has any; 0 before step 1 */
    void *work; /* aligned as EQK_REAL is */
    size_t work_size;
} EQK(job);

/* Bytes of `work`; 0 if the layers or the batch are not what a job may hold. */
EQK_API size_t EQK(workspace)(const EQK(job) * job);

/* How many tiles the batch makes; 0 if the layers or the batch are not what a job may hold. */
EQK_API int64_t EQK(tiles)(const EQK(job) * job);

/* For a precision other than EQK_FULL: share `part` of `parts` of the weights, into the form that the phases read in
 * work; all of it before a phase, and again when parameters have changed. For EQK_FULL nothing. */
EQK_API eqk_status EQK(pack)(const EQK(job) * job, int64_t part, int64_t parts);

/* The phases of tiles first..last - 1, of which each may run in a thread of its own. Settles from rest; under the
 * nudge, from the free state that work holds; both, tile by tile. EQK_NOT_FINITE for a NaN or an infinity in these tiles'
 * samples, of x before a free phase and of target before a nudged one. */
EQK_API eqk_status EQK(free_phase)(const EQK(job) * job, int64_t first, int64_t last);
EQK_API eqk_status EQK(nudged_phase)(const EQK(job) * job, int64_t first, int64_t last);
EQK_API eqk_status EQK(settle)(const EQK(job) * job, int64_t first, int64_t last);

/* The Hebbian contrast of mean and difference, and one step of the optimiser, for share `part` of `parts` of the rows
 * of every matrix; shares may run in threads of their own. Of W it is d_post m_pre^T + m_post d_pre^T, and after one
 * half-sweep up and one down (EQK_SWEEP, 1 + 1 steps), when no feedback has reached the free state, the first product alone.
 * Which places win a max pooling it finds anew from the mean, unless it has noted `winners`: a nudged phase writes them
 * where its mean is the state that chose them (EQK_SWEEP, an odd number of free steps, tolerance 0, EQK_DIFFERENCE), and an
 * update under that schedule reads them (the blocks of layers whose maxima are pooled alone). gamma^(layers below the top
 * one), by which it divides, must not leave the type. It overwrites work, of which it needs eqk_update_workspace(job, parts)
 * bytes (0 for a network of small matrices). A lateral matrix stays symmetric but for rounding: who trains for long
 * symmetrises it now and then. */
EQK_API size_t EQK(update_workspace)(const EQK(job) * job, int64_t parts);
EQK_API eqk_status EQK(update)(const EQK(job) * job, int64_t part, int64_t parts);

/* Of a batch whose phases are done: the mean cost, and how many labels the most active output has right (either place
 * may be NULL; 0 without labels). The cost of a sample is -sum t ln p of a softmax readout, -sum t ln s + (1 - t) ln(1 - s) of
 * a layer that is on_rate, else |t - s|^2 / 2, to the target where there is one, else to the label. EQK_DIVERGED, and nothing
 * should learn from it, if a state is not finite or the residual of 20 or more steps has grown. */
EQK_API eqk_status EQK(measure)(const EQK(job) * job, double *loss, int64_t *correct);

/* Both phases of the whole batch, eqk_measure, and the update, unless one of them refuses. Leaves no free phase in work. */
EQK_API eqk_status EQK(train_step)(const EQK(job) * job, double *loss, int64_t *correct);

/* -- verbs: each adds into its first argument ------------------------------------------------------------------------
 *
 * pre (B, n_pre), post (B, n_post), weight (n_post, n_pre) of a dense connection, (n) of a bias, (n, n) symmetric of a
 * lateral one, whose two ends are one layer (B, n).
 * dense: Phi = post . W pre; bias: Phi = b . post; lateral: Phi = s . W s / 2. energy (B) -= Phi, drive (B, n) +=
 * dPhi/dstate, trace += scale sum_B dPhi/dweight. work: eqk_dense_workspace(n_pre, n_post) bytes.
 */
EQK_API size_t EQK(dense_workspace)(int64_t n_pre, int64_t n_post);
EQK_API eqk_status EQK(dense_energy)(int variant, EQK_REAL *energy, const EQK_REAL *pre, const EQK_REAL *post,
                                     const EQK_REAL *weight, int64_t batch, int64_t n_pre, int64_t n_post);
EQK_API eqk_status EQK(dense_drive_post)(int variant, EQK_REAL *drive, const EQK_REAL *pre, const EQK_REAL *weight,
                                         int64_t batch, int64_t n_pre, int64_t n_post, void *work, size_t work_size);
EQK_API eqk_status EQK(dense_drive_pre)(int variant, EQK_REAL *drive, const EQK_REAL *post, const EQK_REAL *weight,
                                        int64_t batch, int64_t n_pre, int64_t n_post);
EQK_API eqk_status EQK(dense_hebbian)(int variant, EQK_REAL *trace, const EQK_REAL *pre, const EQK_REAL *post,
                                      double scale, int64_t batch, int64_t n_pre, int64_t n_post);

EQK_API eqk_status EQK(bias_energy)(int variant, EQK_REAL *energy, const EQK_REAL *post, const EQK_REAL *weight,
                                    int64_t batch, int64_t n);
EQK_API eqk_status EQK(bias_drive_post)(int variant, EQK_REAL *drive, const EQK_REAL *weight, int64_t batch, int64_t n);
EQK_API eqk_status EQK(bias_hebbian)(int variant, EQK_REAL *trace, const EQK_REAL *post, double scale, int64_t batch,
                                     int64_t n);

/* drive_post and drive_pre of a lateral connection are each half of W s; pre and post are both the layer's state, which
 * may be the same array. */
EQK_API eqk_status EQK(lateral_energy)(int variant, EQK_REAL *energy, const EQK_REAL *pre, const EQK_REAL *post,
                                       const EQK_REAL *weight, int64_t batch, int64_t n);
EQK_API eqk_status EQK(lateral_drive_post)(int variant, EQK_REAL *drive, const EQK_REAL *pre, const EQK_REAL *weight,
                                           int64_t batch, int64_t n, void *work, size_t work_size);
EQK_API eqk_status EQK(lateral_drive_pre)(int variant, EQK_REAL *drive, const EQK_REAL *post, const EQK_REAL *weight,
                                          int64_t batch, int64_t n);
EQK_API eqk_status EQK(lateral_hebbian)(int variant, EQK_REAL *trace, const EQK_REAL *pre, const EQK_REAL *post,
                                        double scale, int64_t batch, int64_t n);

/* Convolution, Phi = <post, P(K * pre)>: maps pre (B, n_pre) and post (B, n_post), a pixel's channels together; weight
 * (post_channels, kernel, kernel, pre_channels); P the pooling. energy (B) -= Phi, drive (B, n_post or n_pre) +=
 * dPhi/dstate, trace += scale sum_B dPhi/dweight. winners (B, n_post): for max pooling the place that wins in each window,
 * counted row by row, which conv_choose writes (the largest of K * pre, the first of equals) and the others keep; not
 * read without. work: eqk_conv_workspace(conv) bytes, 0 if there is no such convolution. */
EQK_API size_t EQK(conv_workspace)(const eqk_conv *conv);
EQK_API eqk_status EQK(conv_energy)(int variant, EQK_REAL *energy, const EQK_REAL *pre, const EQK_REAL *post,
                                    const EQK_REAL *weight, const int32_t *winners, const eqk_conv *conv, int64_t batch,
                                    void *work, size_t work_size);
EQK_API eqk_status EQK(conv_drive_post)(int variant, EQK_REAL *drive, const EQK_REAL *pre, const EQK_REAL *weight,
                                        const int32_t *winners, const eqk_conv *conv, int64_t batch, void *work,
                                        size_t work_size);
EQK_API eqk_status EQK(conv_drive_pre)(int variant, EQK_REAL *drive, const EQK_REAL *post, const EQK_REAL *weight,
                                       const int32_t *winners, const eqk_conv *conv, int64_t batch, void *work,
                                       size_t work_size);
EQK_API eqk_status EQK(conv_hebbian)(int variant, EQK_REAL *trace, const EQK_REAL *pre, const EQK_REAL *post,
                                     double scale, const int32_t *winners, const eqk_conv *conv, int64_t batch,
                                     void *work, size_t work_size);
EQK_API eqk_status EQK(conv_choose)(int variant, int32_t *winners, const EQK_REAL *pre, const EQK_REAL *weight,
                                    const eqk_conv *conv, int64_t batch, void *work, size_t work_size);

/* Neurons, of arrays of `count` elements whatever their shape, no EQK_SOFTMAX but of a potential; softmax is (B, n).
 * rate: out = rho(drive); relax: state += step (rho(drive) - state); difference: out = rho(m + c/2) - rho(m - c/2) without
 * cancellation; potential: energy (B) += sum of the integral of rho^-1 over state (B, n). */
EQK_API eqk_status EQK(neurons_rate)(int variant, EQK_REAL *out, const EQK_REAL *drive, int64_t count, int neuron);
EQK_API eqk_status EQK(neurons_relax)(int variant, EQK_REAL *state, const EQK_REAL *drive, double step, int64_t count,
                                      int neuron);
EQK_API eqk_status EQK(neurons_difference)(int variant, EQK_REAL *out, const EQK_REAL *mean,
                                           const EQK_REAL *drive_difference, int64_t count, int neuron);
EQK_API eqk_status EQK(neurons_softmax)(int variant, EQK_REAL *out, const EQK_REAL *drive, int64_t batch, int64_t n);
EQK_API eqk_status EQK(neurons_potential)(int variant, EQK_REAL *energy, const EQK_REAL *state, int64_t batch,
                                          int64_t n, int neuron);

/* Diffusion on grids (B, rows, width), Phi = -D/2 sum over neighbours of (s_i - s_j)^2; a line is a grid of one row.
 * energy (B) -= Phi; drive += D/2 lap s; trace (1) += scale/2 sum_B post . lap pre. */
EQK_API eqk_status EQK(diffusion_energy)(int variant, EQK_REAL *energy, const EQK_REAL *pre, const EQK_REAL *post,
                                         double D, int64_t batch, int64_t rows, int64_t width, int boundary);
EQK_API eqk_status EQK(diffusion_drive_post)(int variant, EQK_REAL *drive, const EQK_REAL *pre, double D, int64_t batch,
                                             int64_t rows, int64_t width, int boundary);
EQK_API eqk_status EQK(diffusion_hebbian)(int variant, EQK_REAL *trace, const EQK_REAL *pre, const EQK_REAL *post,
                                          double scale, int64_t batch, int64_t rows, int64_t width, int boundary);

/* Rows first..last - 1 of `after` become those of `before` `steps` steps later, both (2, rows, width): u, then v.
 * Several steps go through one pass over memory (at most EQK_FIELD_STEPS). largest receives the largest |u| or |v| of
 * these rows, NaN if there is one. work: eqk_field_workspace(width, steps) bytes. */
EQK_API size_t EQK(field_workspace)(int64_t width, int64_t steps);
EQK_API eqk_status EQK(field_advance)(int variant, EQK_REAL *after, const EQK_REAL *before, const eqk_field *field,
                                      int64_t rows, int64_t width, int64_t steps, int boundary, int64_t first,
                                      int64_t last, EQK_REAL *largest, void *work, size_t work_size);
/* </real> </cdef> */
#endif
