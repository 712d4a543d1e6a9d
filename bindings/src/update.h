/* The fused Hebbian update: the contrast of a block of weights, then the optimiser's step while it is in the cache.
 *
 *     trace = sum_b  d_post[b] m_pre[b]^T + m_post[b] d_pre[b]^T          (the clamped input has d_pre = 0)
 *
 * m and d are the mean and the difference of the nudged states, so the difference is formed before the product and
 * nothing cancels.
 */

INLINE real *moment(real *moments, int64_t at) { return moments ? moments + at : 0; }

/* One optimiser step on `count` weights at w, given their gradient; m and v are their moments. */
NOINLINE void learn(real *restrict w, real *restrict m, real *restrict v, const real *restrict gradient, int64_t count,
                    const eqk_optimiser *o, real decay) {
    vec rate = v_set((real)o->rate), keep = v_set(1 - (real)o->rate * decay), c[7];
    for (int i = 0; i < 7; i++)
        c[i] = v_set((real)o->constants[i]);
    for (int64_t i = 0; i < count; i += LANES) {
        int64_t some = count - i;
        vec g = v_load_some(gradient + i, some), move = g;
        if (o->rule == EQK_GRADIENT) {
            v_store_some(w + i, g, some);
            continue;
        }
        if (o->rule == EQK_MOMENTUM) {
            move = v_fma(c[0], v_load_some(m + i, some), g);
            v_store_some(m + i, move, some);
        } else if (o->rule == EQK_ADAM) {
            vec mean = v_fma(c[0], v_load_some(m + i, some), v_mul(c[1], g));
            vec square = v_fma(c[2], v_load_some(v + i, some), v_mul(v_mul(c[3], g), g));
            v_store_some(m + i, mean, some);
            v_store_some(v + i, square, some);
            move = v_div(v_mul(c[5], mean), v_add(v_sqrt(v_mul(c[6], square)), c[4]));
        }
        v_store_some(w + i, v_fnma(rate, move, v_mul(keep, v_load_some(w + i, some))), some);
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
    UNROLL for (int i = 0; i < rows; i++) /* the first vector of the weights and moments arrives while we sum */
        PREFETCH(job->parameters + at + i * s->n_pre);
    if (job->optimiser.rule >= EQK_MOMENTUM)
        UNROLL for (int i = 0; i < rows; i++)
            PREFETCH(job->first + at + i * s->n_pre);
    if (job->optimiser.rule == EQK_ADAM)
        UNROLL for (int i = 0; i < rows; i++)
            PREFETCH(job->second + at + i * s->n_pre);
    clear_sums(rows, vectors, sum);
    accumulate(rows, vectors, sum, s->d_post + row, 1, s->n_post, s->m_pre + column, s->n_pre, s->batch, partial, some);
    if (s->d_pre)
        accumulate(rows, vectors, sum, s->m_post + row, 1, s->n_post, s->d_pre + column, s->n_pre, s->batch, partial,
                   some);
    UNROLL for (int i = 0; i < rows; i++)
        UNROLL for (int v = 0; v < vectors; v++)
            v_store(&gradient[i][v * LANES], v_mul(v_set(s->scale), sum[i][v]));
    for (int i = 0; i < rows; i++) {
        int64_t place = at + i * s->n_pre;
        learn(job->parameters + place, moment(job->first, place), moment(job->second, place), gradient[i],
              partial ? some : vectors * LANES, &job->optimiser, (real)job->optimiser.decay);
    }
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

static void learn_bias(const JOB *job, const real *d_post, int64_t n, int64_t at, real scale, int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; i += LANES) {
        int64_t some = end - i < LANES ? end - i : LANES;
        vec sum = v_set(0);
        real gradient[LANES];
        for (int64_t b = 0; b < job->batch; b++)
            sum = v_add(sum, v_load_some(d_post + b * n + i, some));
        v_store(gradient, v_mul(sum, v_set(scale)));
        learn(job->parameters + at + i, moment(job->first, at + i), moment(job->second, at + i), gradient, some,
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
        int64_t begin = n * part / parts, end = n * (part + 1) / parts;
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
        learn_matrix(job, &dense, begin, end);
        if (layers[l].lateral >= 0)
            learn_matrix(job, &lateral, begin, end);
        learn_bias(job, difference, n, layers[l].bias, scale, begin, end);
    }
}
