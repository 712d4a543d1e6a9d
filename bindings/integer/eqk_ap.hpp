// The fixed-point types of AMD's HLS tools (ap_fixed.h), under the names that eqk_fixed.hpp uses.
#ifndef EQK_AP_HPP
#define EQK_AP_HPP
#include <ap_fixed.h>

constexpr ap_q_mode FLOOR = AP_TRN, HALF_UP = AP_RND;
constexpr ap_o_mode WRAP = AP_WRAP, SATURATE = AP_SAT_SYM; // symmetric: [-MAX, MAX]
template <int W, int I, ap_q_mode Q = FLOOR, ap_o_mode O = WRAP> using fixed = ap_fixed<W, I, Q, O>;

template <class T> T from_raw(long raw) { // the value whose bits are `raw`
    T value = 0;
    value.range(T::width - 1, 0) = ap_int<T::width>(raw);
    return value;
}
template <class T> long to_raw(const T &value) { return ap_int<T::width>(value.range(T::width - 1, 0)).to_long(); }
#endif
