/* Pragmas and loop labels of HLS compilers, which vanish for every other compiler.
 *
 *   EQK_LOOP(mac) for (...) { EQK_HLS(PIPELINE II = 1) ... } */
#ifndef EQK_HLS_H
#define EQK_HLS_H
#if defined(__SYNTHESIS__) || defined(__VITIS_HLS__)
#define EQK_PRAGMA(text) _Pragma(#text)
#define EQK_HLS(text) EQK_PRAGMA(HLS text)
#define EQK_LOOP(name) name:
#else
#define EQK_HLS(text)
#define EQK_LOOP(name)
#endif
#endif
