/* Sums of products that leave out factors of zero.
 *
 * Pixels are dark and hard sigmoids rest at 0: half of the factors of a Hebbian product are zero, or more. sum + 0 w is
 * sum for a finite w, so a chain without them has the bits of the whole chain (but for the sign of a sum that has
 * underflowed to zero). A NaN or an infinity must meet its zeros: where there is one, nothing is left out.
 *
 *     sum[i, j] = sum_k  a_k[i] b_k[j]          k: samples
 *
 * Vectors run along j, and the samples where a unit i is not zero are the bits of a word. A chunk of b that fits the
 * first cache is copied together, and meets a GROUP of units. A span of up to SPAN vectors of sums is summed at once;
 * where that leaves registers for two units (PAIRS), these may share what they load. A sum waits WAIT steps of a vector
 * for itself.
 */

/* One end of a matrix: samples k < batch are rows of `first` (batch, n), those after of `second`; the product is about
 * its units begin..end - 1. */
typedef struct {
    const real *first, *second;
    int64_t n, batch, begin, end;
} side;

INLINE const real *sample_of(const side *s, int64_t k) {
    return k < s->batch ? s->first + k * s->n : s->second + (k - s->batch) * s->n;
}

/* How many of n numbers a sum has to go through: those that are not 0, or .8 of those in PAIRS that are not 0 both
 * (`sum_units`); -1 if one is not finite. */
static double count_left(const real *a, int64_t n) {
    int64_t single = 0, paired = 0;
    vec poison = v_set(0);
    for (int64_t i = 0; i < n; i += LANES) {
        vec value = v_load_some(a + i, n - i);
        unsigned bits = v_nonzero(value);
        single += count_bits(bits);
        paired += 2 * count_bits((bits | bits >> 1) & 0x5555);
        poison = v_fma(value, v_set(0), poison);
    }
    double left = PAIRS && 0.8 * (double)paired < (double)single ? 0.8 * (double)paired : (double)single;
    return v_poison(poison) != 0 ? -1 : left;
}

/* The same of a side's samples 0..depth - 1. */
static double count_side(const side *s, int64_t depth) {
    double first = count_left(s->first, s->batch * s->n), second = 0;
    if (depth > s->batch)
        second = count_left(s->second, s->batch * s->n);
    return first < 0 || second < 0 ? -1 : first + second;
}

/* The product of two ends: zeros of `units` are left out, vectors run along `lanes`. A group of units is listed, `most`
 * or all of them: */
typedef struct {
    side units, lanes;
    int across; /* the units are those of pre */
    int64_t depth, blocks, group, held;
    real *chunk, *sums, *values; /* (block, unit, sample) */
    uint64_t *words, *seen;      /* which of them are not zero: (block, unit); in any block: (unit) */
} listing;

static listing listing_in(real *room, const side *units, const side *lanes, int across, int64_t depth, int64_t most) {
    const int64_t blocks = blocks_of(depth), held = held_of(depth, CHAINS), group = group_of(units->n, most, CHAINS);
    listing l = {*units, *lanes, across, depth, blocks, group, held, room, 0, 0, 0, 0};
    l.sums = l.chunk + WORD * LINES * CHAINS;
    l.values = l.sums + summed_of(group, blocks) * LINES * CHAINS;
    l.words = (uint64_t *)(l.values + blocks * group * held);
    l.seen = l.words + blocks * group;
    return l;
}

INLINE int64_t in_block(int64_t depth, int64_t block) { /* how many samples */
    return depth - block * WORD < WORD ? depth - block * WORD : WORD;
}

/* Lists units unit..unit + count - 1: the samples of a unit side by side, and a bit for each that is not zero. */
static void list_units(const listing *l, int64_t unit, int64_t count) {
    const side *s = &l->units;
    memset(l->seen, 0, (size_t)count * sizeof *l->seen);
    for (int64_t block = 0; block < l->blocks; block++) {
        int64_t k = block * WORD, samples = in_block(l->depth, block), firsts = s->batch - k;
        real *values = l->values + block * l->group * l->held;
        firsts = firsts < 0 ? 0 : firsts < samples ? firsts : samples;
        if (firsts > 0)
            transpose(values, l->held, sample_of(s, k) + unit, s->n, firsts, count);
        if (firsts < samples)
            transpose(values + firsts, l->held, sample_of(s, k + firsts) + unit, s->n, samples - firsts, count);
        for (int64_t i = 0; i < count; i++) {
            uint64_t word = nonzero_bits(values + i * l->held, samples);
            l->words[block * l->group + i] = word;
            l->seen[i] |= word;
        }
    }
}

