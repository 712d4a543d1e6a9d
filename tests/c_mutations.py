"""Planted bugs of the C library: small changes of its sources, each with the check of the real tests that must fail.

A bug is compiled into one object alone, that of one variant and one type, and the check runs that variant and that
type: so every variant's kernels must be tested. What is changed is compiled without optimisation, which is quick and
gives the same bits. Another kernel plants its own by lines in MUTATIONS, and by a check of its tests in c_checks.py.
"""

from __future__ import annotations

from typing import NamedTuple


class Mutation(NamedTuple):
    """`old`, which the sources hold once, becomes `new` in the object of src/`unit`.c: `check` must fail."""

    bug: str
    old: str
    new: str
    check: str
    unit: str = "scalar_f64"

    @property
    def variant(self) -> str:
        """The variant of the kernels that the check runs."""
        return variant_of(self.unit) if variant_of(self.unit) in MARKS else "auto"

    @property
    def dtype(self) -> str:
        """The type that the check computes in."""
        return "float32" if self.unit.endswith("f32") else "float64"


# fmt: off
MUTATIONS = [Mutation(*row) for row in (
    # verbs
    ("sign of the energy", "energy[b] -= (real)scale * total", "energy[b] += (real)scale * total", "verbs"),
    ("scale of the energy lost", "energy[b] -= (real)scale * total", "energy[b] -= total", "verbs", "avx512_f32"),
    ("trace transposed", "backward(trace, n_pre, post, 1, n_post, pre, n_pre,",
     "backward(trace, n_pre, post, n_post, 1, pre, n_pre,", "verbs"),
    ("missing half in the lateral trace", "post, 0.5 * scale, batch, n, n)", "post, scale, batch, n, n)", "verbs",
     "abi_f32"),
    ("drive overwritten, not added to", "(real)scale, 1);\n}\n\nstatic void dense_hebbian",
     "(real)scale, 0);\n}\n\nstatic void dense_hebbian", "verbs"),
    ("last block of a sum forgotten", "index == blocks ? depth : depth", "depth", "verbs", "avx2_f32"),
    # vectors, each variant's own
    ("one lane too few is stored", "OP(maskstore)(p, v_first(n), a)", "OP(maskstore)(p, v_first(n - 1), a)", "verbs",
     "avx2_f64"),
    ("one lane too few is loaded", "OP(maskz_loadu)((mask)((1u << n) - 1), p)",
     "OP(maskz_loadu)((mask)((1u << (n - 1)) - 1), p)", "verbs", "avx512_f64"),
    ("parts of a transposition swapped", "r[2 * PART + c] = SHUFFLE(even, even2, 0xdd)",
     "r[2 * PART + c] = SHUFFLE(even, even2, 0x88)", "verbs", "avx512_f32"),
    ("sign kept in absolute values", "OP(andnot)(v_set((real)-0.0), a)", "a", "neurons", "avx2_f32"),
    ("spare lanes count in the residual", "OP(maskz_mov)((mask)((1u << n) - 1), a)", "a", "residuals", "avx512_f64"),
    ("sum rounded twice", "MATH(fma)(a, b, c)", "a * b + c", "same_bits", "scalar_f32"),
    # neurons
    ("clip to [-1, 1]", "return clip(d, 0, 1)", "return clip(d, -1, 1)", "neurons"),
    ("wrong clip in the difference", "v_max(least, v_sub(v_set(1), m))", "v_max(least, m)", "neurons", "avx512_f32"),
    ("a Halley step too few", "REAL_BITS == 32 ? 2 : 3", "REAL_BITS == 32 ? 2 : 1", "neurons"),
    ("relaxation step ignored", "v_mul(v_set((real)step), v_sub(goal, old))", "v_sub(goal, old)", "neurons"),
    ("entropy of one half", "times_log(s, s) + times_log(1 - s, 1 - s)", "times_log(s, s)", "neurons", "abi_f64"),
    # settling
    ("feedback without gamma", "state_of(t, channel, layer + 1), gamma)", "state_of(t, channel, layer + 1), 1)",
     "phases"),
    ("layers that move taken for resting", "moved |= state[k] != 0;", "moved |= state[k] > 1;", "phases"),
    ("drive of the layer itself dropped", "if (lateral)\n", "if (0)\n", "phases", "avx512_f64"),
    ("layers of one parity never relax", "3 - first + 2 * (i - 1 - count)", "first + 2 * (i - 1 - count)", "phases"),
    ("nudged phase begins at the wrong parity", "form == RUN_FREE || top % 2 == 1 ? 1 : 2", "1", "phases"),
    ("sweeps begin the wrong way", "(taken % 2 == 0) == (form == RUN_FREE)", "taken % 2 == 0", "phases"),
    ("synchronous layers one by one", "half < (plan->order == EQK_SYNCHRONOUS ? 2 : 1)", "half < 1", "phases"),
    ("nudge of the wrong sign", "combine(error, target_of(t), -1, state_of", "combine(error, target_of(t), 1, state_of",
     "gradient"),
    ("live nudge left frozen", "form != RUN_FREE && plan->nudge == EQK_LIVE", "0", "phases"),
    ("half the difference", "d = v_mul(d, v_set(half / beta))", "d = v_mul(d, v_set(half * half / beta))", "phases",
     "avx2_f64"),
    ("both states nudged one way", "channel == MINUS ? -beta : beta", "beta", "phases"),
    ("the - state taken for the +", " || memcmp(state_of(t, PLUS, from), state_of(t, MINUS, from), bytes))", ")",
     "phases"),
    ("free state not restarted", "    clear(&t, FREE, job->schedule.order);\n", "", "phases"),
    ("half-sweeps find no drives", "channel == FREE ? up : down;", "up || down;", "phases"),
    ("the top finds another's drive", "section == DOWN && layer < t->top;", "section == DOWN;", "workspaces"),
    ("the step of a move counted twice", "return step * v_largest", "return step * step * v_largest", "phases"),
    ("tolerance taken for met", "if (residual < tolerance)", "if (1)", "phases"),
    # tiles and shares
    ("every tile is the first", "place * tile_size", "0 * tile_size", "shares"),
    ("tiles of maps counted as others", "has_convs(layers, count) ? chains : 2 * chains", "2 * chains", "conv_phases",
     "abi_f64"),
    ("spare lanes are rest", "out[i * lanes + count - 1];", "0;", "residuals"),
    ("a share begins too early", "begin = n * part / parts", "begin = part / parts", "shares"),
    # adaptation
    ("tired neurons fire more", "-(real)t->layers[layer].adaptation", "(real)t->layers[layer].adaptation",
     "adaptation"),
    ("every channel tires as the free one", "current_of(t, channel, layer), n);", "current_of(t, FREE, layer), n);",
     "adaptation", "avx512_f64"),
    ("tau forgotten", "step * (real)(1 / l->tau)", "step", "adaptation", "avx2_f64"),
    ("the difference does not tire", "return larger(adapt(t, DIFFERENCE, layer, step), largest);", "return largest;",
     "adaptation"),
    ("the mean does not tire", "largest = larger(adapt(t, MEAN, layer, step), largest);\n", "", "adaptation"),
    ("a phase begins tired", "memset(current_of(t, channel, 1), 0, currents);", ";", "adaptation"),
    ("the nudge finds neurons rested", "memcpy(current_of(t, channel, 1), current_of(t, FREE, 1), currents);", ";",
     "adaptation"),
    ("currents of all layers in one place", "t->last + 1) + current_rows(t->layers, layer);", "t->last + 1);",
     "adaptation"),
    ("a layer that tires left out of half-sweeps", "lateral < 0 && !adapts(t, layer))", "lateral < 0)", "adaptation",
     "avx512_f32"),
    ("samples of other tiles looked at", "begin = first * width, end", "begin = 0, end", "samples", "abi_f64"),
    ("infinity let through", "other |= x[i] - x[i] != 0;", "other |= x[i] != x[i];", "samples", "abi_f32"),
    ("no room for currents", "(job->layers[l].adaptation != 0 ? 15 : 12)", "12", "workspaces", "abi_f32"),
    ("currents beyond the type let through", "isfinite((EQK_REAL)layer->adaptation)", "1", "refusals", "abi_f32"),
    # convolution
    ("taps in columns not turned round", "phase_x + x * stride;",
     "phase_x + (taps_of(k, stride, phase_x) - 1 - x) * stride;", "conv_verbs"),
    ("a tap beyond the border", "int64_t end = size - at < taps ? size - at : taps;",
     "int64_t end = size - 1 - at < taps ? size - 1 - at : taps;", "conv_verbs", "avx512_f32"),
    ("the last of equals wins", "v_if_larger(value, highest, v_set((real)place), winner)",
     "v_if_larger(highest, value, winner, v_set((real)place))", "conv_verbs"),
    ("frame off by a row", "t->frame + (y + g->padding) * wide", "t->frame + y * wide", "conv_verbs", "avx2_f64"),
    ("a difference keeps its own winners", "real *winners = c.winners + (biased ? channel : MEAN) * c.section;",
     "real *winners = c.winners + channel * c.section;", "conv_phases"),
    ("a difference keeps its own winners downwards",
     "c.winners + (biased ? channel : MEAN) * c.section, c.map, t->lanes)",
     "c.winners + channel * c.section, c.map, t->lanes)", "conv_phases"),
    ("winners of the start", "c.up, winners, c.map, biased, lanes)", "c.up, winners, c.map, 0, lanes)", "conv_phases"),
    ("winners of the - state left behind", "post->pool == EQK_MAX_POOL || ", "", "conv_phases"),
    ("rate nudged twice", "push(t, channel, layer, -nudge);", "", "conv_phases", "avx512_f64"),
    ("biases of a map's first place", "difference, batch * (n / biases), biases,", "difference, batch, biases,",
     "conv_updates"),
    ("gradient of one side", "if (s->d_pre)\n            sum_sample(", "if (0)\n            sum_sample(",
     "conv_updates"),
    # learning
    ("gamma to a wrong power", "for (int64_t i = l; i < top; i++)", "for (int64_t i = l; i <= top; i++)", "updates"),
    ("batch sum for batch mean", "-1 / power / (double)batch", "-1 / power", "updates"),
    ("half of the contrast dropped", "int inner = l > 1 && l <= top;", "int inner = 0;", "updates", "avx512_f64"),
    ("readout learns like a hidden layer", "int inner = l > 1 && l <= top;", "int inner = l > 1;", "updates"),
    ("size of the gradient for its square", "v_mul(v_mul(c[3], g), g)", "v_mul(c[3], v_abs(g))", "updates"),
    ("velocity does not decay", "g = v_fma(c[0], v_load_some(m + at, some), g)",
     "g = v_add(v_load_some(m + at, some), g)", "updates"),
    ("weight decay forgotten", "v_mul(keep, v_load_some(w + at, some))", "v_load_some(w + at, some)", "updates"),
    # chunks of a tile's products
    ("rows of a chain out of order", "first + j * CHAINS) * lanes", "begin + j * CHAINS) * lanes", "verbs",
     "avx2_f32"),
    ("a later chunk forgets the sums", "sum[i][v] = fresh ? v_set(0)", "sum[i][v] = 1 ? v_set(0)", "drives",
     "avx2_f64"),
    ("every chunk the first of the list", "some, list + 1 + k,", "some, list + 1,", "drives", "avx2_f32"),
    ("weights left out untested", "poison[v] = v_add(v_sub(weight, weight), poison[v]);", ";", "drives", "avx2_f64"),
    ("sums of a lateral drive in its place", "real *sums = keep ? room : out;", "real *sums = out;", "phases",
     "avx2_f32"),
    ("a long chunk met twice", "some, list + 1 + k,", "some, list + 1,", "drives", "avx512_intel_f32"),
    ("the sums of a long chunk forgotten", "sum[i][v] = fresh ? v_set(0)", "sum[i][v] = 1 ? v_set(0)", "drives",
     "avx512_intel_f64"),
    ("a wide span left out", "chunk += span * LANES, vectors -= span;", "chunk += LANES, vectors -= span;", "zeros",
     "avx512_intel_f32"),
    ("a free state sought elsewhere", "phase.nudged_phase(job, tile, 0);", "phase.nudged_phase(job, tile, tile);",
     "steps", "abi_f32"),
    # factors split in two
    ("low times high dropped", "add_pairs(sum[i][v], w_low, s_high[v])", "sum[i][v]", "bf16x3_products", "bf16_f32"),
    ("high times low dropped", "add_pairs(sum[i][v], w_high, s_low[v])", "sum[i][v]", "bf16x3_products", "bf16_f32"),
    ("high and low of weights swapped", "__m512i w_high = _mm512_set1_epi32((int)a[i",
     "__m512i w_high = _mm512_set1_epi32((int)a[BLOCK + i", "bf16x3_products", "bf16_f32"),
    ("high and low of states swapped", "_mm512_loadu_si512(low + v * LANES)", "_mm512_loadu_si512(high + v * LANES)",
     "bf16x3_products", "bf16_f32"),
    ("k of a pair swapped", "{0, 16, 1, 17, 2,", "{16, 0, 1, 17, 2,", "bf16x3_products", "bf16_f32"),
    ("low part of another number", "b = v_sub(b, widened(_mm512_extracti64x4_epi64(*high, 1)));",
     "b = v_sub(b, widened(_mm512_castsi512_si256(*high)));", "bf16x3_products", "amx_f32"),
    ("low parts of columns not transposed", "v_transpose(lows);", "", "bf16x3_products", "bf16_f32"),
    ("second half of a row forgotten", "first_of(row + LANES, some - LANES)", "v_set(0)", "bf16x3_products", "amx_f32"),
    ("feedback of split factors without gamma", "DOWNWARD, s, size_of(t, layer - 1), size_of(t, layer), alpha, 0)",
     "DOWNWARD, s, size_of(t, layer - 1), size_of(t, layer), 1, 0)", "bf16x3_products", "bf16_f32"),
    ("a matrix in the place of another", "!layer->kernel && index > 1)", "!layer->kernel && index > 2)",
     "bf16x3_phases", "bf16_f32"),
    ("padding of states not cleared", "for (int64_t p = 0; p < pairs; p++)\n        for (int64_t b",
     "for (int64_t p = 0; 2 * p < depth; p++)\n        for (int64_t b", "bf16x3_memory", "amx_f32"),
    ("a share of the packing too small", "i = blocks * part / parts;", "i = blocks * part / parts + 1;",
     "bf16x3_memory", "bf16_f32"),
    ("a tile's second rows are its first", "_tile_loadd(5, (from) + length, width)", "_tile_loadd(5, from, width)",
     "bf16x3_products", "amx_f32"),
    ("a tile's second samples are its first", "_tile_loadd(7, (from) + LANES, row)", "_tile_loadd(7, from, row)",
     "bf16x3_products", "amx_f32"),
    ("a tile adds to the last block's sums", "    _tile_zero(0);\n", "", "bf16x3_products", "amx_f32"),
    ("a tile's low states not loaded", "LOAD_STATES(low);", "", "bf16x3_products", "amx_f32"),
    ("a tile's high weights not loaded", "LOAD_WEIGHTS(a);", "", "bf16x3_products", "amx_f32"),
    ("a tile of 15 rows", "{16, 16, 16, 16, 16, 16, 16, 16}", "{16, 16, 16, 16, 15, 16, 16, 16}", "bf16x3_products",
     "amx_f32"),
    ("tiles not configured", "_tile_loadconfig(&shapes);", "(void)shapes;", "bf16x3_products", "amx_f32"),
    ("the system not asked for tiles", "syscall(SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0", "1",
     "bf16x3_bits", "precision"),
    ("another feature asked for", "XFEATURE_XTILEDATA = 18", "XFEATURE_XTILEDATA = 17", "bf16x3_bits", "precision"),
    ("stale weights", "phase.pack(job, 0, 1);", "(void)job;", "bf16x3_steps", "abi_f32"),
    ("workspace without the weights", "tile * tiles + packed) * sizeof", "tile * tiles) * sizeof", "bf16x3_memory",
     "abi_f32"),
    ("workspace without the split states", "tile += split ? ", "tile += 0 ? ", "bf16x3_memory", "abi_f32"),
    ("one kind for the other", "precision == EQK_BF16X3_AMX ? ", "precision == EQK_BF16X3_AMX + 1 ? ", "bf16x3_bits",
     "abi_f32"),
    ("precision of a double", "REQUIRE(HAS_BF16X3 && ", "REQUIRE(", "bf16x3_refusals", "abi_f64"),
    # zeros left out
    ("the first sample left out", "for (; word; word &= word - 1) {",
     "for (word &= word - 1; word; word &= word - 1) {", "zeros", "avx512_f32"),
    ("samples from the last", "for (; word; word &= word - 1) {\n        int64_t k = lowest_bit(word);",
     "for (int64_t k = 63; k >= 0; k--) {\n        if (!(word >> k & 1)) continue;", "zeros", "avx2_f64"),
    ("a list one too short", "WORD ? depth - block * WORD : WORD;", "WORD ? depth - block * WORD : WORD - 1;", "zeros"),
    ("what is negative taken for zero", "CMP(a, v_set(0), _CMP_NEQ_UQ)", "CMP(a, v_set(0), _CMP_GT_OQ)", "zeros",
     "avx512_f64"),
    ("what is negative taken for zero by AVX2", "OP(cmp)(a, v_set(0), _CMP_NEQ_UQ)", "OP(cmp)(a, v_set(0), _CMP_GT_OQ)",
     "zeros", "avx2_f32"),
    ("an infinity does not meet its zeros", "v_poison(poison) != 0 ? -1 :", "0 ? -1 :", "zeros"),
    ("a chunk judged by its last vector", "nonzero |= v_nonzero(value)", "nonzero = v_nonzero(value)", "zeros",
     "scalar_f32"),
    ("sums begun anew in every block", "keep = block > 0", "keep = 0", "zeros", "avx512_f64"),
    ("what a unit alone is not zero in is lost to its pair", "values, l->held, word | next, l->chunk",
     "values, l->held, word, l->chunk", "zeros", "avx512_f32"),
    ("a pair of one unit", "v_set(values[i * held + k])", "v_set(values[k])", "zeros", "scalar_f64"),
    ("both products of one", ": s->second + (k - s->batch) * s->n", ": s->first + (k - s->batch) * s->n", "zeros"),
    ("units learn as others", "s->at + lane * s->n_pre + unit + i,", "s->at + lane * s->n_pre + unit,", "zeros",
     "avx512_f32"),
    ("lanes of the first share", "lane = l->lanes.begin + c.at,", "lane = c.at,", "zeros", "avx512_f64"),
    ("decay forgotten where nothing changes", "(real)o->rate * (real)o->decay == 0", "1", "zeros"),
    ("scratch short of a block", "numbers + (blocks + 1) * group", "numbers + (blocks - 1) * group", "zeros",
     "abi_f32"),
    ("more sums at once than there is room for", "(still ? 4 : 32) * SPAN", "(still ? 4 : 2 * WORD) * SPAN", "zeros",
     "avx512_f32"),
    ("a row with one live lane left out", "nonzero |= v_nonzero(v_load(s", "nonzero = v_nonzero(v_load(s", "drives",
     "avx512_f32"),
    ("a row that begins with a zero left out", "count += nonzero != 0;",
     "count += nonzero != 0 && s[(first + j * step) * lanes] != 0;", "drives", "avx512_f64"),
    ("chains in the wrong order", "first = begin; first < end && first < begin + CHAINS; first++",
     "first = (end < begin + CHAINS ? end : begin + CHAINS) - 1; first >= begin; first--", "drives", "avx2_f32"),
    ("a drive from above in the wrong order", "int64_t k = list ? list[j] : j;",
     "int64_t k = list ? list[depth - 1 - j] : j;", "drives", "avx512_f32"),
    ("a chain reads another's list", "list += 1 + listed;", "list += listed;", "drives", "avx2_f64"),
    ("a bad weight hides from below", "if (v_poison(v_add(poison[0], poison[1])) != 0)", "if (0)", "drives"),
    ("a bad weight hides from above", "if (v_poison(poison) != 0)", "if (0)", "drives", "scalar_f32"),
    ("some weights are not tested", "tested < depth; tested += LANES", "tested < depth; tested += 2 * LANES", "drives",
     "avx512_f64"),
    ("a weight above is not tested", "for (int64_t j = list[0]; j < depth; j++) /*",
     "for (int64_t j = list[0] + 1; j < depth; j++) /*", "drives", "avx512_f64"),
    ("no room for the list", ": product_room(job->layers, count, lanes, CHAINS)", ": 0", "drives", "abi_f32"),
    ("room for the numbers of a list alone", "(rows + rows / 32 + chains) * chains", "rows * chains", "drives",
     "abi_f64"),
    # a drive sample by sample
    ("every block of a sample meets the first weights", "pack_chunk(&l, 0, c, block,", "pack_chunk(&l, 0, c, 0,",
     "drives", "avx2_f32"),
    ("weights of a chunk untested", "sum = v_add(v_sub(value, value), sum);", "", "drives", "avx2_f64"),
    ("samples overwrite a lateral drive's sum", "real *place = keep ? room : out;", "real *place = out;", "drives",
     "avx2_f64"),
    ("samples in each other's sums", "l.sums + j * pitch, pitch, 1);", "l.sums + j / 2 * pitch, pitch, 1);",
     "drives", "avx2_f32"),
    ("a chunk's columns in another's place", "transpose(place + c.at * lanes,", "transpose(place,", "drives",
     "avx2_f32"),
    ("no room for the samples", ": listing_room(lanes, GROUP, most, chains);", ": 0;", "drives", "abi_f32"),
    # rows that learn in bands
    ("every run learns as the first", "s->at + row * s->n_pre + column, s->n_pre, band,",
     "s->at + row * s->n_pre, s->n_pre, band,", "bands", "avx2_f32"),
    ("a chunk of a band in another's place", "band + j * pitch + c.at, pitch, gain);",
     "band + j * pitch, pitch, gain);", "bands", "avx2_f64"),
    ("every block of a band meets the first samples", "pack_chunk(l, column, c, block,", "pack_chunk(l, column, c, 0,",
     "bands", "avx2_f32"),
    ("every run meets the first units", "pack_chunk(l, column, c,", "pack_chunk(l, 0, c,", "bands", "avx2_f32"),
    ("sums of a band in each other's place", "transpose(band + i, pitch,", "transpose(band, pitch,", "bands",
     "avx2_f64"),
    ("every run lists the first units", "list_units(l, column, run);", "list_units(l, 0, run);", "bands", "avx2_f32"),
    ("rows of the first share", "learn_band(job, s, l->lanes.begin + c.at,", "learn_band(job, s, c.at,", "bands",
     "avx2_f32"),
    ("blocks that a band does not wait for", "in_bands(job, s) && !(across && split)", "in_bands(job, s)",
     "bands", "avx2_f64"),
    ("a band of whole rows learns as the first", "learn_band(job, s, row, 0, band,", "learn_band(job, s, 0, 0, band,",
     "bands", "avx2_f32"),
    ("a row too few has room in a band", "? round_up(n_post, chains) * run :",
     "? (round_up(n_post, chains) - 1) * run :", "zeros", "abi_f32"),
    # diffusion and the field
    ("five neighbours", "v_fnma(v_set(4), v_load_some(row + j, some)", "v_fnma(v_set(5), v_load_some(row + j, some)",
     "diffusion"),
    ("mirror off by one", "2 * n - 1 - i", "2 * n - 2 - i", "diffusion", "avx512_f64"),
    ("u cubed without its sign", "v_fnma(v_mul(u, u), u, u)", "v_fma(v_mul(u, u), u, u)", "field", "avx2_f64"),
    ("west from two cells away", "v_load(ahead - 1)", "v_load(ahead - 2)", "field", "avx512_f64"),
    ("a level leaves out what it needs", "/ LANES * LANES, columns", "/ LANES * LANES + LANES, columns", "field"),
    ("east is the cell itself", "ALIGN(v_halves(a, b), a, REAL_BITS / 8)", "ALIGN(v_halves(a, b), a, 0)", "field",
     "avx2_f64"),
    ("a slot too few", "(turn + steps + 1 - (level)) % (steps + 1)", "(turn + steps - (level)) % steps", "field"),
    ("margin of a tile too narrow", "count + 2 * steps,", "count + steps,", "field"),
    ("a NaN hides", "v_largest(largest) + v_poison(poison);", "v_largest(largest);", "divergence"),
    # what is checked before
    ("NULL let through", "if (!(p)) \\", "if (0) \\", "refusals", "abi_f32"),
    ("misalignment let through", "REQUIRE((uintptr_t)(p) % ALIGNMENT(type) == 0,", "REQUIRE(1,", "refusals", "abi_f32"),
    ("label let through", "job->labels[b] >= 0 && job->labels[b] < classes", "job->labels[b] <= classes", "refusals",
     "abi_f32"),
    ("overflow of sizes", "b <= MOST / a", "a * b <= MOST", "refusals", "abi_f32"),
    ("workspace short of a tile", "lanes = job->batch > CHAINS ? width : few;",
     "lanes = few;", "workspaces", "abi_f64"),
    ("divergence learnt from", "REQUIRE(isfinite(total) && ", "REQUIRE(1 || ", "divergence", "abi_f64"),
    # which code runs
    ("one variant for another", "        return &AVX2;", "        return &SCALAR;", "dispatch", "abi_f64"),
    ("the named variant ignored", "variant = variant == EQK_AUTO ? eqk_best_variant() : variant;",
     "variant = eqk_best_variant();", "dispatch", "abi_f32"),
    ("the best goes unseen", "int eqk_best_variant(void) {\n#if EQK_HAS_X86", "int eqk_best_variant(void) {\n#if 0",
     "dispatch", "eqkernel"),
)]
# fmt: on

# For the check "dispatch": a relaxation that tells which variant ran.
MARK = "v_mul(v_set((real)step), v_sub(goal, old))"
MARKS = {"scalar": "v_set(1)", "avx2": "v_set(2)", "avx512": "v_set(3)", "avx512-intel": "v_set(4)"}


def variant_of(unit: str) -> str:
    """The variant whose kernels a source is, if it is one's."""
    return unit.rpartition("_")[0].replace("_", "-")
