/* The verbs of convolution, Phi(pre, post) = <post, P(K * pre)>, a sample at a time.
 *
 * `work` is verb_room() numbers (shape.h): packed weights, what pools (`pooling_room`), winners, and one state.
 */

typedef struct {
    real *packed, *map, *winners, *state;
} conv_room;

static conv_room conv_room_in(const shape *g, real *work) {
    conv_room room = {work, work + g->post_channels * kernel_size(g), 0, 0};
    room.winners = room.map + pooling_room(g, 1);
    room.state = room.winners + post_size(g);
    return room;
}

/* The winners of one sample, in the type of the states; places that are not in the window win nothing. */
INLINE void read_winners(const shape *g, real *out, const int32_t *winners, int64_t b) {
    if (g->pool == EQK_MAX_POOL)
        for (int64_t i = 0; i < post_size(g); i++)
            out[i] = (real)winners[b * post_size(g) + i];
}

static void add_bias(const shape *g, real *out, const real *bias, ptrdiff_t lanes) {
    for (int64_t pixel = 0; pixel < g->post_height * g->post_width; pixel++, out += g->post_channels * lanes)
        if (lanes == 1)
            combine(out, out, 1, bias, g->post_channels);
        else
            for (int64_t i = 0; i < g->post_channels * lanes; i += LANES)
                v_store(out + i, v_add(v_load(out + i), v_set(bias[i / lanes])));
}

/* out (post) = P(K * source) (+ bias) in a tile. With max pooling the `winners` there win, chosen anew if asked; `map` is
 * room for the map before pooling. */
static void up_through(const shape *g, real *out, const real *source, const real *bias, const real *packed, real *winners,
                       real *map, int choosing, ptrdiff_t lanes) {
    int64_t channels = g->post_channels, width = channels * lanes;
    if (g->pool == EQK_NO_POOL) {
        correlate_up(g, out, source, bias, packed, channels, lanes);
        return;
    }
    correlate_up(g, map, source, 0, packed, channels, lanes);
    if (choosing)
        choose_winners(g, winners, out, map, width);
    else
        pool(g, out, map, winners, width);
    if (bias)
        add_bias(g, out, bias, lanes);
}

/* out (pre) = the adjoint of P(K * .) on source (post) in a tile. */
static void down_through(const shape *g, real *out, const real *source, const real *packed, const real *winners,
                         real *map, ptrdiff_t lanes) {
    if (g->pool == EQK_MAX_POOL) {
        scatter_through(g, out, source, packed, winners, map, lanes);
        return;
    }
    correlate_down(g, out, source, packed, lanes);
}

static void conv_drive_post(real *restrict drive, const real *pre, const real *weight, const int32_t *winners,
                            const eqk_conv *conv, int64_t batch, real *work) {
    shape g = shape_of(conv);
    conv_room room = conv_room_in(&g, work);
    pack_up(&g, room.packed, kernels_of(&g, room.map, weight), g.post_channels);
    for (int64_t b = 0; b < batch; b++) {
        read_winners(&g, room.winners, winners, b);
        up_through(&g, room.state, pre + b * pre_size(&g), 0, room.packed, room.winners, room.map, 0, 1);
        combine(drive + b * post_size(&g), drive + b * post_size(&g), 1, room.state, post_size(&g));
    }
}

static void conv_drive_pre(real *restrict drive, const real *post, const real *weight, const int32_t *winners,
                           const eqk_conv *conv, int64_t batch, real *work) {
    shape g = shape_of(conv);
    conv_room room = conv_room_in(&g, work);
    pack_down(&g, room.packed, kernels_of(&g, room.map, weight), 1);
    for (int64_t b = 0; b < batch; b++) {
        read_winners(&g, room.winners, winners, b);
        down_through(&g, room.state, post + b * post_size(&g), room.packed, room.winners, room.map, 1);
        combine(drive + b * pre_size(&g), drive + b * pre_size(&g), 1, room.state, pre_size(&g));
    }
}

/* energy[b] -= <post[b], P(K * pre[b])>. */
static void conv_energy(real *restrict energy, const real *pre, const real *post, const real *weight,
                        const int32_t *winners, const eqk_conv *conv, int64_t batch, real *work) {
    shape g = shape_of(conv);
    conv_room room = conv_room_in(&g, work);
    pack_up(&g, room.packed, kernels_of(&g, room.map, weight), g.post_channels);
    for (int64_t b = 0; b < batch; b++) {
        real total = 0;
        read_winners(&g, room.winners, winners, b);
        up_through(&g, room.state, pre + b * pre_size(&g), 0, room.packed, room.winners, room.map, 0, 1);
        for (int64_t i = 0; i < post_size(&g); i++)
            total += post[b * post_size(&g) + i] * room.state[i];
        energy[b] -= total;
    }
}

static void conv_hebbian(real *restrict trace, const real *pre, const real *post, double scale, const int32_t *winners,
                         const eqk_conv *conv, int64_t batch, real *work) {
    shape g = shape_of(conv);
    tracer t = tracer_in(&g, work, 0, g.post_channels);
    for (int64_t b = 0; b < batch; b++) {
        read_winners(&g, t.winners, winners, b);
        sum_sample(&t, pre + b * pre_size(&g), post + b * post_size(&g));
    }
    end_trace(&t, trace, (real)scale);
}

/* winners = the place in each window where K * pre is largest, the first of equals. */
static void conv_choose(int32_t *restrict winners, const real *pre, const real *weight, const eqk_conv *conv,
                        int64_t batch, real *work) {
    shape g = shape_of(conv);
    conv_room room = conv_room_in(&g, work);
    pack_up(&g, room.packed, kernels_of(&g, room.map, weight), g.post_channels);
    for (int64_t b = 0; b < batch; b++) {
        up_through(&g, room.state, pre + b * pre_size(&g), 0, room.packed, room.winners, room.map, 1, 1);
        for (int64_t i = 0; i < post_size(&g); i++)
            winners[b * post_size(&g) + i] = (int32_t)room.winners[i];
    }
}
