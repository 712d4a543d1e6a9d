// The fixed-point types of Siemens' HLS tools (ac_fixed.h), under the names that eqk_fixed.hpp uses.
#ifndef EQK_AC_HPP
#define EQK_AC_HPP
#include <ac_fixed.h>

constexpr ac_q_mode FLOOR = AC_TRN, HALF_UP = AC_RND;
constexpr ac_o_mode WRAP = AC_WRAP, SATURATE = AC_SAT_SYM; // symmetric: [-MAX, MAX]
template <int W, int I, ac_q_mode Q = FLOOR, ac_o_mode O = WRAP> using fixed = ac_fixed<W, I, true, Q, O>;

template <class T> T from_raw(long raw) { // the value whose bits are `raw`
    T value = 0;
    value.set_slc(0, ac_int<T::width, true>(raw));
    return value;
}
template <class T> long to_raw(const T &value) { return (long)value.template slc<T::width>(0).to_int64(); }
#endif
