/* The shape of a convolution: which neurons of two maps its synapses join, and what the ABI checks of it. */
#ifndef SHAPE_H
#define SHAPE_H
#include "check.h"

/* The kernel runs over the map of pre and gives a map of its own, whose windows are pooled into the map of post. A rim
 * narrower than a window belongs to none.
 *
 * An average of windows is a convolution too, by the average of `spread` x `spread` kernels that lie `step` apart: wider by
 * (spread - 1) step, but for one pixel in place of a window. So there is no pooling where a window is averaged, and `kernel`
 * and `stride` are those of the wider kernel; `taps` is the side of what learns.
 */
typedef struct {
    int64_t pre_height, pre_width, pre_channels, map_height, map_width, post_height, post_width, post_channels;
    int64_t kernel, stride, padding, pool, window, taps, spread, step;
} shape;

static inline shape shape_of(const eqk_conv *c) {
    int64_t height = (c->pre_height + 2 * c->padding - c->kernel) / c->stride + 1;
    int64_t width = (c->pre_width + 2 * c->padding - c->kernel) / c->stride + 1;
    int64_t side = (c->pre_height > c->pre_width ? c->pre_height : c->pre_width) + 2 * c->padding;
    int64_t stride = c->stride < side ? c->stride : side; /* a longer one leaps out of the map as this does */
    shape g = {c->pre_height, c->pre_width, c->pre_channels, height, width, height / c->window, width / c->window,
               c->post_channels, c->kernel, stride, c->padding, c->pool, c->window, c->kernel, 1, stride};
    if (c->pool == EQK_AVERAGE_POOL) {
        g.map_height = g.post_height, g.map_width = g.post_width;
        g.pool = EQK_NO_POOL, g.window = 1, g.spread = c->window;
        g.kernel += (g.spread - 1) * stride, g.stride *= g.spread;
    }
    return g;
}

static inline int64_t pre_size(const shape *g) { return g->pre_height * g->pre_width * g->pre_channels; }
static inline int64_t map_size(const shape *g) { return g->map_height * g->map_width * g->post_channels; }
static inline int64_t post_size(const shape *g) { return g->post_height * g->post_width * g->post_channels; }
static inline int64_t filter_size(const shape *g) { return g->taps * g->taps * g->pre_channels; }
static inline int64_t kernel_size(const shape *g) { return g->kernel * g->kernel * g->pre_channels; }

/* Elements of pre in a frame of zeros, as wide as the padding. */
static inline int64_t framed_size(const shape *g) {
    return (g->pre_height + 2 * g->padding) * (g->pre_width + 2 * g->padding) * g->pre_channels;
}

/* Elements of the map before it is pooled, where that is another map than post's. */
static inline int64_t unpooled_size(const shape *g) { return g->pool == EQK_NO_POOL ? 0 : map_size(g); }

/* Numbers that the map takes of so many filters of a max pooling, listed (winners.h); 0 where none is. */
static inline int64_t listed_size(const shape *g, int64_t rows) {
    return g->pool == EQK_MAX_POOL && framed_size(g) <= INT32_MAX ? rows * (1 + 2 * g->map_height * g->map_width) : 0;
}

/* The room that a tile pools in: averaged kernels; or a map, and where winners send down one of a single sample, frames, and
 * states and winners samples first. */
static inline int64_t pooling_room(const shape *g, int64_t lanes) {
    int64_t map = g->spread > 1 ? g->post_channels * kernel_size(g) : unpooled_size(g) * lanes;
    int64_t sample = framed_size(g) + (lanes > 1 ? 2 * post_size(g) : 0);
    int64_t single = g->pool == EQK_MAX_POOL ? map_size(g) + sample * lanes : 0;
    return map > single ? map : single;
}

/* The convolution into a layer of a network, whose kernel is not 0, from the map below. */
static inline eqk_conv conv_into(const eqk_layer *layer) {
    const eqk_layer *below = layer - 1;
    eqk_conv c = {below->height, below->width, below->channels, layer->channels, layer->kernel, layer->stride,
                  layer->padding, layer->pool, layer->window};
    return c;
}

static inline shape shape_into(const eqk_layer *layer) {
    eqk_conv c = conv_into(layer);
    return shape_of(&c);
}

/* How many biases take turns along a layer's neurons. */
static inline int64_t biases_of(const eqk_layer *layer) { return layer->channels ? layer->channels : layer->size; }

