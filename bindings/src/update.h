/* The fused Hebbian update: the contrast of a block of weights, then the optimiser's step while it is in the cache.
 *
 *     trace = sum_b  d_post[b] m_pre[b]^T + m_post[b] d_pre[b]^T          (the clamped input has d_pre = 0)
 *
 * m and d are the mean and the difference of the nudged states, so the difference is formed before the product and
 * nothing cancels.
 */

INLINE real *moment(real *moments, int64_t at) { return moments ? moments + at : 0; }

/* What a rule makes of the gradient g of `some` weights: their move at rate 1. Their moments begin at m + at, v + at. */
INLINE vec direction(const int rule, vec g, real *m, real *v, int64_t at, const vec *c, int64_t some) {
    vec mean, square;
    if (rule == EQK_MOMENTUM) {
        g = v_fma(c[0], v_load_some(m + at, some), g);
        v_store_some(m + at, g, some);
    }
    if (rule != EQK_ADAM)
        return g;
    mean = v_fma(c[0], v_load_some(m + at, some), v_mul(c[1], g));
    square = v_fma(c[2], v_load_some(v + at, some), v_mul(v_mul(c[3], g), g));
    v_store_some(m + at, mean, some);
    v_store_some(v + at, square, some);
    return v_div(v_mul(c[5], mean), v_add(v_sqrt(v_mul(c[6], square)), c[4]));
}

INLINE void learn_by(const int rule, real *restrict w, real *restrict m, real *restrict v, ptrdiff_t stride,
                     const real *restrict gradient, int64_t rows, int64_t count, const eqk_optimiser *o, real decay) {
    vec rate = v_set((real)o->rate), keep = v_set(1 - (real)o->rate * decay), c[7];
    for (int i = 0; i < 7; i++)
        c[i] = v_set((real)o->constants[i]);
    for (int64_t row = 0; row < rows; row++, gradient += 2 * LANES)
        for (int64_t i = 0; i < count; i += LANES) {
            int64_t some = count - i, at = row * stride + i;
            vec g = v_load(gradient + i);
            if (rule != EQK_GRADIENT) {
                vec move = direction(rule, g, m, v, at, c, some);
                g = v_fnma(rate, move, v_mul(keep, v_load_some(w + at, some)));
            }
            v_store_some(w + at, g, some);
        }
}

/* One optimiser step on `rows` rows, `stride` apart, of up to 2 LANES weights at w, given their gradient in whole rows
 * of 2 LANES; m and v are their moments. */
NOINLINE void learn(real *restrict w, real *restrict m, real *restrict v, ptrdiff_t stride, const real *restrict gradient,
                    int64_t rows, int64_t count, const eqk_optimiser *o, real decay) {
    switch (o->rule) {
    case EQK_GRADIENT: learn_by(EQK_GRADIENT, w, m, v, stride, gradient, rows, count, o, decay); break;
    case EQK_SGD: learn_by(EQK_SGD, w, m, v, stride, gradient, rows, count, o, decay); break;
    case EQK_MOMENTUM: learn_by(EQK_MOMENTUM, w, m, v, stride, gradient, rows, count, o, decay); break;
    default: learn_by(EQK_ADAM, w, m, v, stride, gradient, rows, count, o, decay);
    }
}

/* One matrix: what its two ends did, (B, n_pre) and (B, n_post); d_pre is NULL where the lower end was clamped. */
typedef struct {
    const real *m_pre, *d_pre, *m_post, *d_post;
    int64_t n_pre, n_post, batch, at; /* where the matrix lies in the parameters */
    real scale;
} synapse;

INLINE void learn_block(const int rows, const int vectors, const JOB *job, const synapse *s, int64_t row, int64_t column,
                        const int partial, int64_t some) {
    vec sum[BLOCK_A][8];
    real gradient[BLOCK_A][2 * LANES];
    int64_t at = s->at + row * s->n_pre + column;
    for (int i = 0; i < rows; i++) /* the weights and moments arrive while we sum */
        for (int v = 0; v < vectors; v++) {
            int64_t place = at + i * s->n_pre + v * LANES;
            PREFETCH(job->parameters + place);
            if (job->optimiser.rule >= EQK_MOMENTUM)
                PREFETCH(job->first + place);
            if (job->optimiser.rule == EQK_ADAM)
                PREFETCH(job->second + place);
        }
    clear_sums(rows, vectors, sum);
    accumulate(rows, vectors, sum, s->d_post + row, 1, s->n_post, s->m_pre + column, s->n_pre, s->batch, partial, some);
    if (s->d_pre)
        accumulate(rows, vectors, sum, s->m_post + row, 1, s->n_post, s->d_pre + column, s->n_pre, s->batch, partial,
                   some);
    UNROLL for (int i = 0; i < rows; i++)
        UNROLL for (int v = 0; v < vectors; v++)
            v_store(&gradient[i][v * LANES], v_mul(v_set(s->scale), sum[i][v]));
    learn(job->parameters + at, moment(job->first, at), moment(job->second, at), s->n_pre, gradient[0], rows,
          partial ? some : vectors * LANES, &job->optimiser, (real)job->optimiser.decay);
}

