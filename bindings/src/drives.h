/* The drives of a layer in a tile: what the layers below, above and beside it do to it, whatever connects them. */

/* Whether a layer's state is zero, as all are where a phase begins; looks no further than the first block that is not.
 * What a layer at rest does to others is zero and need not be computed. */
static int at_rest(const tile *t, int64_t channel, int64_t layer) {
    const real *state = state_of(t, channel, layer);
    int64_t n = elements(t, layer), block = 64;
    for (int64_t i = 0; i < n; i += block) {
        int moved = 0;
        for (int64_t k = i; k < n && k < i + block; k++)
            moved |= state[k] != 0; /* NaN has moved */
        if (moved)
            return 0;
    }
    return 1;
}

/* Brings the weights of convolutions into the order of their kernels. */
static void pack(const tile *t, real gamma) {
    for (int64_t layer = 1; layer <= t->last; layer++)
        if (is_conv(t, layer)) {
            conv_place c = conv_at(t, layer);
            const real *kernels = kernels_of(&c.g, c.map, t->theta + t->layers[layer].weight);
            pack_up(&c.g, c.up, kernels, c.g.post_channels);
            if (layer > 1)
                pack_down(&c.g, c.down, kernels, gamma);
        }
}

/* up = W s_below + b, without b for a difference, whose max pooling has the winners of its mean. */
static void refresh_up(const tile *t, int64_t channel, int64_t layer, int biased) {
    int64_t n = size_of(t, layer), lanes = t->lanes, biases = biases_of(t->layers + layer);
    real *up = piece(t, 3 * channel + UP, layer);
    const real *bias = t->theta + t->layers[layer].bias;
    if (!biased && at_rest(t, channel, layer - 1)) {
        memset(up, 0, (size_t)(n * lanes) * sizeof *up);
        return;
    }
    if (is_conv(t, layer)) {
        conv_place c = conv_at(t, layer);
        real *winners = c.winners + (biased ? channel : MEAN) * c.section;
        up_through(&c.g, up, state_of(t, channel, layer - 1), biased ? bias : 0, c.up, winners, c.map, biased, lanes);
        return;
    }
    if (!biased)
        memset(up, 0, (size_t)(n * lanes) * sizeof *up);
    else
        for (int64_t first = 0; first < n; first += biases) /* a map's take turns */
            if (lanes == 1)
                copy(up + first, bias, biases);
            else
                for (int64_t i = 0; i < biases; i++)
                    for (int64_t b = 0; b < lanes; b += LANES)
                        v_store(up + (first + i) * lanes + b, v_set(bias[i]));
    weigh(t, up, layer, state_of(t, channel, layer - 1));
}

/* down = gamma W^T s_above; packed weights hold gamma already. */
static void refresh_down(const tile *t, int64_t channel, int64_t layer, real gamma, int biased) {
    real *down = piece(t, 3 * channel + DOWN, layer);
    if (at_rest(t, channel, layer + 1)) {
        memset(down, 0, (size_t)elements(t, layer) * sizeof *down);
        return;
    }
    if (is_conv(t, layer + 1)) {
        conv_place c = conv_at(t, layer + 1);
        down_through(&c.g, down, state_of(t, channel, layer + 1), c.down,
                     c.winners + (biased ? channel : MEAN) * c.section, c.map, t->lanes);
        return;
    }
    weigh_back(t, down, layer + 1, state_of(t, channel, layer + 1), gamma);
}

/* What is added to `up`: `down` itself, or section `out` = down - adaptation + lateral + nudge * nudge section. */
static const real *complete_drive(const tile *t, int64_t channel, int64_t layer, real nudge, int64_t out) {
    const real *down = piece(t, 3 * channel + DOWN, layer);
    int lateral = t->layers[layer].lateral >= 0, nudged = nudge != 0 && layer == t->top && !t->layers[layer].on_rate;
    int64_t n = elements(t, layer);
    real *total = piece(t, out, layer);
    if (!lateral && !nudged && !adapts(t, layer))
        return down;
    if (adapts(t, layer)) {
        combine(total, down, -(real)t->layers[layer].adaptation, current_of(t, channel, layer), n);
        down = total;
    }
    if (nudged)
        combine(total, down, nudge, piece(t, NUDGE, layer), n);
    else if (down != total)
        copy(total, down, n);
    if (lateral)
        weigh_lateral(t, total, layer, state_of(t, channel, layer));
    return total;
}
