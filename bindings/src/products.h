/* What layers do to each other, as products of a tile's states with the matrix W into a layer, or with its lateral A. */

enum { WORTH_A_LIST = 64 }; /* rows of a product: so many pay for a list */

/* Of rows of zeros so many are left out that their list is worth making. */
INLINE int are_few(int64_t count, int64_t depth) { return count < depth - depth / 8; }

/* out += W s, s of the layer below. A single sample leaves nothing out: it waits for its weights, and so would a test; nor
 * does a product of fewer than a vector of weights a row. */
static void weigh(const tile *t, real *out, int64_t layer, const real *s) {
    const real *w = t->theta + t->layers[layer].weight;
    int64_t n = size_of(t, layer), below = size_of(t, layer - 1), *list = list_in(t);
    if (t->lanes == 1) {
        forward_single(out, w, below, s, n, below);
        return;
    }
    if (n < WORTH_A_LIST || below < LANES || !are_few(list_chains(list, s, t->lanes, below), below))
        list = 0;
    forward_tile(out, t->lanes, w, below, s, n, below, list, room_in(t));
}

/* out (rows) = alpha W^T s (+ out if keep), W (depth, rows). */
INLINE void transposed(const tile *t, real *out, const real *w, const real *s, int64_t rows, int64_t depth, real alpha,
                       int keep) {
    int64_t *list = list_in(t), count = depth;
    if (t->lanes == 1) {
        backward(out, 0, s, 0, 1, w, rows, 1, depth, rows, alpha, keep);
        return;
    }
    if (rows >= WORTH_A_LIST) {
        count = list_chain(list, s, t->lanes, 0, depth, 1);
        if (go_by_samples(s, count, depth, t->lanes) &&
            backward_samples(out, t->lanes, w, s, rows, depth, alpha, keep, room_in(t)))
            return;
    }
    if (!are_few(count, depth))
        list = 0;
    backward_tile(out, t->lanes, w, s, rows, depth, alpha, keep, list, room_in(t));
}

/* out = alpha W^T s, of the layer below; s of `layer` */
static void weigh_back(const tile *t, real *out, int64_t layer, const real *s, real alpha) {
    transposed(t, out, t->theta + t->layers[layer].weight, s, size_of(t, layer - 1), size_of(t, layer), alpha, 0);
}

/* out += A s, symmetric; read as its transpose, it is fastest for a single sample too */
static void weigh_lateral(const tile *t, real *out, int64_t layer, const real *s) {
    transposed(t, out, t->theta + t->layers[layer].lateral, s, size_of(t, layer), size_of(t, layer), 1, 1);
}
