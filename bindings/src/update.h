/* The fused Hebbian update: the contrast of a block of weights, then the optimiser's step while it is in the cache.
 *
 *     trace = sum_b  d_post[b] m_pre[b]^T + m_post[b] d_pre[b]^T
 *
 * The clamped input has d_pre = 0, and from layer to layer a feed-forward schedule has the first product alone. m and d are
 * the mean and the difference of the nudged states, so the difference is formed before the product and nothing cancels.
 */

/* One matrix: what its two ends did, (B, n_pre) and (B, n_post); d_pre is NULL where it has no part. */
typedef struct {
    const real *m_pre, *d_pre, *m_post, *d_post;
    int64_t n_pre, n_post, batch, at; /* where the matrix lies in the parameters */
    real scale;
} synapse;

#include "bands.h"

INLINE void prefetch(const JOB *job, int64_t at) {
    PREFETCH(job->parameters + at);
    if (job->optimiser.rule >= EQK_MOMENTUM)
        PREFETCH(job->first + at);
    if (job->optimiser.rule == EQK_ADAM)
        PREFETCH(job->second + at);
}

/* Learns, unless the gradient goes into a band. */
INLINE void learn_block(const int rows, const int vectors, const JOB *job, const synapse *s, int64_t row, int64_t column,
                        const int partial, int64_t some, real *band) {
    vec sum[BLOCK_A][8];
    real own[BLOCK_A][2 * LANES], *gradient = band ? band + column : own[0];
    const int64_t at = s->at + row * s->n_pre + column, pitch = band ? round_up(s->n_pre, CHAINS) : 2 * LANES;
    for (int i = 0; !band && i < rows; i++) /* the weights and moments arrive while we sum */
        for (int v = 0; v < vectors; v++)
            prefetch(job, at + i * s->n_pre + v * LANES);
    clear_sums(rows, vectors, sum);
    accumulate(rows, vectors, sum, s->d_post + row, 1, s->n_post, s->m_pre + column, s->n_pre, s->batch, partial, some);
    if (s->d_pre)
        accumulate(rows, vectors, sum, s->m_post + row, 1, s->n_post, s->d_pre + column, s->n_pre, s->batch, partial,
                   some);
    UNROLL for (int i = 0; i < rows; i++)
        UNROLL for (int v = 0; v < vectors; v++)
            v_store(gradient + i * pitch + v * LANES, v_mul(v_set(s->scale), sum[i][v]));
    if (band)
        return;
    if (vectors == 2)
        learn_pairs(job, at, s->n_pre, gradient, rows);
    else
        learn(job, at, s->n_pre, gradient, pitch, rows, partial ? some : LANES, (real)job->optimiser.decay);
}

#define LEARN_ROWS(name, rows) \
    NOINLINE void name(const JOB *job, const synapse *s, int64_t row, real *band) { \
        int64_t column = 0; \
        for (; s->n_pre - column >= 2 * LANES; column += 2 * LANES) \
            learn_block(rows, 2, job, s, row, column, 0, 0, band); \
        for (; s->n_pre - column >= LANES; column += LANES) \
            learn_block(rows, 1, job, s, row, column, 0, 0, band); \
        if (column < s->n_pre) \
            learn_block(rows, 1, job, s, row, column, 1, s->n_pre - column, band); \
        if (band) \
            learn_band(job, s, row, 0, band, round_up(s->n_pre, CHAINS), rows, s->n_pre); \
    }
LEARN_ROWS(learn_rows_a, BLOCK_A)
LEARN_ROWS(learn_rows_b, BLOCK_B)
LEARN_ROWS(learn_rows_c, BLOCK_C)
LEARN_ROWS(learn_row, 1)

static void learn_whole(const JOB *job, const synapse *s, int64_t begin, int64_t end, real *room) {
    const int fits = BLOCK_A * round_up(s->n_pre, CHAINS) <= band_room(s->n_pre, s->n_post, CHAINS);
    real *band = in_bands(job, s) && fits ? room : 0;
    int64_t row = begin;
    for (; end - row >= BLOCK_A; row += BLOCK_A)
        learn_rows_a(job, s, row, band);
    for (; end - row >= BLOCK_B; row += BLOCK_B)
        learn_rows_b(job, s, row, band);
    for (; end - row >= BLOCK_C; row += BLOCK_C)
        learn_rows_c(job, s, row, band);
    for (; row < end; row++)
        learn_row(job, s, row, band);
}

/* Learns from sums (pre, post), `pitch` apart: `units` units of pre and `lanes` of post, whose first weight is `at`. */
NOINLINE void learn_across(const JOB *job, int64_t at, int64_t n_pre, const real *restrict sums, ptrdiff_t pitch,
                           int64_t units, int64_t lanes) {
    real gradient[LANES * WORD];
    for (int64_t lane = 0; lane < lanes; lane += LANES) {
        for (int64_t i = 0; i < units; i += LANES) {
            vec square[LANES]; /* rows beyond the last unit are not used */
            UNROLL for (int j = 0; j < LANES; j++)
                square[j] = v_load(sums + (i + j) * pitch + lane);
            v_transpose(square);
            UNROLL for (int j = 0; j < LANES; j++)
                v_store(gradient + j * WORD + i, square[j]);
        }
        learn(job, at + lane * n_pre, n_pre, gradient, WORD, lanes - lane < LANES ? lanes - lane : LANES, units,
              (real)job->optimiser.decay);
    }
}

