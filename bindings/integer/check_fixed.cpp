// eqk_fixed.hpp against eqk_int.c on natural, random and corner cases, learning included; status 1 at the first difference.
//   c++ -DEQK_TYPES='"eqk_ap.hpp"' -I(folder of ap_fixed.h) ... check_fixed.cpp eqk_int.o, or "eqk_ac.hpp" and ac_fixed.h
#include <cstdio>
#include <cstdlib>
#include EQK_TYPES
#include "eqk_fixed.hpp"

static uint32_t seed = 7;
static int pick(int low, int high) { // xorshift: the same cases everywhere
    seed ^= seed << 13;
    seed ^= seed >> 17;
    seed ^= seed << 5;
    return low + (int)(seed % (uint32_t)(high - low + 1));
}

static long compared = 0;
static void equal(int number, const char *what, int i, int j, long expected, long got) {
    compared++;
    if (expected == got) return;
    printf("case %d, %s[%d][%d]: expected %ld, got %ld\n", number, what, i, j, expected, got);
    exit(1);
}

static eqk_masters masters;
static eqk_workspace work;
static eqk_fixed::Sample sample;

static void invent(int kind, int8_t x[EQK_NX], int8_t t[EQK_NO]) {
    static const int bytes[] = {-128, -127, -1, 0, 1, 63, 64, 127}, ends[] = {-32767, -32640, -129, -128, 0, 127, 128, 32640};
    const int span = kind == 0 ? (EQK_THRESHOLD > 0 ? 512 * EQK_THRESHOLD : 6000) : 32767, label = pick(0, EQK_NO - 1);
    for (int i = 0; i < EQK_NH; i++)
        for (int j = 0; j < EQK_NX; j++) masters.w1[i][j] = (int16_t)(kind == 2 ? ends[pick(0, 7)] : pick(-span, span));
    for (int j = 0; j < EQK_NO; j++)
        for (int i = 0; i < EQK_NH; i++) masters.w2[j][i] = (int16_t)(kind == 2 ? ends[pick(0, 7)] : pick(-span, span));
    for (int j = 0; j < EQK_NX; j++) x[j] = (int8_t)(kind == 0 ? pick(0, 127) : kind == 1 ? pick(-128, 127) : bytes[pick(0, 7)]);
    for (int j = 0; j < EQK_NO; j++) t[j] = (int8_t)(kind == 1 ? pick(-128, 127) : j == label ? 127 : kind == 2 ? -128 : 0);
}

static int16_t learnt(int16_t m, int32_t trace, int rate, uint32_t counter, int neuron) {
    return eqk_fixed::learn(m, trace, rate, eqk_rounding(eqk_noise(counter), neuron, rate));
}

int main(int count, char **arguments) {
    const int cases = count > 1 ? atoi(arguments[1]) : 300;
    for (int number = 0; number < cases; number++) {
        int8_t x[EQK_NX], t[EQK_NO];
        eqk_state state;
        eqk_ends ends;
        eqk_trace zero = {}, &trace = work.trace;
        const int rate1 = pick(0, 12), rate2 = pick(0, 12);
        const uint32_t batch = (uint32_t)pick(0, 2147483646), base = batch * (EQK_NX + EQK_NO);
        invent(number % 3, x, t);
        sample.run(masters, x, t);
        trace = zero;
        eqk_quantise(&masters, &work.weights);
        eqk_sample(&work.weights, x, t, &state, &ends, &trace, &work.report);
        for (int i = 0; i < EQK_NH; i++) equal(number, "h", i, 0, state.h[i], to_raw(sample.free_state.h[i]));
        for (int j = 0; j < EQK_NO; j++) equal(number, "o", j, 0, state.o[j], to_raw(sample.free_state.o[j]));
        for (int i = 0; i < EQK_NH; i++)
            for (int j = 0; j < EQK_NX; j++) equal(number, "trace of w1", i, j, trace.w1[i][j], to_raw(sample.g1[i][j]));
        for (int j = 0; j < EQK_NO; j++)
            for (int i = 0; i < EQK_NH; i++) equal(number, "trace of w2", j, i, trace.w2[j][i], to_raw(sample.g2[j][i]));
        const eqk_masters before = masters;
        eqk_update(&masters, &trace, rate1, rate2, batch);
        for (int i = 0; i < EQK_NH; i++)
            for (int j = 0; j < EQK_NX; j++)
                equal(number, "w1", i, j, masters.w1[i][j], learnt(before.w1[i][j], trace.w1[i][j], rate1, base + j, i));
        for (int j = 0; j < EQK_NO; j++)
            for (int i = 0; i < EQK_NH; i++)
                equal(number, "w2", j, i, masters.w2[j][i],
                      learnt(before.w2[j][i], trace.w2[j][i], rate2, base + EQK_NX + j, i));
    }
    printf("%s, %d-%d-%d: %d cases, %ld values equal\n", EQK_TYPES, EQK_NX, EQK_NH, EQK_NO, cases, compared);
    return 0;
}
