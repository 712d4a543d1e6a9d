/* Equilibrium propagation in integers: the specification, and the interface of eqk_int.c.
 *
 * START HERE TO PORT. A network of NX inputs, NH hidden and NO output neurons (hard sigmoid), joined by symmetric weights,
 * learns from the difference of its own states. No floating point, no division, no table, no heap; every array and
 * every trip count is a compile-time constant. A port is right when it repeats the files of vectors/ to the last bit.
 *
 * NUMBERS. All are two's complement. FRAC = EQK_FRAC; SMAX = 127 << FRAC stands for 1.0.
 *
 *   x, t      8 bits, signed     input and target, 127 = 1.0. A bias is an input that is always 127. Any value is legal.
 *   master    16 bits, signed    the weight that learns, in [-32767, 32767]; 256 masters are one step of the weight
 *   weight    8 bits, signed     what the drives see, in [-127, 127], or ternary in {-1, 0, 1} (R6)
 *   state     16 bits            hidden h and output o, in [0, SMAX]
 *   response  16 bits, signed    c = ds/dbeta in the difference form, in [-SMAX, SMAX]
 *   drive     32 bits, signed    exact: no accumulator can overflow for the sizes allowed below
 *
 * RULES. Every operation is one of these.
 *
 *   R1  asr(v, n)      floor(v / 2^n): arithmetic shift right, negative v included
 *   R2  clamp(v, a, b) a if v < a, b if v > b, else v
 *   R3  round(v, n)    asr(v + 2^(n-1), n), and v itself for n = 0: half goes up, for negative v too
 *   R4  scale(a, n)    accumulator to state units: a * 2^(FRAC-n) if n <= FRAC, else round(a, n - FRAC)
 *   R5  send(s)        round(s, FRAC): the 8 bits of a state or response that other neurons see
 *   R6  weight(m)      q = clamp(round(m, 8), -127, 127); ternary: 1 if q > THRESHOLD, -1 if q < -THRESHOLD, else 0
 *   R7  relax(s, r)    s + round(r - s, LEAK): a step of size 2^-LEAK from s towards r
 *   R8  secant(u, v)   what a drive u becomes when v * beta is added and taken away, per 2 beta, beta = 2^-BETA:
 *                      U = clamp(u, -SMAX, 2 SMAX) * 2^BETA, V = clamp(v, -SMAX, SMAX),
 *                      asr(clamp(U + V, 0, SMAX 2^BETA) - clamp(U - V, 0, SMAX 2^BETA), 1)
 *   R9  learn(m, g)    clamp(m + asr(g + r, rate), -32767, 32767), with r = 2^(rate-1) (0 if rate = 0) for nearest
 *                      rounding, or the low `rate` bits of R10 for stochastic rounding
 *   R10 noise          all sums modulo 2^32: v = batch * (NX + NO) + word, where word is the input j of a weight
 *                      w1[i][j], and NX + j for w2[j][i]; twice v += v << 10, v ^= v >> 6, v += v << 3, v ^= v >> 11,
 *                      v += v << 15; then v ^= v >> 16; neuron i takes v rotated right by i mod 32
 *
 * STEPS. All neurons step at once, from the values sent before the step.
 *
 *   input drive   D[i] = scale(sum_j w1[i][j] x[j], SHIFT1)
 *   drive of h    u_h[i] = D[i] + scale(sum_j w2[j][i] send(o[j]), SHIFT2 + GAMMA)      the same synapses, read backwards
 *   drive of o    u_o[j] = scale(sum_i w2[j][i] send(h[i]), SHIFT2) + nudge[j]
 *   relax         s = relax(s, clamp(u, 0, SMAX))
 *
 *   free phase    T_FREE steps from s = 0 with nudge = 0
 *   error         e[j] = t[j] * 2^FRAC - o[j] at the free state
 *   nudged phase  one of two forms:
 *     plus-minus  T_NUDGED steps from the free state with nudge = round(e, BETA), and as many with -round(e, BETA)
 *     difference  T_NUDGED steps of the response c from 0 about the drives u of the last free step:
 *                 v_h[i] = scale(sum_j w2[j][i] send(c_o[j]), SHIFT2)
 *                 v_o[j] = scale(sum_i w2[j][i] send(c_h[i]), SHIFT2 + GAMMA) + e[j];     c = relax(c, secant(u, v))
 *   traces        g1[i][j] += a[i] x[j];  g2[j][i] += p[j] q[i] + r[j] s[i]
 *     plus-minus  a = h+ - h-, p = o+, q = send(h+), r = -o-, s = send(h-)
 *     difference  a = c_h,     p = c_o, q = send(h), r = send(o), s = asr(c_h, GAMMA)
 *   update        after at most BATCH_MAX samples, m = learn(m, g) for every weight, then g = 0
 *   prediction    the first output whose free state is largest
 *
 * GAMMA is the shift of all feedback. In the difference form c_h is kept 2^GAMMA times too large, which restores the
 * 2^-GAMMA that weak feedback takes from the gradient of w1. */