static inline int64_t round_up(int64_t n, int64_t chains) { return (n + chains - 1) / chains * chains; }

/* What a tile of so many lanes holds of its own for a convolution: packed weights, up and down, and three winners. */
static inline int64_t own_size(const eqk_layer *layer, int64_t lanes, int64_t chains) {
    shape g = shape_into(layer);
    int64_t winners = g.pool == EQK_MAX_POOL ? 3 * round_up(post_size(&g), chains) * lanes : 0;
    return 2 * round_up(g.post_channels * kernel_size(&g), chains) + winners;
}

/* And for all of them: these, and the largest pooling_room. */
static inline int64_t convs_size(const eqk_layer *layers, int64_t count, int64_t lanes, int64_t chains) {
    int64_t total = 0, room = 0;
    for (int64_t l = 1; l < count; l++)
        if (layers[l].kernel) {
            shape g = shape_into(layers + l);
            total += own_size(layers + l, lanes, chains);
            room = pooling_room(&g, lanes) > room ? pooling_room(&g, lanes) : room;
        }
    return total + round_up(room, chains);
}

static inline int has_convs(const eqk_layer *layers, int64_t count) {
    int any = 0;
    for (int64_t l = 1; l < count; l++)
        any |= layers[l].kernel != 0;
    return any;
}

/* The layer that the cost nudges: the last one, or the one below a softmax readout. */
static inline int64_t top_of(const eqk_layer *layers, int64_t count) {
    return count - 1 - (layers[count - 1].neuron == EQK_SOFTMAX);
}

/* Samples of a full tile, fewer of maps, whose states are large; and how many tiles a batch makes. */
static inline int64_t width_of(const eqk_layer *layers, int64_t count, int64_t chains) {
    return has_convs(layers, count) ? chains : 2 * chains;
}

static inline int64_t tiles_of(const eqk_layer *layers, int64_t count, int64_t batch, int64_t chains) {
    return (batch - 1) / width_of(layers, count, chains) + 1;
}

/* Numbers of scratch of `learn_filters` and of the verb hebbian (see trace.h), for all filters. */
static inline int64_t trace_room(const shape *g, int64_t chains) {
    int64_t columns = (g->kernel * g->pre_channels + chains - 1) / chains * chains;
    return g->post_channels * (2 * filter_size(g) + g->kernel * columns) + framed_size(g) + chains + unpooled_size(g) +
           listed_size(g, g->post_channels) + 2 * post_size(g) + chains; /* the gradient ends in a whole vector */
}

/* Products without zeros (zeros.h): samples whose zeros one word tells, units listed at once, lines of the cache that a
 * chunk is wide. Bands (bands.h): weights of a row that learn at once, lines of rows that a band has of so many. */
enum { WORD = 64, GROUP = 256, LINES = 8, RUN = 1024, BAND = 6 };

static inline int64_t blocks_of(int64_t depth) { return (depth + WORD - 1) / WORD; }

/* Numbers of a unit that are listed in a block, and how many units are. */
static inline int64_t held_of(int64_t depth, int64_t chains) { return depth < WORD ? round_up(depth, chains) : WORD; }
static inline int64_t group_of(int64_t units, int64_t most, int64_t chains) {
    return units < most ? round_up(units, chains) : most;
}

/* A smaller matrix has learnt before its zeros are found. */
static inline int is_small(int64_t n_pre, int64_t n_post) { return n_pre < WORD || n_post < WORD / 2; }

/* For how many units there is room for sums: all of a group whose sums wait for the next block. More depth, no less room. */
static inline int64_t summed_of(int64_t group, int64_t blocks) { return blocks > 1 && group > WORD ? group : WORD; }

/* Numbers of scratch that `listing_in` lays out for so many units, `most` at once. */
static inline int64_t listing_room(int64_t units, int64_t most, int64_t depth, int64_t chains) {
    int64_t group = group_of(units, most, chains), blocks = blocks_of(depth), sums = summed_of(group, blocks) * LINES * chains;
    int64_t numbers = WORD * LINES * chains + sums + blocks * group * held_of(depth, chains);
    return numbers + (blocks + 1) * group * chains / 8; /* and words of 8 bytes */
}

/* Numbers of a band of rows of a matrix. */
static inline int64_t band_room(int64_t n_pre, int64_t n_post, int64_t chains) {
    int64_t run = group_of(n_pre, RUN, chains), most = BAND * chains * RUN;
    return n_post < most / run ? round_up(n_post, chains) * run : most;
}

