/* See eqk_ternary.h. Portable C99; compilers recognise the population count and use the processor's. */
#include "eqk_ternary.h"

static int32_t ones(uint32_t v) {
    v = v - (v >> 1 & 0x55555555u);
    v = (v & 0x33333333u) + (v >> 2 & 0x33333333u);
    v = (v + (v >> 4)) & 0x0f0f0f0fu;
    return (int32_t)(v * 0x01010101u >> 24);
}

void eqk_ternary_pack(uint32_t *packed, const int8_t *weight, int rows, int columns) {
    const size_t words = EQK_TERNARY_WORDS(columns);
    size_t word;
    int i, j;
    for (word = 0; word < (size_t)rows * 2 * words; word++) packed[word] = 0;
    for (i = 0; i < rows; i++, packed += 2 * words)
        for (j = 0; j < columns; j++, weight++)
            if (*weight) packed[j / 32 + (*weight < 0 ? words : 0)] |= (uint32_t)1 << j % 32;
}

void eqk_ternary_drive(int32_t *restrict drive, const uint32_t *restrict packed, const int8_t *restrict x, int rows,
                       int columns, uint32_t *restrict planes) {
    const size_t words = EQK_TERNARY_WORDS(columns);
    size_t k;
    int i, j, bit;
    for (k = 0; k < 8 * words; k++) planes[k] = 0;
    for (j = 0; j < columns; j++)
        for (bit = 0; bit < 8; bit++) planes[(size_t)bit * words + (size_t)j / 32] |= ((uint32_t)x[j] >> bit & 1) << j % 32;
    for (i = 0; i < rows; i++, packed += 2 * words) {
        int32_t sum = 0;
        for (bit = 0; bit < 8; bit++) {
            const uint32_t *restrict plane = planes + (size_t)bit * words;
            int32_t count = 0;
            for (k = 0; k < words; k++) count += ones(packed[k] & plane[k]) - ones(packed[words + k] & plane[k]);
            sum += count * (bit < 7 ? 1 << bit : -128);
        }
        drive[i] = sum;
    }
}

void eqk_ternary_drive_bytes(int32_t *restrict drive, const int8_t *restrict weight, const int8_t *restrict x, int rows,
                             int columns) {
    int i, j;
    for (i = 0; i < rows; i++, weight += columns) {
        int32_t sum = 0;
        for (j = 0; j < columns; j++) sum += weight[j] * x[j];
        drive[i] = sum;
    }
}
