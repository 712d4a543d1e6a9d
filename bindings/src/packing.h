/* The room that matrices and states take once their numbers are split in two bfloat16, see split.h: in floats, of which
 * one is as large as a pair of them.
 */
#ifndef PACKING_H
#define PACKING_H
#include "shape.h"

enum { BLOCK_ROWS = 16, BLOCK_PAIRS = 16, BLOCK_DEPTH = 2 * BLOCK_PAIRS };

/* A matrix (rows, depth), of whole blocks: high parts and low parts. */
static inline int64_t packed_numbers(int64_t rows, int64_t depth) {
    return round_up(rows, BLOCK_ROWS) * round_up(depth, BLOCK_DEPTH);
}

/* The matrices of a layer, in this order: W, W^T unless it leads to the input, and A; a convolution's are not packed. */
typedef enum { UPWARD, DOWNWARD, LATERAL, LAYER_END } packed_kind;

/* Where one of them begins among its layer's; LAYER_END: the size of all. */
static inline int64_t packed_within(const eqk_layer *layer, int64_t index, packed_kind kind) {
    int64_t n = layer->size, below = layer[-1].size, at = 0;
    if (kind > UPWARD && !layer->kernel)
        at += packed_numbers(n, below);
    if (kind > DOWNWARD && !layer->kernel && index > 1)
        at += packed_numbers(below, n);
    if (kind > LATERAL && layer->lateral >= 0)
        at += packed_numbers(n, n);
    return at;
}

/* Where those of layer `index` begin; -1 beyond what can be addressed. */
static inline int64_t packed_before(const eqk_layer *layers, int64_t index) {
    int64_t at = 0;
    for (int64_t l = 1; l < index && at >= 0; l++) {
        at += packed_within(layers + l, l, LAYER_END);
        at = at <= MOST ? at : -1;
    }
    return at;
}

/* The states of a layer in a tile of so many lanes, for the largest of all layers. */
static inline int64_t split_room(const eqk_layer *layers, int64_t count, int64_t lanes) {
    return round_up(largest_layer(layers, count), BLOCK_DEPTH) * lanes;
}

#endif