#ifndef EQK_INT_H
#define EQK_INT_H
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#ifndef EQK_NX
#define EQK_NX 65 /* inputs: 64 pixels and the constant one */
#endif
#ifndef EQK_NH
#define EQK_NH 64
#endif
#ifndef EQK_NO
#define EQK_NO 10
#endif
#ifndef EQK_T_FREE
#define EQK_T_FREE 20
#endif
#ifndef EQK_T_NUDGED
#define EQK_T_NUDGED 8
#endif
#ifndef EQK_LEAK
#define EQK_LEAK 1 /* step of a relaxation: 2^-LEAK */
#endif
#ifndef EQK_FRAC
#define EQK_FRAC 7 /* bits of a state below the 7 that are sent */
#endif
#ifndef EQK_BETA
#define EQK_BETA 1 /* beta = 2^-BETA */
#endif
#ifndef EQK_GAMMA
#define EQK_GAMMA 0 /* gain of feedback: 2^-GAMMA */
#endif
#ifndef EQK_SHIFT1
#define EQK_SHIFT1 6 /* one step of a weight of w1 is 2^-SHIFT1 */
#endif
#ifndef EQK_SHIFT2
#define EQK_SHIFT2 6
#endif
#ifndef EQK_THRESHOLD
#define EQK_THRESHOLD 0 /* 0: 8-bit weights; 1 to 126: ternary weights, and this threshold */
#endif
#ifndef EQK_STOCHASTIC
#define EQK_STOCHASTIC 1 /* rounding of the update: 1 stochastic, 0 nearest */
#endif
#ifndef EQK_INT_DIFFERENCE
#define EQK_INT_DIFFERENCE 0 /* form of the nudged phase: 0 plus-minus, 1 difference */
#endif

#define EQK_SMAX (127 << EQK_FRAC)
#define EQK_WMAX 32767
#define EQK_BATCH_MAX 255 /* samples whose traces an int32 surely holds: each adds less than 2^22 */
#define EQK_RATE_MAX 24

/* Every accumulator fits: |sum| <= n 2^14, shifted left by at most FRAC, plus an error or another such sum. */
#define EQK_LEFT(shift) (EQK_FRAC > (shift) ? EQK_FRAC - (shift) : 0)
#if EQK_NX < 1 || EQK_NH < 1 || EQK_NO < 1 || EQK_T_FREE < 1 || EQK_T_NUDGED < 1
#error "sizes and steps are at least 1"
#elif EQK_NX > (65536 >> EQK_LEFT(EQK_SHIFT1)) || EQK_NH + EQK_NO > (65536 >> EQK_LEFT(EQK_SHIFT2))
#error "too many neurons for 32-bit drives: raise EQK_SHIFT1, EQK_SHIFT2 or lower EQK_FRAC"
#elif EQK_FRAC < 0 || EQK_FRAC > 7 || EQK_LEAK < 0 || EQK_LEAK > 7 || EQK_BETA < 0 || EQK_BETA > 12
#error "EQK_FRAC and EQK_LEAK lie in 0..7, EQK_BETA in 0..12"
#elif EQK_GAMMA < 0 || EQK_GAMMA > 12 || EQK_SHIFT1 < 0 || EQK_SHIFT1 > 15 || EQK_SHIFT2 < 0 || EQK_SHIFT2 > 15
#error "EQK_GAMMA lies in 0..12, EQK_SHIFT1 and EQK_SHIFT2 in 0..15"
#elif EQK_THRESHOLD < 0 || EQK_THRESHOLD > 126
#error "EQK_THRESHOLD lies in 0..126"
#elif defined EQK_DIFFERENCE
#error "EQK_DIFFERENCE is a name of eqkernel.h: the form is EQK_INT_DIFFERENCE"
#endif

