// Verilator test bench: eqk_unit.sv against eqk_int.c on random, corner and natural cases; status 1 at the first difference.
// Each case loads weights, then predicts a sample and trains on two, so the noise and the memory carry over.
// Compared: label, counts, cycles (against the published formula), and every master at the end.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include "Veqk_unit.h"
#include "eqk_int.h"
#include "verilated.h"

#ifndef LEARN
#define LEARN 1
#endif
static const int WORDS = EQK_NX + EQK_NO, MW = LEARN ? 16 : EQK_THRESHOLD > 0 ? 2 : 8;
static Veqk_unit unit;
static eqk_masters masters;
static eqk_workspace work;
static uint32_t seed = 1;

static uint32_t draw() { // xorshift: the same cases everywhere
    seed ^= seed << 13;
    seed ^= seed >> 17;
    return seed ^= seed << 5;
}
static int pick(int low, int high) { return low + (int)(draw() % (uint32_t)(high - low + 1)); }

static void tick() {
    unit.clk = 0;
    unit.eval();
    unit.clk = 1;
    unit.eval();
}

static int16_t *master(int word, int lane) {
    return word < EQK_NX ? &masters.w1[lane][word] : &masters.w2[word - EQK_NX][lane];
}
static int8_t weight(int word, int lane) {
    return word < EQK_NX ? work.weights.w1[lane][word] : work.weights.w2[word - EQK_NX][lane];
}

static void load(uint32_t batch) {
    eqk_quantise(&masters, &work.weights);
    for (int word = 0; word < WORDS; word++) {
        uint32_t bits[(EQK_NH * 16 + 31) / 32 + 1] = {0};
        for (int lane = 0; lane < EQK_NH; lane++) {
            uint32_t value = (uint32_t)(LEARN ? *master(word, lane) : weight(word, lane));
            for (int bit = 0; bit < MW; bit++)
                if (value >> bit & 1) bits[(lane * MW + bit) / 32] |= 1u << (lane * MW + bit) % 32;
        }
        memcpy(&unit.word_in, bits, sizeof unit.word_in);
        unit.address = word;
        unit.word_write = 1;
        tick();
    }
    unit.word_write = 0;
    unit.noise_in = batch * (uint32_t)WORDS;
    unit.noise_write = 1;
    tick();
    unit.noise_write = 0;
}

static int run(const int8_t *x, const int8_t *t, int train) { // returns the cycles
    for (int j = 0; j < WORDS; j++) {
        unit.address = j < EQK_NX ? j : j - EQK_NX;
        unit.byte_in = (uint8_t)(j < EQK_NX ? x[j] : t[j - EQK_NX]);
        unit.x_write = j < EQK_NX;
        unit.t_write = j >= EQK_NX;
        tick();
    }
    unit.x_write = unit.t_write = 0;
    unit.train = train;
    unit.start = 1;
    tick();
    unit.start = 0;
    int wait = 0;
    while (!unit.done && wait++ < 1000000) tick();
    return (int)unit.cycles;
}

static int formula(int train) {
    int levels = 0;
    while (1 << levels < EQK_NH) levels++;
    int step = EQK_NO + levels + 15;
    return EQK_NX + 5 + EQK_T_FREE * step + (train ? EQK_T_NUDGED * step + WORDS + 9 : 0);
}

static int16_t score(const int8_t x[EQK_NX]) { // the largest output of the free state
    static const int16_t none[EQK_NO] = {0};
    int32_t drive[EQK_NH];
    eqk_state state = {};
    eqk_drive last;
    eqk_input_drive(&work.weights, x, drive);
    eqk_settle(&work.weights, drive, none, EQK_T_FREE, &state, &last);
    int16_t best = state.o[0];
    for (int j = 1; j < EQK_NO; j++) best = state.o[j] > best ? state.o[j] : best;
    return best;
}

static int differ(int number, const char *what, long expected, long got) {
    if (expected == got) return 0;
    printf("case %d, %s: expected %ld, got %ld\n", number, what, expected, got);
    return 1;
}

static void invent(int kind, int8_t x[2][EQK_NX], int8_t t[2][EQK_NO]) {
    static const int bytes[] = {-128, -127, -1, 0, 1, 63, 64, 127}, ends[] = {-32767, -32640, -129, -128, 0, 127, 128, 32640, 32767};
    const int span = kind == 0 ? (EQK_THRESHOLD > 0 ? 512 * EQK_THRESHOLD : 6000) : 32767;
    for (int word = 0; word < WORDS; word++)
        for (int lane = 0; lane < EQK_NH; lane++) *master(word, lane) = (int16_t)(kind == 2 ? ends[pick(0, 8)] : pick(-span, span));
    for (int k = 0; k < 2; k++) {
        int label = pick(0, EQK_NO - 1);
        for (int j = 0; j < EQK_NX; j++) x[k][j] = (int8_t)(kind == 0 ? pick(0, 127) : kind == 1 ? pick(-128, 127) : bytes[pick(0, 7)]);
        for (int j = 0; j < EQK_NO; j++) t[k][j] = (int8_t)(kind == 1 ? pick(-128, 127) : j == label ? 127 : kind == 2 ? -128 : 0);
    }
}

int main(int count, char **arguments) {
    const int cases = count > 1 ? atoi(arguments[1]) : 3000;
    long compared = 0, clipped = 0, stuck = 0;
    unit.reset = 1;
    tick();
    unit.reset = 0;
    for (int number = 0; number < cases; number++) {
        int8_t x[2][EQK_NX], t[2][EQK_NO];
        uint32_t batch = draw();
        int32_t label;
        invent(number % 3, x, t);
        load(batch);
        eqk_predict(&masters, x[0], 1, &label, &work);
        if (differ(number, "cycles of a prediction", formula(0), run(x[0], t[0], 0))) return 1;
        if (differ(number, "label", label, unit.label) || differ(number, "score", score(x[0]), (int16_t)unit.score)) return 1;
        compared += 2;
        for (int k = 0; LEARN && k < 2; k++) {
            memset(&work.report, 0, sizeof work.report);
            eqk_predict(&masters, x[k], 1, &label, &work);
            eqk_train(&masters, x[k], t[k], 1, RATE1, RATE2, batch + (uint32_t)k, &work);
            if (differ(number, "cycles of a training step", formula(1), run(x[k], t[k], 1))) return 1;
            if (differ(number, "label", label, unit.label)) return 1;
            if (differ(number, "unsettled", work.report.unsettled, unit.unsettled)) return 1;
            if (differ(number, "stuck", work.report.stuck, unit.stuck)) return 1;
            if (differ(number, "clipped", work.report.clipped > 0, unit.clipped)) return 1;
            clipped += unit.clipped;
            stuck += unit.stuck;
            compared += 4;
        }
        for (int word = 0; word < WORDS && LEARN; word++) {
            unit.address = word;
            for (int wait = 0; wait < 3; wait++) tick();
            uint16_t got[EQK_NH];
            memcpy(got, &unit.word_out, sizeof got);
            for (int lane = 0; lane < EQK_NH; lane++, compared++)
                if (differ(number, "a master", *master(word, lane), (int16_t)got[lane])) return 1;
        }
    }
    printf("%d-%d-%d %s%s: %d cases, %ld values equal; %d cycles a prediction", EQK_NX, EQK_NH, EQK_NO,
           EQK_THRESHOLD > 0 ? "ternary" : "int8", LEARN ? "" : ", prediction only", cases, compared, formula(0));
    if (LEARN) printf(", %d a training step; %ld samples stuck, %ld with clipped weights", formula(1), stuck, clipped);
    printf("\n");
    return 0;
}
