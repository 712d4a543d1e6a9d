/* The arithmetic of eqk_int.h in C99, and HLS-style: static sizes, bounded loops, no heap, no recursion. */
#include "eqk_int.h"
#include "eqk_hls.h"

/* C99 leaves >> of a negative number to the compiler; ~v shifts zeros into a non-negative one. */
static int32_t asr(int32_t v, int n) { return v >= 0 ? v >> n : ~(~v >> n); }                         /* R1 */
static int32_t clamp(int32_t v, int32_t a, int32_t b) { return v < a ? a : v > b ? b : v; }           /* R2 */
static int32_t round_shift(int32_t v, int n) { return n > 0 ? asr(v + (1 << (n - 1)), n) : v; }       /* R3 */
static int32_t scale(int32_t a, int n) {                                                              /* R4 */
    return n <= EQK_FRAC ? a * (1 << (n <= EQK_FRAC ? EQK_FRAC - n : 0)) : round_shift(a, n - EQK_FRAC);
}
static int8_t send(int16_t s) { return (int8_t)round_shift(s, EQK_FRAC); }                            /* R5 */

static int8_t weight(int16_t m) {                                                                     /* R6 */
    int32_t q = clamp(round_shift(m, 8), -127, 127);
    if (EQK_THRESHOLD > 0) return (int8_t)((q > EQK_THRESHOLD) - (q < -EQK_THRESHOLD));
    return (int8_t)q;
}

static int16_t relax(int16_t s, int32_t goal) { return (int16_t)(s + round_shift(goal - s, EQK_LEAK)); } /* R7 */

static int32_t secant(int32_t u, int32_t v) {                                                         /* R8 */
    const int32_t top = EQK_SMAX * (1 << EQK_BETA);
    u = clamp(u, -EQK_SMAX, 2 * EQK_SMAX) * (1 << EQK_BETA);
    v = clamp(v, -EQK_SMAX, EQK_SMAX);
    return asr(clamp(u + v, 0, top) - clamp(u - v, 0, top), 1);
}

uint32_t eqk_noise(uint32_t v) { /* R10 */
    int round;
    for (round = 0; round < 2; round++) {
        v += v << 10;
        v ^= v >> 6;
        v += v << 3;
        v ^= v >> 11;
        v += v << 15;
    }
    return v ^ (v >> 16);
}

int32_t eqk_rounding(uint32_t word, int neuron, int rate) { /* r of R9 */
    int turn = neuron & 31;
    if (!EQK_STOCHASTIC) return rate > 0 ? 1 << (rate - 1) : 0;
    return (int32_t)((word >> turn | word << (-turn & 31)) & ((1u << rate) - 1));
}

static int16_t learn(int16_t m, int32_t g, int rate, int32_t r, uint32_t *clipped) {                  /* R9 */
    int32_t wish = m + asr(g + r, rate), got = clamp(wish, -EQK_WMAX, EQK_WMAX);
    *clipped += wish != got;
    return (int16_t)got;
}

static int32_t multiply(int8_t w, int8_t a) { return EQK_THRESHOLD == 0 ? w * a : w > 0 ? a : w < 0 ? -a : 0; }

/* The synapses of w2, read in both directions: up[j] = sum_i w2[j][i] h[i], down[i] = sum_j w2[j][i] o[j]. */
static void exchange(const eqk_weights *weights, const int8_t h[EQK_NH], const int8_t o[EQK_NO], int32_t down[EQK_NH],
                     int32_t up[EQK_NO]) {
    int i, j;
    for (i = 0; i < EQK_NH; i++) down[i] = 0;
    EQK_LOOP(rows) for (j = 0; j < EQK_NO; j++) {
        int32_t sum = 0;
        EQK_LOOP(lanes) for (i = 0; i < EQK_NH; i++) {
            EQK_HLS(UNROLL)
            down[i] += multiply(weights->w2[j][i], o[j]);
            sum += multiply(weights->w2[j][i], h[i]);
        }
        up[j] = sum;
    }
}