typedef struct {
    int16_t w1[EQK_NH][EQK_NX];
    int16_t w2[EQK_NO][EQK_NH];
} eqk_masters;

typedef struct {
    int8_t w1[EQK_NH][EQK_NX];
    int8_t w2[EQK_NO][EQK_NH];
} eqk_weights;

typedef struct {
    int32_t w1[EQK_NH][EQK_NX];
    int32_t w2[EQK_NO][EQK_NH];
} eqk_trace;

typedef struct { /* states, or responses, of all neurons */
    int16_t h[EQK_NH];
    int16_t o[EQK_NO];
} eqk_state;

typedef struct { /* drives */
    int32_t h[EQK_NH];
    int32_t o[EQK_NO];
} eqk_drive;

typedef struct { /* the two ends of every synapse: a[i] x[j], and p[j] q[i] + r[j] s[i] */
    int16_t a[EQK_NH], q[EQK_NH], s[EQK_NH];
    int16_t p[EQK_NO], r[EQK_NO];
} eqk_ends;

/* What a caller should look at: counts since it last cleared them. States are clamped, so a run that diverges shows no
 * NaN; it shows clipped weights and stuck samples. */
typedef struct {
    uint32_t samples;
    uint32_t unsettled; /* samples that ended the free phase with a neuron over 2^FRAC from the rate of its last drive */
    uint32_t stuck;     /* samples with an error of over half the range to which no weight's trace owes anything */
    uint32_t clipped;   /* weights that R9 had to clamp */
} eqk_int_report;

typedef enum {
    EQK_INT_OK = 0,
    EQK_INT_DIVERGED = 1,      /* all was done, but over half the samples were stuck or over 1/16 of the weights clipped */
    EQK_INT_BAD_ARGUMENT = -1, /* a null pointer, or a number out of range: nothing was done */
} eqk_int_status;

typedef struct { /* the memory of a training step; the caller owns it, and clears `report` when it likes */
    eqk_weights weights;
    eqk_trace trace;
    eqk_int_report report;
} eqk_workspace;

/* One call of each is one paragraph of STEPS above. */
void eqk_quantise(const eqk_masters *masters, eqk_weights *weights);
void eqk_input_drive(const eqk_weights *weights, const int8_t x[EQK_NX], int32_t drive[EQK_NH]);
void eqk_settle(const eqk_weights *weights, const int32_t drive[EQK_NH], const int16_t nudge[EQK_NO], int steps,
                eqk_state *state, eqk_drive *last); /* `last`: the drives of the last step */
void eqk_error(const eqk_state *free_state, const int8_t t[EQK_NO], int16_t error[EQK_NO]);
void eqk_plus_minus(const eqk_weights *weights, const int32_t drive[EQK_NH], const eqk_state *free_state,
                    const int16_t error[EQK_NO], eqk_ends *ends);
void eqk_difference(const eqk_weights *weights, const eqk_state *free_state, const eqk_drive *last,
                    const int16_t error[EQK_NO], eqk_ends *ends);
int eqk_accumulate(const eqk_ends *ends, const int8_t x[EQK_NX], eqk_trace *trace); /* was any weight's part not 0? */
uint32_t eqk_noise(uint32_t counter);                            /* R10, not rotated yet */
int32_t eqk_rounding(uint32_t noise, int neuron, int rate);      /* r of R9 */
uint32_t eqk_update(eqk_masters *masters, const eqk_trace *trace, int rate1, int rate2, uint32_t batch); /* clipped */

/* One sample: free phase, nudged phase, traces; counts into `report`. `state` and `ends` show what happened. */
void eqk_sample(const eqk_weights *weights, const int8_t x[EQK_NX], const int8_t t[EQK_NO], eqk_state *state,
                eqk_ends *ends, eqk_trace *trace, eqk_int_report *report);

/* One training step on n samples (n, NX), (n, NO), 1 <= n <= BATCH_MAX; 0 <= rate <= RATE_MAX; `batch` numbers the step. */
eqk_int_status eqk_train(eqk_masters *masters, const int8_t *x, const int8_t *t, int n, int rate1, int rate2,
                         uint32_t batch, eqk_workspace *work);

/* labels (n,) of x (n, NX). */
eqk_int_status eqk_predict(const eqk_masters *masters, const int8_t *x, int n, int32_t *labels, eqk_workspace *work);

#ifdef __cplusplus
}
#endif
#endif