/* Whether weights whose gradient is zero stay as they are. */
INLINE int stays(const eqk_optimiser *o) { return o->rule == EQK_SGD && (real)o->rate * (real)o->decay == 0; }

enum { FAR = 6 << 20 }; /* bytes */

/* Whether Adam's weights and moments are more than the caches keep from step to step: then the few lines of a row that
 * learn at once are asked for while sums are formed. Where they are fewer, asking takes longer than it saves (Zen 4). */
INLINE int are_far(const JOB *job) {
    return job->optimiser.rule == EQK_ADAM && 3 * job->parameter_count * (int64_t)sizeof(real) > FAR;
}

/* Asks for `rows` rows, `stride` apart, of `count` weights and their moments, which begin at `at`. */
INLINE void fetch_soon(const JOB *job, int64_t at, ptrdiff_t stride, int64_t rows, int64_t count) {
    for (int64_t row = 0; row < rows; row++, at += stride)
        for (int64_t i = at; i < at + count; i += CHAINS) { /* a line of the cache */
            PREFETCH_SOON(job->parameters + i);
            PREFETCH_SOON(job->first + i);
            PREFETCH_SOON(job->second + i);
        }
}

/* A chunk of the lanes meets the listed units unit..unit + count - 1. */
static void learn_chunk(const JOB *job, const synapse *s, const listing *l, int64_t unit, int64_t count, stretch c) {
    const int still = stays(&job->optimiser), far = are_far(job);
    vec poison = v_set(0); /* both ends are known to be finite */
    /* Learning displaces the chunk from the first cache, but units that stay are found a few at a time. */
    const int64_t pitch = c.wide * LANES, most = (still ? 4 : 32) * SPAN, lane = l->lanes.begin + c.at, some = c.some;
    const int64_t few = l->across ? WORD : c.wide < most ? most / c.wide : 1;
    for (int64_t block = 0; block < l->blocks; block++) {
        const int last = block == l->blocks - 1;
        uint64_t live = pack_chunk(l, l->lanes.begin, c, block, &poison);
        for (int64_t i = 0; i < count; i += few) { /* as many as learn at once */
            int64_t n = count - i < few ? count - i : few;
            real *sums = l->sums + (l->blocks > 1 ? i * pitch : 0);
            if (still && !any_word(l->seen + i, n))
                continue;
            for (int64_t j = i, next; j < i + n; j = next) {
                next = j + sum_units(l, block, j, i + n - j, live, c.wide, sums + (j - i) * pitch, pitch,
                                     last ? s->scale : 1);
                if (far && last && l->across) {
                    int64_t row = some * (j - i) / n, end = some * (next - i) / n;
                    fetch_soon(job, s->at + (lane + row) * s->n_pre + unit + i, s->n_pre, end - row, n);
                } else if (far && last)
                    fetch_soon(job, s->at + (unit + j) * s->n_pre + lane, s->n_pre, next - j, some);
            }
            if (last && l->across)
                learn_across(job, s->at + lane * s->n_pre + unit + i, s->n_pre, sums, pitch, n, some);
            else if (last)
                learn(job, s->at + (unit + i) * s->n_pre + lane, s->n_pre, sums, pitch, n, some,
                      (real)job->optimiser.decay);
        }
    }
}

static void learn_without_zeros(const JOB *job, const synapse *s, const listing *l) {
    const int64_t lanes = l->lanes.end - l->lanes.begin;
    const int64_t chunks = chunks_in(lanes, l->across ? SPAN : WORD * SPAN / in_block(l->depth, 0));
    for (int64_t unit = l->units.begin; unit < l->units.end; unit += l->group) {
        int64_t count = l->units.end - unit < l->group ? l->units.end - unit : l->group;
        list_units(l, unit, count);
        for (int64_t i = 0; i < chunks; i++)
            learn_chunk(job, s, l, unit, count, chunk_of(lanes, chunks, i));
    }
}

