/* Weights with moments learn in the order in which they lie (IN_BANDS): three streams are read and written that the
 * processor fetches ahead, where a few weights of many rows would wait for their lines.
 *
 * The gradient of a band of rows waits in the second cache until it is whole: rows of up to RUN weights, `pitch` apart.
 * Its sums are those of update.h, to the same bits.
 */

/* One matrix: what its two ends did, (B, n_pre) and (B, n_post); d_pre is NULL where the lower end was clamped. */
typedef struct {
    const real *m_pre, *d_pre, *m_post, *d_post;
    int64_t n_pre, n_post, batch, at; /* where the matrix lies in the parameters */
    real scale;
} synapse;

/* Whether the rows of a matrix learn so. */
INLINE int in_bands(const JOB *job, const synapse *s) {
    return IN_BANDS && job->optimiser.rule >= EQK_MOMENTUM && !is_small(s->n_pre, s->n_post);
}

/* `rows` rows of a run of the matrix, whose first weight is that of unit (row, column). */
static void learn_band(const JOB *job, const synapse *s, int64_t row, int64_t column, const real *band, ptrdiff_t pitch,
                       int64_t rows, int64_t count) {
    learn(job, s->at + row * s->n_pre + column, s->n_pre, band, pitch, rows, count, (real)job->optimiser.decay);
}

/* Zeros of post are left out: as many rows as a band has room for. */
static void learn_bands_by_post(const JOB *job, const synapse *s, const listing *l, real *band) {
    const int64_t widest = WORD * SPAN / in_block(l->depth, 0), room = band_room(s->n_pre, s->n_post, CHAINS);
    vec poison = v_set(0); /* both ends are known to be finite */
    for (int64_t column = 0, run; column < s->n_pre; column += run) {
        const int64_t left = s->n_pre - column, pitch = group_of(left, RUN, CHAINS);
        run = left < RUN ? left : RUN;
        const int64_t vectors = (run + LANES - 1) / LANES, chunks = (vectors + widest - 1) / widest;
        const int64_t most = room / pitch < l->group ? room / pitch : l->group;
        for (int64_t unit = l->units.begin, count; unit < l->units.end; unit += count) {
            count = l->units.end - unit < most ? l->units.end - unit : most;
            list_units(l, unit, count);
            for (int64_t c = 0; c < chunks; c++) {
                int64_t first = vectors * c / chunks, wide = vectors * (c + 1) / chunks - first, at = first * LANES;
                int64_t some = run - at < wide * LANES ? run - at : wide * LANES;
                for (int64_t block = 0; block < l->blocks; block++) {
                    real gain = block == l->blocks - 1 ? s->scale : 1;
                    uint64_t live = pack_chunk(l->chunk, &l->lanes, column + at, some, wide, block * WORD,
                                               in_block(l->depth, block), &poison);
                    for (int64_t j = 0; j < count;)
                        j += sum_units(l, block, j, count - j, live, wide, band + j * pitch + at, pitch, gain);
                }
            }
            learn_band(job, s, unit, column, band, pitch, count, run);
        }
    }
}

/* Zeros of pre are left out, of samples in one block: the rows of a chunk. */
static void learn_bands_by_pre(const JOB *job, const synapse *s, const listing *l, real *band) {
    enum { WIDEST = SPAN < BAND * CHAINS / LANES ? SPAN : BAND * CHAINS / LANES };
    const int64_t lanes = l->lanes.end - l->lanes.begin, vectors = (lanes + LANES - 1) / LANES;
    const int64_t chunks = (vectors + WIDEST - 1) / WIDEST;
    vec poison = v_set(0);
    for (int64_t column = 0, run; column < s->n_pre; column += run) {
        const int64_t left = s->n_pre - column, pitch = group_of(left, RUN, CHAINS);
        run = left < RUN ? left : RUN;
        list_units(l, column, run);
        for (int64_t c = 0; c < chunks; c++) {
            int64_t first = vectors * c / chunks, wide = vectors * (c + 1) / chunks - first, at = first * LANES;
            int64_t some = lanes - at < wide * LANES ? lanes - at : wide * LANES, row = l->lanes.begin + at;
            uint64_t live = pack_chunk(l->chunk, &l->lanes, row, some, wide, 0, l->depth, &poison);
            for (int64_t i = 0, count; i < run; i += count) { /* as many units as their sums have room */
                count = run - i < WORD ? run - i : WORD;
                for (int64_t j = 0; j < count;)
                    j += sum_units(l, 0, i + j, count - j, live, wide, l->sums + j * wide * LANES, wide * LANES, s->scale);
                transpose(band + i, pitch, l->sums, wide * LANES, count, some);
            }
            learn_band(job, s, row, column, band, pitch, some, run);
        }
    }
}