static void send_all(const eqk_state *state, int8_t h[EQK_NH], int8_t o[EQK_NO]) {
    int i, j;
    for (i = 0; i < EQK_NH; i++) h[i] = send(state->h[i]);
    for (j = 0; j < EQK_NO; j++) o[j] = send(state->o[j]);
}

void eqk_quantise(const eqk_masters *masters, eqk_weights *weights) {
    int i, j;
    for (i = 0; i < EQK_NH; i++)
        for (j = 0; j < EQK_NX; j++) weights->w1[i][j] = weight(masters->w1[i][j]);
    for (j = 0; j < EQK_NO; j++)
        for (i = 0; i < EQK_NH; i++) weights->w2[j][i] = weight(masters->w2[j][i]);
}

void eqk_input_drive(const eqk_weights *weights, const int8_t x[EQK_NX], int32_t drive[EQK_NH]) {
    int i, j;
    for (i = 0; i < EQK_NH; i++) {
        int32_t sum = 0;
        EQK_LOOP(inputs) for (j = 0; j < EQK_NX; j++) {
            EQK_HLS(PIPELINE II = 1)
            sum += multiply(weights->w1[i][j], x[j]);
        }
        drive[i] = scale(sum, EQK_SHIFT1);
    }
}

void eqk_settle(const eqk_weights *weights, const int32_t drive[EQK_NH], const int16_t nudge[EQK_NO], int steps,
                eqk_state *state, eqk_drive *last) {
    int8_t h[EQK_NH], o[EQK_NO];
    int i, j, step;
    EQK_HLS(ARRAY_PARTITION variable = h complete)
    EQK_HLS(ARRAY_PARTITION variable = o complete)
    EQK_LOOP(steps_loop) for (step = 0; step < steps; step++) {
        EQK_HLS(LOOP_TRIPCOUNT min = EQK_T_NUDGED max = EQK_T_FREE)
        send_all(state, h, o);
        exchange(weights, h, o, last->h, last->o);
        for (i = 0; i < EQK_NH; i++) {
            last->h[i] = drive[i] + scale(last->h[i], EQK_SHIFT2 + EQK_GAMMA);
            state->h[i] = relax(state->h[i], clamp(last->h[i], 0, EQK_SMAX));
        }
        for (j = 0; j < EQK_NO; j++) {
            last->o[j] = scale(last->o[j], EQK_SHIFT2) + nudge[j];
            state->o[j] = relax(state->o[j], clamp(last->o[j], 0, EQK_SMAX));
        }
    }
}

void eqk_error(const eqk_state *free_state, const int8_t t[EQK_NO], int16_t error[EQK_NO]) {
    int j;
    for (j = 0; j < EQK_NO; j++) error[j] = (int16_t)(t[j] * (1 << EQK_FRAC) - free_state->o[j]);
}

void eqk_plus_minus(const eqk_weights *weights, const int32_t drive[EQK_NH], const eqk_state *free_state,
                    const int16_t error[EQK_NO], eqk_ends *ends) {
    eqk_state plus = *free_state, minus = *free_state;
    eqk_drive last;
    int16_t nudge[EQK_NO];
    int i, j;
    for (j = 0; j < EQK_NO; j++) nudge[j] = (int16_t)round_shift(error[j], EQK_BETA);
    eqk_settle(weights, drive, nudge, EQK_T_NUDGED, &plus, &last);
    for (j = 0; j < EQK_NO; j++) nudge[j] = (int16_t)-nudge[j];
    eqk_settle(weights, drive, nudge, EQK_T_NUDGED, &minus, &last);
    for (i = 0; i < EQK_NH; i++) {
        ends->a[i] = (int16_t)(plus.h[i] - minus.h[i]);
        ends->q[i] = send(plus.h[i]);
        ends->s[i] = send(minus.h[i]);
    }
    for (j = 0; j < EQK_NO; j++) {
        ends->p[j] = plus.o[j];
        ends->r[j] = (int16_t)-minus.o[j];
    }
}

