// The specification of eqk_int.h in fixed-point types: the shifts, roundings and saturations are those of the types.
// Include eqk_ap.hpp or eqk_ac.hpp first. R4 and R5 are assignments to drive_t and sent_t, R6 one to a weight's type,
// R9 ends in one to master_t.
#ifndef EQK_FIXED_HPP
#define EQK_FIXED_HPP
#include "eqk_hls.h"
#include "eqk_int.h"

namespace eqk_fixed {

constexpr int F = 7 + EQK_FRAC; // fraction bits of a state: SMAX is 127/128
typedef fixed<8, 1, HALF_UP> sent_t;
typedef fixed<16, 16 - F> state_t;
template <int SHIFT> using weight_t = fixed<8, 8 - SHIFT, HALF_UP, SATURATE>;
typedef fixed<32, 25 - EQK_SHIFT1> sum1_t; // exact sums of products
typedef fixed<32, 25 - EQK_SHIFT2> sum2_t;
typedef fixed<40, 40 - F, HALF_UP> drive_t;
typedef fixed<32, 25 - F> trace_t;
typedef fixed<16, 16, FLOOR, SATURATE> master_t; // in its own units

struct Weights {
    weight_t<EQK_SHIFT1> w1[EQK_NH][EQK_NX];
    weight_t<EQK_SHIFT2> w2[EQK_NO][EQK_NH];
};
struct State {
    state_t h[EQK_NH], o[EQK_NO];
};
struct Drive {
    drive_t h[EQK_NH], o[EQK_NO];
};
struct Sent {
    sent_t h[EQK_NH], o[EQK_NO];
};
template <class T> T top() { return T(1) - T(sent_t(from_raw<sent_t>(1))); }

template <class T> T clamp(const T &v, const T &a, const T &b) { return v < a ? a : v > b ? b : v; }

template <int SHIFT> weight_t<SHIFT> weight(int16_t raw) { // R6
    typedef weight_t<SHIFT> W;
    const W q = from_raw<fixed<16, 8 - SHIFT>>(raw);
    if (EQK_THRESHOLD == 0) return q;
    const W threshold = from_raw<W>(EQK_THRESHOLD);
    return q > threshold ? from_raw<W>(1) : q < W(-threshold) ? from_raw<W>(-1) : W(0);
}

template <int SHIFT> drive_t weaker(const sum2_t &sum) { // R4 of sum * 2^-SHIFT
    fixed<32 + SHIFT, 25 - EQK_SHIFT2> finer = sum;
    finer >>= SHIFT;
    return finer;
}

inline state_t relax(const state_t &s, const drive_t &goal) { // R7
    fixed<24 + EQK_LEAK, 24 - F> way = goal - s;
    way >>= EQK_LEAK;
    const fixed<24, 24 - F, HALF_UP> step = way;
    return s + step;
}

inline state_t secant(const drive_t &u, const drive_t &v) { // R8
    typedef fixed<33 + EQK_BETA, 33 - F> fine_t;
    const fine_t most = top<fine_t>();
    const fine_t middle = clamp<fine_t>(u, -most, most + most);
    fine_t half = clamp<fine_t>(v, -most, most);
    half >>= EQK_BETA;
    fixed<48, 47 - F - EQK_BETA> gap = clamp<fine_t>(middle + half, 0, most) - clamp<fine_t>(middle - half, 0, most);
    gap <<= EQK_BETA;
    gap >>= 1;
    return gap;
}

inline void exchange(const Weights &w, const Sent &sent, sum2_t down[EQK_NH], sum2_t up[EQK_NO]) {
    for (int i = 0; i < EQK_NH; i++) down[i] = 0;
    EQK_LOOP(rows) for (int j = 0; j < EQK_NO; j++) {
        up[j] = 0;
        EQK_LOOP(lanes) for (int i = 0; i < EQK_NH; i++) {
            EQK_HLS(UNROLL)
            down[i] += w.w2[j][i] * sent.o[j];
            up[j] += w.w2[j][i] * sent.h[i];
        }
    }
}

inline Sent send(const State &state) { // R5
    Sent sent;
    for (int i = 0; i < EQK_NH; i++) sent.h[i] = state.h[i];
    for (int j = 0; j < EQK_NO; j++) sent.o[j] = state.o[j];
    return sent;
}

inline void settle(const Weights &w, const drive_t input[EQK_NH], const drive_t nudge[EQK_NO], int steps, State &state,
                   Drive &last) {
    sum2_t down[EQK_NH], up[EQK_NO];
    for (int step = 0; step < steps; step++) {
        exchange(w, send(state), down, up);
        for (int i = 0; i < EQK_NH; i++) {
            last.h[i] = input[i] + weaker<EQK_GAMMA>(down[i]);
            state.h[i] = relax(state.h[i], clamp<drive_t>(last.h[i], 0, top<drive_t>()));
        }
        for (int j = 0; j < EQK_NO; j++) {
            last.o[j] = weaker<0>(up[j]) + nudge[j];
            state.o[j] = relax(state.o[j], clamp<drive_t>(last.o[j], 0, top<drive_t>()));
        }
    }
}

inline State respond(const Weights &w, const Drive &last, const drive_t error[EQK_NO]) {
    sum2_t down[EQK_NH], up[EQK_NO];
    State c;
    for (int i = 0; i < EQK_NH; i++) c.h[i] = 0;
    for (int j = 0; j < EQK_NO; j++) c.o[j] = 0;
    for (int step = 0; step < EQK_T_NUDGED; step++) {
        exchange(w, send(c), down, up);
        for (int i = 0; i < EQK_NH; i++) c.h[i] = relax(c.h[i], secant(last.h[i], weaker<0>(down[i])));
        for (int j = 0; j < EQK_NO; j++)
            c.o[j] = relax(c.o[j], secant(last.o[j], weaker<EQK_GAMMA>(up[j]) + error[j]));
    }
    return c;
}

// One sample: both phases, and its part of every trace.
struct Sample {
    Weights w;
    State free_state;
    trace_t g1[EQK_NH][EQK_NX], g2[EQK_NO][EQK_NH];

