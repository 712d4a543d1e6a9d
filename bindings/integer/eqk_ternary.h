/* Ternary weights in 2 bits: a drive as bit-serial population counts, equal to the sum of products of bytes.
 *
 * A row of n weights is WORDS = ceil(n / 32) words for the weights that are 1, and as many for those that are -1: bit k of word i
 * is weight 32 i + k. The input is cut into 8 bit planes, the last of weight -128. For the drive in the other direction pack
 * the transpose. */
#ifndef EQK_TERNARY_H
#define EQK_TERNARY_H
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define EQK_TERNARY_WORDS(columns) (((size_t)(columns) + 31) / 32)

/* packed (rows, 2 WORDS(columns)) of weight (rows, columns), each -1, 0 or 1. */
void eqk_ternary_pack(uint32_t *packed, const int8_t *weight, int rows, int columns);

/* drive (rows,) = weight x, x (columns,); planes: working memory of 8 WORDS(columns) words. */
void eqk_ternary_drive(int32_t *drive, const uint32_t *packed, const int8_t *x, int rows, int columns, uint32_t *planes);

/* The same from bytes: what the packed kernel must equal. */
void eqk_ternary_drive_bytes(int32_t *drive, const int8_t *weight, const int8_t *x, int rows, int columns);

#ifdef __cplusplus
}
#endif
#endif
