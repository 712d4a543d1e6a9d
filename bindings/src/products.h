/* What layers do to each other, as products of a tile's states with the matrix W into a layer, or with its lateral A. */

/* out += W s, s of the layer below */
static void weigh(const tile *t, real *out, int64_t layer, const real *s) {
    const real *w = t->theta + t->layers[layer].weight;
    int64_t n = size_of(t, layer), below = size_of(t, layer - 1);
    if (t->lanes == 1)
        forward_single(out, w, below, s, n, below);
    else
        forward_tile(out, t->lanes, w, below, s, n, below);
}

/* out (rows) = alpha W^T s (+ out if keep), W (depth, rows). */
INLINE void transposed(const tile *t, real *out, const real *w, const real *s, int64_t rows, int64_t depth, real alpha,
                       int keep) {
    if (t->lanes == 1)
        backward(out, 0, s, 0, 1, w, rows, 1, depth, rows, alpha, keep);
    else
        backward(out, t->lanes, w, 1, rows, s, t->lanes, rows, depth, t->lanes, alpha, keep);
}

/* out = alpha W^T s, of the layer below; s of `layer` */
static void weigh_back(const tile *t, real *out, int64_t layer, const real *s, real alpha) {
    transposed(t, out, t->theta + t->layers[layer].weight, s, size_of(t, layer - 1), size_of(t, layer), alpha, 0);
}

/* out += A s, symmetric; read as its transpose, it is fastest for a single sample too */
static void weigh_lateral(const tile *t, real *out, int64_t layer, const real *s) {
    transposed(t, out, t->theta + t->layers[layer].lateral, s, size_of(t, layer), size_of(t, layer), 1, 1);
}