    void run(const eqk_masters &masters, const int8_t x[EQK_NX], const int8_t t[EQK_NO]) {
        drive_t input[EQK_NH], error[EQK_NO], nudge[EQK_NO];
        Drive last;
        for (int i = 0; i < EQK_NH; i++) {
            sum1_t sum = 0;
            for (int j = 0; j < EQK_NX; j++) {
                w.w1[i][j] = weight<EQK_SHIFT1>(masters.w1[i][j]);
                sum += w.w1[i][j] * from_raw<sent_t>(x[j]);
            }
            input[i] = sum;
            free_state.h[i] = 0;
        }
        for (int j = 0; j < EQK_NO; j++) {
            for (int i = 0; i < EQK_NH; i++) w.w2[j][i] = weight<EQK_SHIFT2>(masters.w2[j][i]);
            free_state.o[j] = 0;
            nudge[j] = 0;
        }
        settle(w, input, nudge, EQK_T_FREE, free_state, last);
        for (int j = 0; j < EQK_NO; j++) error[j] = from_raw<sent_t>(t[j]) - free_state.o[j];
        if (EQK_INT_DIFFERENCE) {
            const State c = respond(w, last, error);
            const Sent sent = send(free_state);
            for (int i = 0; i < EQK_NH; i++) {
                state_t weak = c.h[i];
                weak >>= EQK_GAMMA;
                for (int j = 0; j < EQK_NX; j++) g1[i][j] = c.h[i] * from_raw<sent_t>(x[j]);
                for (int j = 0; j < EQK_NO; j++) g2[j][i] = c.o[j] * sent.h[i] + sent.o[j] * weak;
            }
        } else {
            State plus = free_state, minus = free_state;
            for (int j = 0; j < EQK_NO; j++) {
                fixed<24 + EQK_BETA, 24 - F> fine = error[j];
                fine >>= EQK_BETA;
                nudge[j] = fine;
            }
            settle(w, input, nudge, EQK_T_NUDGED, plus, last);
            for (int j = 0; j < EQK_NO; j++) nudge[j] = -nudge[j];
            settle(w, input, nudge, EQK_T_NUDGED, minus, last);
            const Sent sent_plus = send(plus), sent_minus = send(minus);
            for (int i = 0; i < EQK_NH; i++) {
                const state_t a = plus.h[i] - minus.h[i];
                for (int j = 0; j < EQK_NX; j++) g1[i][j] = a * from_raw<sent_t>(x[j]);
                for (int j = 0; j < EQK_NO; j++) g2[j][i] = plus.o[j] * sent_plus.h[i] - minus.o[j] * sent_minus.h[i];
            }
        }
    }
};

inline int16_t learn(int16_t m, long trace, int rate, int32_t r) { // R9; `trace` is that of a batch
    fixed<60, 36> way = trace;
    way += r;
    way >>= rate;
    const fixed<36, 36> whole = way;
    const master_t next = fixed<38, 38>(m) + whole;
    return (int16_t)to_raw(next);
}

} // namespace eqk_fixed
#endif