void eqk_difference(const eqk_weights *weights, const eqk_state *free_state, const eqk_drive *last,
                    const int16_t error[EQK_NO], eqk_ends *ends) {
    eqk_state c;
    eqk_drive v;
    int8_t h[EQK_NH], o[EQK_NO];
    int i, j, step;
    for (i = 0; i < EQK_NH; i++) c.h[i] = 0;
    for (j = 0; j < EQK_NO; j++) c.o[j] = 0;
    EQK_LOOP(steps_loop) for (step = 0; step < EQK_T_NUDGED; step++) {
        send_all(&c, h, o);
        exchange(weights, h, o, v.h, v.o);
        for (i = 0; i < EQK_NH; i++) c.h[i] = relax(c.h[i], secant(last->h[i], scale(v.h[i], EQK_SHIFT2)));
        for (j = 0; j < EQK_NO; j++)
            c.o[j] = relax(c.o[j], secant(last->o[j], scale(v.o[j], EQK_SHIFT2 + EQK_GAMMA) + error[j]));
    }
    for (i = 0; i < EQK_NH; i++) {
        ends->a[i] = c.h[i];
        ends->q[i] = send(free_state->h[i]);
        ends->s[i] = (int16_t)asr(c.h[i], EQK_GAMMA);
    }
    for (j = 0; j < EQK_NO; j++) {
        ends->p[j] = c.o[j];
        ends->r[j] = send(free_state->o[j]);
    }
}

static void clear(eqk_trace *trace) {
    int i, j;
    for (i = 0; i < EQK_NH; i++)
        for (j = 0; j < EQK_NX; j++) trace->w1[i][j] = 0;
    for (j = 0; j < EQK_NO; j++)
        for (i = 0; i < EQK_NH; i++) trace->w2[j][i] = 0;
}

int eqk_accumulate(const eqk_ends *ends, const int8_t x[EQK_NX], eqk_trace *trace) {
    int32_t felt = 0;
    int i, j;
    for (i = 0; i < EQK_NH; i++)
        for (j = 0; j < EQK_NX; j++) {
            int32_t g = ends->a[i] * x[j];
            trace->w1[i][j] += g;
            felt |= g;
        }
    for (j = 0; j < EQK_NO; j++)
        for (i = 0; i < EQK_NH; i++) {
            int32_t g = ends->p[j] * ends->q[i] + ends->r[j] * ends->s[i];
            trace->w2[j][i] += g;
            felt |= g;
        }
    return felt != 0;
}

uint32_t eqk_update(eqk_masters *masters, const eqk_trace *trace, int rate1, int rate2, uint32_t batch) {
    uint32_t clipped = 0, base = batch * (EQK_NX + EQK_NO);
    int i, j;
    for (j = 0; j < EQK_NX; j++) {
        uint32_t word = eqk_noise(base + (uint32_t)j);
        for (i = 0; i < EQK_NH; i++)
            masters->w1[i][j] = learn(masters->w1[i][j], trace->w1[i][j], rate1, eqk_rounding(word, i, rate1), &clipped);
    }
    for (j = 0; j < EQK_NO; j++) {
        uint32_t word = eqk_noise(base + EQK_NX + (uint32_t)j);
        for (i = 0; i < EQK_NH; i++)
            masters->w2[j][i] = learn(masters->w2[j][i], trace->w2[j][i], rate2, eqk_rounding(word, i, rate2), &clipped);
    }
    return clipped;
}

/* Is a neuron more than one step of what it sends away from where its drive wants it? */
static int moving(int16_t s, int32_t u) {
    int32_t way = clamp(u, 0, EQK_SMAX) - s;
    return way > (1 << EQK_FRAC) || way < -(1 << EQK_FRAC);
}