#define LEARN_ROWS(name, rows) \
    NOINLINE void name(const JOB *job, const synapse *s, int64_t row) { \
        int64_t column = 0; \
        for (; s->n_pre - column >= 2 * LANES; column += 2 * LANES) \
            learn_block(rows, 2, job, s, row, column, 0, 0); \
        for (; s->n_pre - column >= LANES; column += LANES) \
            learn_block(rows, 1, job, s, row, column, 0, 0); \
        if (column < s->n_pre) \
            learn_block(rows, 1, job, s, row, column, 1, s->n_pre - column); \
    }
LEARN_ROWS(learn_rows_a, BLOCK_A)
LEARN_ROWS(learn_rows_b, BLOCK_B)
LEARN_ROWS(learn_rows_c, BLOCK_C)
LEARN_ROWS(learn_row, 1)

static void learn_matrix(const JOB *job, const synapse *s, int64_t begin, int64_t end) {
    int64_t row = begin;
    for (; end - row >= BLOCK_A; row += BLOCK_A)
        learn_rows_a(job, s, row);
    for (; end - row >= BLOCK_B; row += BLOCK_B)
        learn_rows_b(job, s, row);
    for (; end - row >= BLOCK_C; row += BLOCK_C)
        learn_rows_c(job, s, row);
    for (; row < end; row++)
        learn_row(job, s, row);
}

/* Filters begin..end - 1 of a convolution; winners are those of the mean state. */
static void learn_filters(const JOB *job, const synapse *s, const shape *g, real *room, int64_t begin, int64_t end) {
    int64_t taps = filter_size(g), first = s->at + begin * taps, n = (end - begin) * taps;
    tracer t;
    if (begin == end)
        return;
    t = tracer_in(g, room, begin, end - begin);
    if (g->pool == EQK_MAX_POOL)
        pack_up(g, t.packed, job->parameters + first, t.rows);
    for (int64_t b = 0; b < s->batch; b++) {
        const real *m_pre = s->m_pre + b * s->n_pre;
        if (g->pool == EQK_MAX_POOL)
            find_winners(&t, m_pre);
        sum_sample(&t, m_pre, s->d_post + b * s->n_post);
        if (s->d_pre)
            sum_sample(&t, s->d_pre + b * s->n_pre, s->m_post + b * s->n_post);
    }
    memset(t.gradient, 0, (size_t)n * sizeof *t.gradient);
    end_trace(&t, t.gradient, s->scale);
    for (int64_t i = 0; i < n; i += 2 * LANES) {
        int64_t at = first + i, some = n - i < 2 * LANES ? n - i : 2 * LANES;
        learn(job->parameters + at, moment(job->first, at), moment(job->second, at), 0, t.gradient + i, 1, some,
              &job->optimiser, (real)job->optimiser.decay);
    }
}

/* Biases begin..end - 1 of n that take turns along `rows` rows of d_post. */
static void learn_bias(const JOB *job, const real *d_post, int64_t rows, int64_t n, int64_t at, real scale, int64_t begin,
                       int64_t end) {
    for (int64_t i = begin; i < end; i += LANES) {
        int64_t some = end - i < LANES ? end - i : LANES;
        vec sum = v_set(0);
        real gradient[LANES];
        for (int64_t row = 0; row < rows; row++)
            sum = v_add(sum, v_load_some(d_post + row * n + i, some));
        v_store(gradient, v_mul(sum, v_set(scale)));
        learn(job->parameters + at + i, moment(job->first, at + i), moment(job->second, at + i), 0, gradient, 1, some,
              &job->optimiser, 0);
    }
}

/* Share `part` of `parts` of the rows of every connection. -gamma^(l - top) / B turns the contrast of connections into
 * layer l into the gradient of the mean loss; a readout, outside the energy, has no power of gamma. */
static void update(const JOB *job, int64_t part, int64_t parts) {
    const eqk_layer *layers = job->layers;
    int64_t last = job->count - 1, batch = job->batch;
    int64_t top = layers[last].neuron == EQK_SOFTMAX ? last - 1 : last;
    for (int64_t l = 1; l <= last; l++) {
        int64_t n = layers[l].size, below = layers[l - 1].size;
        int64_t biases = biases_of(layers + l), begin = n * part / parts, end = n * (part + 1) / parts;
        double power = 1;
        for (int64_t i = l; i < top; i++)
            power *= job->schedule.gamma;
        real scale = (real)(-1 / power / (double)batch);
        const real *mean = job->mean + batch * layers[l].row, *difference = job->difference + batch * layers[l].row;
        int inner = l > 1 && l <= top;
        synapse dense = {l > 1 ? job->mean + batch * layers[l - 1].row : job->x,
                         inner ? job->difference + batch * layers[l - 1].row : 0,
                         mean, difference, below, n, batch, layers[l].weight, scale};
        synapse lateral = {mean, difference, mean, difference, n, n, batch, layers[l].lateral, (real)0.5 * scale};
        if (layers[l].kernel) {
            shape g = shape_into(layers + l);
            real *room = (real *)job->work + part * update_room(layers, job->count, CHAINS);
            learn_filters(job, &dense, &g, room, g.post_channels * part / parts, g.post_channels * (part + 1) / parts);
        } else
            learn_matrix(job, &dense, begin, end);
        if (layers[l].lateral >= 0)
            learn_matrix(job, &lateral, begin, end);
        learn_bias(job, difference, batch * (n / biases), biases, layers[l].bias, scale, biases * part / parts,
                   biases * (part + 1) / parts);
    }
}