/* A chunk of lanes: where it begins, how many they are, in how many vectors. Chunks differ by a vector at most. */
typedef struct {
    int64_t at, some, wide;
} stretch;

INLINE int64_t vectors_in(int64_t lanes) { return (lanes + LANES - 1) / LANES; }
INLINE int64_t chunks_in(int64_t lanes, int64_t widest) { return (vectors_in(lanes) + widest - 1) / widest; }

INLINE stretch chunk_of(int64_t lanes, int64_t chunks, int64_t index) {
    int64_t first = vectors_in(lanes) * index / chunks, wide = vectors_in(lanes) * (index + 1) / chunks - first;
    int64_t at = first * LANES, left = lanes - at;
    stretch c = {at, left < wide * LANES ? left : wide * LANES, wide};
    return c;
}

INLINE int any_word(const uint64_t *words, int64_t n) {
    uint64_t any = 0;
    for (int64_t i = 0; i < n; i++)
        any |= words[i];
    return any != 0;
}

/* A block's samples of a chunk of the lanes from `first` on, side by side; says which are not zero, and adds to `poison` NaN
 * for what is not finite. */
static uint64_t pack_chunk(const listing *l, int64_t first, stretch c, int64_t block, vec *poison) {
    const int64_t samples = in_block(l->depth, block);
    real *restrict chunk = l->chunk;
    uint64_t word = 0;
    vec sum = *poison;
    for (int64_t b = 0; b < samples; b++, chunk += c.wide * LANES) {
        const real *source = sample_of(&l->lanes, block * WORD + b) + first + c.at;
        int nonzero = 0;
        for (int64_t i = 0; i < c.some; i += LANES) {
            vec value = v_load_some(source + i, c.some - i);
            nonzero |= v_nonzero(value);
            sum = v_add(v_sub(value, value), sum);
            v_store(chunk + i, value);
        }
        word |= (uint64_t)(nonzero != 0) << b;
    }
    *poison = sum;
    return word;
}

/* sums (rows, vectors) = gain * (sums, if keep, + sum over the samples k of `word`: values[i, k] chunk[k]), for 1 or 2
 * rows, `apart`; those of the values are `held` apart, and those of the chunk `pitch`. */
INLINE void sum_span(const int rows, const int vectors, real *sums, ptrdiff_t apart, const real *values, ptrdiff_t held,
                     uint64_t word, const real *chunk, ptrdiff_t pitch, int keep, real gain) {
    vec sum[2][SPAN];
    UNROLL for (int i = 0; i < rows; i++)
        UNROLL for (int v = 0; v < vectors; v++)
            sum[i][v] = keep ? v_load(sums + i * apart + v * LANES) : v_set(0);
    for (; word; word &= word - 1) {
        int64_t k = lowest_bit(word);
        UNROLL for (int v = 0; v < vectors; v++) {
            vec value = v_load(chunk + k * pitch + v * LANES);
            if (rows > 1)
                value = v_loaded(value);
            UNROLL for (int i = 0; i < rows; i++)
                sum[i][v] = v_fma(v_set(values[i * held + k]), value, sum[i][v]);
        }
    }
    UNROLL for (int i = 0; i < rows; i++)
        UNROLL for (int v = 0; v < vectors; v++)
            v_store(sums + i * apart + v * LANES, v_mul(v_set(gain), sum[i][v]));
}

/* The same of any number of vectors, in spans that differ by a vector at most. */
#define SPAN_OF(rows, n) \
    case n: \
        if (n <= SPAN) \
            sum_span(rows, n <= SPAN ? n : 1, sums, apart, values, held, word, chunk, pitch, keep, gain); \
        break;
