/* The products of products.h from factors that are split in two, see split.h: W is packed once, before a phase, states
 * whenever they are wanted.
 */

/* out (rows, lanes) = alpha A s (+ out if keep): A packed (rows, depth), s split (depth, lanes), lanes 16 or 32; every sum
 * is one chain over the pairs in order, and in each w_low s_high, w_high s_high, w_high s_low. */
static void multiply(real *out, int64_t lanes, const word *a, const word *s, int64_t rows, int64_t depth, real alpha,
                     int keep);

/* A vector of out = alpha sum (+ out if keep). */
INLINE void put_sum(real *out, vec sum, real alpha, int keep) {
    v_store(out, v_fma(v_set(alpha), sum, keep ? v_load(out) : v_set(0)));
}

INLINE word *packed_of(const tile *t, int64_t layer, packed_kind kind) {
    return (word *)t->packed + packed_before(t->layers, layer) + packed_within(t->layers + layer, layer, kind);
}

static void split_and_multiply(const tile *t, real *out, int64_t layer, packed_kind kind, const real *s, int64_t rows,
                               int64_t depth, real alpha, int keep) {
    word *room = (word *)(t->memory + state_size(t->layers, t->last + 1, t->lanes));
    split_states(room, s, depth, t->lanes);
    multiply(out, t->lanes, packed_of(t, layer, kind), room, rows, depth, alpha, keep);
}

static void weigh(const tile *t, real *out, int64_t layer, const real *s) {
    split_and_multiply(t, out, layer, UPWARD, s, size_of(t, layer), size_of(t, layer - 1), 1, 1);
}

static void weigh_back(const tile *t, real *out, int64_t layer, const real *s, real alpha) {
    split_and_multiply(t, out, layer, DOWNWARD, s, size_of(t, layer - 1), size_of(t, layer), alpha, 0);
}

static void weigh_lateral(const tile *t, real *out, int64_t layer, const real *s) {
    split_and_multiply(t, out, layer, LATERAL, s, size_of(t, layer), size_of(t, layer), 1, 1);
}

/* Share `part` of `parts` of the rows of one matrix. */
static void pack_share(word *out, void (*packer)(word *, const real *, int64_t, int64_t, int64_t), const real *w,
                       int64_t rows, int64_t depth, int64_t part, int64_t parts) {
    int64_t blocks = round_up(rows, BLOCK_ROWS) / BLOCK_ROWS, length = packed_numbers(BLOCK_ROWS, depth);
    for (int64_t i = blocks * part / parts; i < blocks * (part + 1) / parts; i++)
        packer(out + i * length, w, rows, depth, i * BLOCK_ROWS);
}

static void pack_weights(const JOB *job, int64_t part, int64_t parts) {
    tile t = tile_at(job, 0, 0);
    for (int64_t l = 1; l <= t.last; l++) {
        const real *w = t.theta + t.layers[l].weight;
        int64_t n = size_of(&t, l), below = size_of(&t, l - 1);
        if (!is_conv(&t, l)) {
            pack_share(packed_of(&t, l, UPWARD), pack_rows, w, n, below, part, parts);
            if (l > 1)
                pack_share(packed_of(&t, l, DOWNWARD), pack_columns, w, below, n, part, parts);
        }
        if (t.layers[l].lateral >= 0) /* its columns are its rows, as in products.h */
            pack_share(packed_of(&t, l, LATERAL), pack_columns, t.theta + t.layers[l].lateral, n, n, part, parts);
    }
}
