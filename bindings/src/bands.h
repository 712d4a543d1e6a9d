/* Weights with moments learn in the order in which they lie (IN_BANDS): three streams are read and written that the
 * processor fetches ahead, where a few weights of many rows would wait for their lines.
 *
 * The gradient of a band of rows waits in the second cache until it is whole: rows of up to RUN weights, `pitch` apart.
 * Its sums are those of update.h, to the same bits.
 */

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
        const int64_t most = room / pitch < l->group ? room / pitch : l->group;
        run = left < RUN ? left : RUN;
        const int64_t chunks = chunks_in(run, widest);
        for (int64_t unit = l->units.begin, count; unit < l->units.end; unit += count) {
            count = l->units.end - unit < most ? l->units.end - unit : most;
            list_units(l, unit, count);
            for (int64_t i = 0; i < chunks; i++) {
                const stretch c = chunk_of(run, chunks, i);
                for (int64_t block = 0; block < l->blocks; block++) {
                    real gain = block == l->blocks - 1 ? s->scale : 1;
                    uint64_t live = pack_chunk(l, column, c, block, &poison);
                    for (int64_t j = 0; j < count;)
                        j += sum_units(l, block, j, count - j, live, c.wide, band + j * pitch + c.at, pitch, gain);
                }
            }
            learn_band(job, s, unit, column, band, pitch, count, run);
        }
    }
}

/* Zeros of pre are left out, of samples in one block: the rows of a chunk. */
static void learn_bands_by_pre(const JOB *job, const synapse *s, const listing *l, real *band) {
    enum { WIDEST = SPAN < BAND * CHAINS / LANES ? SPAN : BAND * CHAINS / LANES };
    const int64_t lanes = l->lanes.end - l->lanes.begin, chunks = chunks_in(lanes, WIDEST);
    vec poison = v_set(0);
    for (int64_t column = 0, run; column < s->n_pre; column += run) {
        const int64_t left = s->n_pre - column, pitch = group_of(left, RUN, CHAINS);
        run = left < RUN ? left : RUN;
        list_units(l, column, run);
        for (int64_t index = 0; index < chunks; index++) {
            const stretch c = chunk_of(lanes, chunks, index);
            const int64_t apart = c.wide * LANES;
            uint64_t live = pack_chunk(l, l->lanes.begin, c, 0, &poison);
            for (int64_t i = 0, count; i < run; i += count) { /* as many units as their sums have room */
                count = run - i < WORD ? run - i : WORD;
                for (int64_t j = 0; j < count;)
                    j += sum_units(l, 0, i + j, count - j, live, c.wide, l->sums + j * apart, apart, s->scale);
                transpose(band + i, pitch, l->sums, apart, count, c.some);
            }
            learn_band(job, s, l->lanes.begin + c.at, column, band, pitch, c.some, run);
        }
    }
}
