/* Where everything of a tile of samples lies.
 *
 * A tile is a single sample, or CHAINS or 2 CHAINS of them (64 or 128 bytes); never a single one where the factors of
 * products are split. It is stored features first, element (i, b) of a layer at row i, lane b, and goes through all steps
 * of a phase without leaving the cache. In one piece of memory, every layer beginning on a row that is a multiple of
 * CHAINS:
 *
 *     x            n_0 rows            the clamped input
 *     channel 0    state, up, down     the free phase: s, W s_below + b, gamma W^T s_above, of layers 1..L
 *     channel 1    state, up, down     the mean of the two nudged states, or the + state
 *     channel 2    state, up, down     their difference, or the - state
 *     drive        two sections        drives being put together: down + lateral + nudge
 *     nudge        one section         on the top layer, the nudge at beta = 1
 *     target       n_L rows
 *     of each channel: the adaptation currents of those layers that adapt
 *     of each convolution: packed weights upwards and downwards; the winners of max pooling, one section a channel
 *     map          room to pool in, see pooling_room (shape.h)
 *     list         the rows of a layer that are not zero in all samples, see zeros.h
 *     room         a layer's rows in another order, see chunks.h; or, instead of these two,
 *     split        states that a product of split factors is made from, see packing.h
 *
 * A network with convolutions has tiles of CHAINS samples at most, since its states are large.
 */
enum { STATE, UP, DOWN, DRIVE = 9, OTHER_DRIVE, NUDGE, SECTIONS };
enum { FREE, MEAN, DIFFERENCE, CHANNELS, PLUS = MEAN, MINUS = DIFFERENCE };
enum { RUN_FREE, RUN_STATE, RUN_STATES, RUN_DIFFERENCE, RUN_MEAN_DIFFERENCE }; /* 1..4 are those of eqk_form */

#ifndef SPLIT
#define SPLIT 0 /* 1 where the factors of products are split in two bfloat16, see bf16x3.h */
#endif

/* One tile of one network, while its phases run. */
typedef struct {
    const eqk_layer *layers;
    int64_t last, top; /* layers L, and the one that the cost nudges: L, or L - 1 below a softmax readout */
    const real *theta;
    real *memory;
    int64_t lanes, rows; /* rows of one section */
    const real *packed;  /* all weights split in two, where factors are */
    int64_t first, samples; /* those of the batch that it holds */
} tile;

INLINE int64_t rounded(int64_t n) { return (n + CHAINS - 1) / CHAINS * CHAINS; }

INLINE int64_t section_rows(const eqk_layer *layers, int64_t count) {
    int64_t rows = 0;
    for (int64_t l = 1; l < count; l++)
        rows += rounded(layers[l].size);
    return rows;
}

/* Rows of a channel's adaptation currents, of layers before `layer`. */
INLINE int64_t current_rows(const eqk_layer *layers, int64_t layer) {
    int64_t rows = 0;
    for (int64_t l = 1; l < layer; l++)
        rows += layers[l].adaptation != 0 ? rounded(layers[l].size) : 0;
    return rows;
}

/* How wide a tile of `samples` samples is: one lane, one vector of 64 bytes, or two. */
INLINE int64_t lanes_for(int64_t samples) { return samples == 1 && !SPLIT ? 1 : samples <= CHAINS ? CHAINS : WIDTH; }

/* Numbers that a tile takes before the list, or what is split: a multiple of a line of cache. */
INLINE int64_t state_size(const eqk_layer *layers, int64_t count, int64_t lanes) {
    int64_t rows = rounded(layers[0].size) + SECTIONS * section_rows(layers, count) + rounded(layers[count - 1].size);
    rows += CHANNELS * current_rows(layers, count);
    return rows * lanes + convs_size(layers, count, lanes, CHAINS);
}

INLINE int64_t tile_size(const eqk_layer *layers, int64_t count, int64_t lanes) {
    int64_t room = SPLIT ? split_room(layers, count, lanes) : product_room(layers, count, lanes, CHAINS);
    return state_size(layers, count, lanes) + room;
}

INLINE int64_t size_of(const tile *t, int64_t layer) { return t->layers[layer].size; }
INLINE int64_t elements(const tile *t, int64_t layer) { return t->layers[layer].size * t->lanes; }

/* A layer's part of a section; section 3 channel + STATE, UP or DOWN, or one of DRIVE, OTHER_DRIVE, NUDGE. */
INLINE real *piece(const tile *t, int64_t section, int64_t layer) {
    int64_t row = rounded(t->layers[0].size) + section * t->rows;
    for (int64_t l = 1; l < layer; l++)
        row += rounded(t->layers[l].size);
    return t->memory + row * t->lanes;
}

INLINE real *target_of(const tile *t) { return piece(t, SECTIONS, 1); }

INLINE int adapts(const tile *t, int64_t layer) { return t->layers[layer].adaptation != 0; }

/* A channel's adaptation current of a layer that adapts; those of all layers follow each other. */
INLINE real *current_of(const tile *t, int64_t channel, int64_t layer) {
    int64_t rows = channel * current_rows(t->layers, t->last + 1) + current_rows(t->layers, layer);
    return target_of(t) + (rounded(size_of(t, t->last)) + rows) * t->lanes;
}

/* What a tile holds for the convolution into a layer. */
typedef struct {
    shape g;
    real *up, *down, *winners, *map; /* winners of channel 0; those of the next are `section` further */
    int64_t section;
} conv_place;

static conv_place conv_at(const tile *t, int64_t layer) {
    conv_place c = {shape_into(t->layers + layer), 0, 0, 0, 0, 0};
    real *at = current_of(t, CHANNELS, 1);
    int64_t weights = round_up(c.g.post_channels * kernel_size(&c.g), CHAINS);
    for (int64_t l = 1; l <= t->last; l++) {
        if (l == layer)
            c.up = at;
        at += t->layers[l].kernel ? own_size(t->layers + l, t->lanes, CHAINS) : 0;
    }
    c.down = c.up + weights;
    c.winners = c.down + weights;
    c.map = at;
    c.section = round_up(post_size(&c.g), CHAINS) * t->lanes;
    return c;
}

INLINE int64_t *list_in(const tile *t) {
    return (int64_t *)(t->memory + state_size(t->layers, t->last + 1, t->lanes));
}

INLINE real *room_in(const tile *t) {
    return (real *)list_in(t) + list_room(largest_layer(t->layers, t->last + 1), CHAINS);
}

INLINE int is_conv(const tile *t, int64_t layer) { return t->layers[layer].kernel != 0; }

INLINE real *state_of(const tile *t, int64_t channel, int64_t layer) {
    return layer ? piece(t, 3 * channel + STATE, layer) : t->memory;
}