/* Of a band and a listing, of a run of units if one block has all samples, for the ends of a matrix. */
static inline int64_t learning_room(int64_t n_pre, int64_t n_post, int64_t depth, int64_t chains) {
    int64_t units = n_pre > n_post ? n_pre : n_post, group = listing_room(units, GROUP, depth, chains);
    int64_t run = listing_room(units, RUN, depth < WORD ? depth : WORD, chains); /* more depth, no less room */
    return is_small(n_pre, n_post) ? 0 : band_room(n_pre, n_post, chains) + (run > group ? run : group);
}

/* The list of a tile's rows that are not zero (list_chains), for a layer of so many: their numbers, of 8 bytes, and a count
 * for each chain. */
static inline int64_t list_room(int64_t rows, int64_t chains) {
    return round_up((rows + rows / 32 + chains) * chains / 8, chains);
}

static inline int64_t largest_layer(const eqk_layer *layers, int64_t count) {
    int64_t most = 0;
    for (int64_t l = 0; l < count; l++)
        most = layers[l].size > most ? layers[l].size : most;
    return most;
}

/* What a product of a tile needs besides its factors: the list, rows in another order (chunks.h), a listing (samples.h). */
static inline int64_t product_room(const eqk_layer *layers, int64_t count, int64_t lanes, int64_t chains) {
    int64_t most = largest_layer(layers, count), samples = most < WORD ? 0 : listing_room(lanes, GROUP, most, chains);
    return list_room(most, chains) + (lanes > 1 ? round_up(most, chains) * lanes + samples : 0);
}

/* The most that the update of any layer takes. */
static inline int64_t update_room(const eqk_layer *layers, int64_t count, int64_t batch, int64_t chains) {
    int64_t most = 0;
    for (int64_t l = 1; l < count; l++) {
        int64_t n = layers[l].size, room = learning_room(layers[l - 1].size, n, l > 1 ? 2 * batch : batch, chains);
        if (layers[l].kernel) {
            shape g = shape_into(layers + l);
            room = trace_room(&g, chains);
        }
        most = room > most ? room : most;
        room = layers[l].lateral >= 0 ? learning_room(n, n, 2 * batch, chains) : 0;
        most = room > most ? room : most;
    }
    return round_up(most, chains);
}

static inline int64_t verb_room(const shape *g, int64_t chains) {
    int64_t states = pre_size(g) > post_size(g) ? pre_size(g) : post_size(g), trace = trace_room(g, chains);
    int64_t drive = g->post_channels * kernel_size(g) + pooling_room(g, 1) + post_size(g) + states;
    return trace > drive ? trace : drive;
}

static inline eqk_status check_conv(const eqk_conv *c) {
    shape g;
    POINTER(c, int64_t);
    REQUIRE(fits3(c->pre_height, c->pre_width, c->pre_channels), EQK_BAD_SIZE);
    REQUIRE(fits3(c->kernel, c->kernel, c->pre_channels), EQK_BAD_SIZE);
    REQUIRE(fits(c->kernel * c->kernel * c->pre_channels, c->post_channels), EQK_BAD_SIZE);
    REQUIRE(c->stride > 0 && c->padding >= 0 && c->window > 0, EQK_BAD_SIZE);
    REQUIRE(c->padding < c->kernel, EQK_BAD_VALUE); /* more sees only zeros */
    REQUIRE(c->pool >= EQK_NO_POOL && c->pool <= EQK_AVERAGE_POOL, EQK_BAD_VALUE);
    REQUIRE(c->pool == EQK_NO_POOL ? c->window == 1 : c->window <= 2048, EQK_BAD_VALUE); /* a float holds a place */
    REQUIRE(fits3(c->pre_height + 2 * c->padding, c->pre_width + 2 * c->padding, c->pre_channels), EQK_BAD_SIZE);
    REQUIRE(c->kernel <= c->pre_height + 2 * c->padding && c->kernel <= c->pre_width + 2 * c->padding, EQK_BAD_VALUE);
    g = shape_of(c);
    REQUIRE(g.post_height > 0 && g.post_width > 0, EQK_BAD_VALUE); /* nothing is left of the map */
    REQUIRE(fits(kernel_size(&g), g.post_channels), EQK_BAD_SIZE);
    REQUIRE(fits3(g.map_height, g.map_width, g.post_channels), EQK_BAD_SIZE);
    return EQK_OK;
}

#endif