static void judge(const eqk_state *state, const eqk_drive *last, const int16_t error[EQK_NO], int felt,
                  eqk_int_report *report) {
    int unsettled = 0, wrong = 0, i, j;
    for (i = 0; i < EQK_NH; i++) unsettled |= moving(state->h[i], last->h[i]);
    for (j = 0; j < EQK_NO; j++) {
        unsettled |= moving(state->o[j], last->o[j]);
        wrong |= error[j] > EQK_SMAX >> 1 || error[j] < -(EQK_SMAX >> 1);
    }
    report->samples++;
    report->unsettled += (uint32_t)unsettled;
    report->stuck += wrong && !felt;
}

static void free_phase(const eqk_weights *weights, const int8_t x[EQK_NX], int32_t drive[EQK_NH], eqk_state *state,
                       eqk_drive *last) {
    static const int16_t none[EQK_NO] = {0};
    int i, j;
    for (i = 0; i < EQK_NH; i++) state->h[i] = 0;
    for (j = 0; j < EQK_NO; j++) state->o[j] = 0;
    eqk_input_drive(weights, x, drive);
    eqk_settle(weights, drive, none, EQK_T_FREE, state, last);
}

void eqk_sample(const eqk_weights *weights, const int8_t x[EQK_NX], const int8_t t[EQK_NO], eqk_state *state,
                eqk_ends *ends, eqk_trace *trace, eqk_int_report *report) {
    int32_t drive[EQK_NH];
    int16_t error[EQK_NO];
    eqk_drive last;
    free_phase(weights, x, drive, state, &last);
    eqk_error(state, t, error);
    if (EQK_INT_DIFFERENCE)
        eqk_difference(weights, state, &last, error, ends);
    else
        eqk_plus_minus(weights, drive, state, error, ends);
    judge(state, &last, error, eqk_accumulate(ends, x, trace), report);
}

eqk_int_status eqk_train(eqk_masters *masters, const int8_t *x, const int8_t *t, int n, int rate1, int rate2,
                         uint32_t batch, eqk_workspace *work) {
    uint32_t stuck, clipped;
    eqk_state state;
    eqk_ends ends;
    int k;
    if (!masters || !x || !t || !work || n < 1 || n > EQK_BATCH_MAX) return EQK_INT_BAD_ARGUMENT;
    if (rate1 < 0 || rate1 > EQK_RATE_MAX || rate2 < 0 || rate2 > EQK_RATE_MAX) return EQK_INT_BAD_ARGUMENT;
    stuck = work->report.stuck;
    clear(&work->trace);
    eqk_quantise(masters, &work->weights);
    for (k = 0; k < n; k++)
        eqk_sample(&work->weights, x + (int32_t)k * EQK_NX, t + (int32_t)k * EQK_NO, &state, &ends, &work->trace,
                   &work->report);
    clipped = eqk_update(masters, &work->trace, rate1, rate2, batch);
    work->report.clipped += clipped;
    stuck = work->report.stuck - stuck;
    return 2 * stuck > (uint32_t)n || clipped > (uint32_t)(EQK_NX + EQK_NO) * EQK_NH >> 4 ? EQK_INT_DIVERGED : EQK_INT_OK;
}

eqk_int_status eqk_predict(const eqk_masters *masters, const int8_t *x, int n, int32_t *labels, eqk_workspace *work) {
    int32_t drive[EQK_NH];
    eqk_state state;
    eqk_drive last;
    int k, j;
    if (!masters || !x || !labels || !work || n < 0) return EQK_INT_BAD_ARGUMENT;
    eqk_quantise(masters, &work->weights);
    for (k = 0; k < n; k++) {
        free_phase(&work->weights, x + (int64_t)k * EQK_NX, drive, &state, &last);
        labels[k] = 0;
        for (j = 1; j < EQK_NO; j++)
            if (state.o[j] > state.o[labels[k]]) labels[k] = j;
    }
    return EQK_INT_OK;
}