/* Rows begin..end - 1, the way that takes least; all shares of a matrix go the same. */
static void learn_matrix(const JOB *job, const synapse *s, int64_t begin, int64_t end, real *room) {
    const int64_t depth = s->d_pre ? 2 * s->batch : s->batch, vectors = vectors_in(s->n_pre);
    side post = {s->d_post, s->m_post, s->n_post, s->batch, begin, end};
    side pre = {s->m_pre, s->d_pre, s->n_pre, s->batch, 0, s->n_pre};
    double posts = is_small(s->n_pre, s->n_post) ? -1 : count_side(&post, depth);
    double pres = posts < 0 ? -1 : count_side(&pre, depth);
    double whole = (double)s->n_post * vectors * depth, by_post = cost_without_zeros(s->n_post, s->n_pre, depth, posts);
    double by_pre = cost_without_zeros(s->n_pre, s->n_post, depth, pres) + 4.0 * s->n_post * vectors;
    if (stays(&job->optimiser) && posts < (double)s->n_post) /* what stays is not fetched */
        by_post -= 8.0 * vectors * ((double)s->n_post - posts);
    if (pres < 0 || (whole <= by_post && whole <= by_pre))
        learn_whole(job, s, begin, end, room);
    else {
        const int across = by_pre < by_post, split = blocks_of(depth) > 1;
        const int banded = in_bands(job, s) && !(across && split);
        real *rest = room + band_room(s->n_pre, s->n_post, CHAINS);
        listing l = listing_in(rest, across ? &pre : &post, across ? &post : &pre, across, depth,
                               banded && !split ? RUN : GROUP);
        if (!banded)
            learn_without_zeros(job, s, &l);
        else if (across)
            learn_bands_by_pre(job, s, &l, room);
        else
            learn_bands_by_post(job, s, &l, room);
    }
}

/* Filters begin..end - 1 of a convolution; winners are those of the mean state, noted for all samples or NULL. */
static void learn_filters(const JOB *job, const synapse *s, const shape *g, const real *winners, real *room, int64_t begin,
                          int64_t end) {
    int64_t taps = filter_size(g), first = s->at + begin * taps, n = (end - begin) * taps;
    tracer t;
    if (begin == end)
        return;
    t = tracer_in(g, room, begin, end - begin);
    if (g->pool == EQK_MAX_POOL && !winners)
        pack_up(g, t.packed, job->parameters + first, t.rows);
    for (int64_t b = 0; b < s->batch; b++) {
        const real *m_pre = s->m_pre + b * s->n_pre;
        if (winners)
            take_winners(&t, winners + b * s->n_post);
        else if (g->pool == EQK_MAX_POOL)
            find_winners(&t, m_pre);
        sum_sample(&t, m_pre, s->d_post + b * s->n_post);
        if (s->d_pre)
            sum_sample(&t, s->d_pre + b * s->n_pre, s->m_post + b * s->n_post);
    }
    memset(t.gradient, 0, (size_t)n * sizeof *t.gradient);
    end_trace(&t, t.gradient, s->scale);
    for (int64_t i = 0; i < n; i += 2 * LANES) {
        int64_t at = first + i, some = n - i < 2 * LANES ? n - i : 2 * LANES;
        learn(job, at, 0, t.gradient + i, 0, 1, some, (real)job->optimiser.decay);
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
        learn(job, at + i, 0, gradient, 0, 1, some, 0);
    }
}

/* One half-sweep up and one down: no weight acts backwards on the free state, nor learns so. */
INLINE int feed_forward(const eqk_schedule *s) {
    return s->order == EQK_SWEEP && s->free_steps == 1 && s->nudged_steps == 1;
}

/* Share `part` of `parts` of the rows of every connection. -gamma^(l - top) / B turns the contrast of connections into
 * layer l into the gradient of the mean loss; a readout, outside the energy, has no power of gamma. */
static void update(const JOB *job, int64_t part, int64_t parts) {
    const eqk_layer *layers = job->layers;
    int64_t last = job->count - 1, batch = job->batch, top = top_of(layers, job->count);
    size_t share = (size_t)update_room(layers, job->count, batch, CHAINS) * sizeof(real);
    real *room = (real *)(((uintptr_t)job->work + 63) / 64 * 64 + (size_t)part * share);
    for (int64_t l = 1; l <= last; l++) {
        int64_t n = layers[l].size, below = layers[l - 1].size;
        int64_t biases = biases_of(layers + l), begin = n * part / parts, end = n * (part + 1) / parts;
        double power = 1;
        for (int64_t i = l; i < top; i++)
            power *= job->schedule.gamma;
        real scale = (real)(-1 / power / (double)batch);
        const real *mean = job->mean + batch * layers[l].row, *difference = job->difference + batch * layers[l].row;
        int inner = l > 1 && l <= top && !feed_forward(&job->schedule);
        synapse dense = {l > 1 ? job->mean + batch * layers[l - 1].row : job->x,
                         inner ? job->difference + batch * layers[l - 1].row : 0,
                         mean, difference, below, n, batch, layers[l].weight, scale};
        synapse lateral = {mean, difference, mean, difference, n, n, batch, layers[l].lateral, (real)0.5 * scale};
        if (layers[l].kernel) {
            shape g = shape_into(layers + l);
            int64_t channels = g.post_channels;
            const real *winners = g.pool == EQK_MAX_POOL && notes_winners(job) ? job->winners + batch * layers[l].row : 0;
            learn_filters(job, &dense, &g, winners, room, channels * part / parts, channels * (part + 1) / parts);
        } else
            learn_matrix(job, &dense, begin, end, room);
        if (layers[l].lateral >= 0)
            learn_matrix(job, &lateral, begin, end, room);
        learn_bias(job, difference, batch * (n / biases), biases, layers[l].bias, scale, biases * part / parts,
                   biases * (part + 1) / parts);
    }
}