#define SUM(name, rows) \
    NOINLINE void name(real *restrict sums, ptrdiff_t apart, const real *restrict values, ptrdiff_t held, uint64_t word, \
                       const real *restrict chunk, int64_t vectors, int keep, real gain) { \
        const ptrdiff_t pitch = vectors * LANES; \
        for (int64_t spans = (vectors + SPAN - 1) / SPAN; spans > 0; spans--) { \
            const int64_t span = vectors / spans; \
            switch (span) { \
                SPAN_OF(rows, 12) SPAN_OF(rows, 11) SPAN_OF(rows, 10) SPAN_OF(rows, 9) \
                SPAN_OF(rows, 8) SPAN_OF(rows, 7) SPAN_OF(rows, 6) SPAN_OF(rows, 5) \
                SPAN_OF(rows, 4) SPAN_OF(rows, 3) SPAN_OF(rows, 2) SPAN_OF(rows, 1) \
            } \
            sums += span * LANES, chunk += span * LANES, vectors -= span; \
        } \
    }
SUM(sum_unit, 1)
SUM(sum_pair, 2)

/* Sums of listed unit j over a block, or of a pair of units where few samples are zero in one of them alone: they share
 * what they load, and take .8 of the time for each sample that is left in either; their sums are rows that lie `apart`. Says
 * of how many of `units`. */
INLINE int64_t sum_units(const listing *l, int64_t block, int64_t j, int64_t units, uint64_t live, int64_t vectors,
                         real *sums, ptrdiff_t apart, real gain) {
    const real *values = l->values + (block * l->group + j) * l->held;
    const uint64_t *words = l->words + block * l->group + j, word = words[0] & live;
    const int keep = block > 0;
    if (PAIRS && units > 1) {
        uint64_t next = words[1] & live;
        if (5 * count_bits(word | next) <= 3 * (count_bits(word) + count_bits(next))) {
            sum_pair(sums, apart, values, l->held, word | next, l->chunk, vectors, keep, gain);
            return 2;
        }
    }
    sum_unit(sums, apart, values, l->held, word, l->chunk, vectors, keep, gain);
    return 1;
}

/* What a product takes without the zeros of its units, of which so many numbers are left: measured, in steps of a
 * vector of sums. */
static double cost_without_zeros(int64_t units, int64_t lanes, int64_t depth, double left) {
    const int64_t vectors = vectors_in(lanes), spans = chunks_in(lanes, SPAN);
    const int64_t entry = (vectors > WAIT * spans ? vectors : WAIT * spans) + 2 * spans;
    const double listing = (double)units * (depth + 10 * spans), packing = (units / GROUP + 1) * 5.0 * depth * vectors;
    return left * (double)entry + listing + packing;
}

/* -- of a tile's rows ---------------------------------------------------------------------------------------------- */

/* Lists the rows k = first, first + step, ... < end of a tile s that are not zero in all lanes: how many they are, they,
 * and then those that are. Gives back how many. */
static int64_t list_chain(int64_t *restrict list, const real *restrict s, ptrdiff_t lanes, int64_t first, int64_t end,
                          int64_t step) {
    int64_t length = (end - first + step - 1) / step, count = 0;
    for (int64_t j = 0; j < length; j++) {
        unsigned nonzero = 0;
        for (ptrdiff_t b = 0; b < lanes; b += LANES)
            nonzero |= v_nonzero(v_load(s + (first + j * step) * lanes + b));
        list[1 + count] = list[length - j + count] = first + j * step; /* the one that is wrong is written over */
        count += nonzero != 0;
    }
    list[0] = count;
    return count;
}

/* The rows that are not zero, of each chain of a forward product, one after the other. */
static int64_t list_chains(int64_t *restrict list, const real *restrict s, ptrdiff_t lanes, int64_t depth) {
    int64_t blocks = chain_blocks(depth), count = 0;
    for (int64_t index = 0; index < blocks; index++) {
        int64_t begin = chain_block(depth, index, blocks), end = chain_block(depth, index + 1, blocks);
        for (int64_t first = begin; first < end && first < begin + CHAINS; first++) {
            int64_t listed = list_chain(list, s, lanes, first, end, CHAINS);
            list += 1 + listed;
            count += listed;
        }
    }
    return count;
}
