/* What a fuzzed call is made of, drawn from the fuzzer's bytes; when they are used up every draw is 0, a valid choice.
 *
 * `broken` says that something was drawn that the library must refuse. Arrays are heap blocks of exactly the size that
 * the header states, so that AddressSanitizer sees the first element beyond.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "eqkernel.h"

enum { LARGEST = 1 << 16 /* elements of an array */, BLOCKS = 64 };

static const uint8_t *bytes, *bytes_end;
static int broken;
static void *blocks[BLOCKS];
static int block_count;

/* An array that a call may write: as it was before, as the first variant left it, and the size of its numbers. */
typedef struct {
    void *now, *before, *after;
    size_t size, item;
    int scratch;
} output;
static output outputs[BLOCKS];
static int output_count;

#define MUST(condition) \
    do { \
        if (!(condition)) { \
            fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition); \
            abort(); \
        } \
    } while (0)

static void *block(size_t size) {
    MUST(block_count < BLOCKS);
    blocks[block_count] = malloc(size);
    MUST(blocks[block_count] || !size);
    return blocks[block_count++];
}

static uint64_t draw(int count) {
    uint64_t value = 0;
    while (count--)
        value = value << 8 | (bytes < bytes_end ? *bytes++ : 0);
    return value;
}
static int64_t among(int64_t n) { return (int64_t)(draw(n > 256 ? 2 : 1) % (uint64_t)n); }

/* Now and then: yes, break something. */
static int spoil(void) {
    int yes = draw(1) > 251;
    broken |= yes;
    return yes;
}

static int64_t bad_size(void) {
    static const int64_t sizes[] = {0, -1, INT64_MIN, INT64_MAX, (int64_t)1 << 41, (int64_t)1 << 62, -7};
    broken = 1;
    return sizes[among(7)];
}
static int64_t size(int64_t most) { return spoil() ? bad_size() : 1 + among(most); }

static int64_t steps(void) { return spoil() ? -among(2) * INT64_MAX : 1 + among(6); } /* any number of them is right */

static int64_t code(int64_t first, int64_t last) { /* of an enumeration */
    static const int64_t codes[] = {-1, 99, INT32_MAX, INT32_MIN};
    return spoil() ? codes[among(4)] : first + among(last - first + 1);
}

/* Any number: what a constant may be without a call being refused. */
static double number(void) {
    static const double numbers[] = {0, 1, 0.1, -1, 0.5, 1e-3, 1e30, -1e30, 1e-30, 1e-300, 1e300, NAN, INFINITY, 13};
    return numbers[among(14)];
}
static double finite(void) {
    double x = number();
    broken |= !isfinite(x);
    return x;
}
/* A number in (0, 1], or one outside. */
static double fraction(void) {
    static const double good[] = {1, 0.5, 0.01, 1e-6}, bad[] = {0, -1, 2, NAN, INFINITY};
    return spoil() ? bad[among(5)] : good[among(4)];
}

static double unit(uint32_t *state) {
    *state = *state * 1664525u + 1013904223u;
    return (*state >> 8) / 16777216.0;
}

/* Fills `count` numbers of `item` bytes: most within [-1, 1), or with some that are special; integers with any bits. */
static void fill(void *array, size_t count, size_t item, int real) {
    static const double special[] = {NAN, INFINITY, -INFINITY, 1e30, -1e30, 0, -0.0, 1e-40, 1e-310, 3e38};
    uint32_t state = (uint32_t)draw(2) * 65537u, odd = (uint32_t)draw(1);
    for (size_t i = 0; i < count; i++) {
        double x = 2 * unit(&state) - 1;
        if (odd > 200 && unit(&state) < 0.2)
            x = special[(int)(10 * unit(&state))];
        if (!real)
            for (size_t j = 0; j < item; j++)
                ((uint8_t *)array)[i * item + j] = (uint8_t)(256 * unit(&state));
        else if (item == sizeof(float))
            ((float *)array)[i] = (float)x;
        else
            ((double *)array)[i] = x;
    }
}

/* An array of `count` items, or NULL, or one that lies askew; of nothing, if `count` is negative, as its size cannot be
 * had. `array_size` is how many bytes may be used. */
static int unaddressable; /* sizes that the library may take, but no memory has: arrays are NULL */
static size_t array_size;
static void *array(int64_t count, size_t item, int real) {
    char *base;
    size_t askew = 0, offset = item * (draw(1) % 4), size = count < 0 ? 0 : (size_t)count * item;
    array_size = 0;
    if (unaddressable)
        return NULL;
    MUST(count <= LARGEST);
    if (spoil()) {
        if (among(4) == 0)
            return NULL;
        askew = 1 + draw(1) % (item < 8 ? 3 : 7);
    }
    base = (char *)block(size + offset + askew) + offset + askew;
    if (askew)
        memset(base, 0, size);
    else
        fill(base, size / item, item, real);
    array_size = askew ? 0 : size;
    return base;
}

/* Notes that the call may write to `array`, the last that was drawn. */
static void *writes(void *array, size_t item, int scratch) {
    output *o = outputs + output_count;
    MUST(output_count++ < BLOCKS);
    o->now = array, o->size = array_size, o->item = item, o->scratch = scratch;
    o->before = block(o->size), o->after = block(o->size);
    if (o->size)
        memcpy(o->before, array, o->size);
    return array;
}

/* What a call writes unless the pointer is NULL. */
static void *optional(int64_t count, size_t item) {
    int before = broken;
    void *place = among(2) ? array(count, item, 1) : NULL;
    if (!place)
        broken = before, array_size = 0;
    return writes(place, item, 0);
}

static void release(void) {
    while (block_count)
        free(blocks[--block_count]);
    output_count = broken = unaddressable = 0;
}

/* A layer, perhaps a map, that the one below drives by a matrix, or by a convolution if both are maps. */
static eqk_layer draw_layer(const eqk_layer *below, int plain) {
    eqk_layer layer = {.weight = -1, .bias = -1, .lateral = -1};
    int64_t height, width, n;
    if (plain || draw(1) % 2 == 0) {
        layer.size = 1 + among(draw(1) % 8 ? 24 : 96);
        return layer;
    }
    layer.height = 1 + among(5), layer.width = 1 + among(5), layer.channels = 1 + among(3);
    if (below && below->channels && among(4)) {
        eqk_conv c = {below->height, below->width, below->channels, draw(1) % 8 ? layer.channels : 18, 1 + among(3),
                      1 + among(2), 0, among(3), 1};
        c.padding = among(c.kernel), c.window = c.pool ? 1 + among(2) : 1;
        if (eqk_conv_post(&c, &height, &width, &n) == EQK_OK && n <= 72) {
            layer.height = height, layer.width = width, layer.channels = c.post_channels;
            layer.kernel = c.kernel, layer.stride = c.stride, layer.padding = c.padding;
            layer.pool = c.pool, layer.window = c.window;
        }
    }
    layer.size = layer.height * layer.width * layer.channels;
    return layer;
}

/* How many weights and biases a layer has. */
static int64_t weights_of(const eqk_layer *layer) {
    const eqk_layer *below = layer - 1;
    int64_t taps = layer->kernel * layer->kernel * below->channels;
    return layer->kernel ? taps * layer->channels : layer->size * below->size;
}
static int64_t biases_of(const eqk_layer *layer) { return layer->channels ? layer->channels : layer->size; }

/* -- judging a call ------------------------------------------------------------------------------------------------ */

/* Outputs become what they were; what they are is kept. */
static void rewind_outputs(void) {
    for (int i = 0; i < output_count; i++)
        if (outputs[i].size) {
            memcpy(outputs[i].after, outputs[i].now, outputs[i].size);
            memcpy(outputs[i].now, outputs[i].before, outputs[i].size);
        }
}

static int is_nan(const void *at, size_t item) {
    float f;
    double d;
    if (item == sizeof f)
        return memcpy(&f, at, sizeof f), f != f;
    return item == sizeof d && (memcpy(&d, at, sizeof d), d != d);
}

/* The same bits, or NaN in both. */
static int same(const void *a, const void *b, size_t size, size_t item) {
    for (size_t i = 0; i < size; i += item)
        if (memcmp((const char *)a + i, (const char *)b + i, item))
            if (!is_nan((const char *)a + i, item) || !is_nan((const char *)b + i, item))
                return 0;
    return 1;
}

static void judge(eqk_status status, int may_diverge) {
    MUST(status >= EQK_OK && status <= EQK_NOT_FINITE && strlen(eqk_status_text((int)status)) > 3);
    MUST(status != EQK_DIVERGED || may_diverge);
    if (status == EQK_OK || status == EQK_DIVERGED) {
        MUST(!broken);
        return;
    }
    MUST(broken);
    for (int i = 0; i < output_count; i++)
        MUST(!outputs[i].size || !memcmp(outputs[i].now, outputs[i].before, outputs[i].size));
}

static int compares_bits = 1; /* valgrind's vector arithmetic is not always right to the last bit */
static void judge_twin(eqk_status status, eqk_status twin) {
    if (!compares_bits)
        return;
    MUST(status == twin);
    for (int i = 0; i < output_count; i++)
        if (!outputs[i].scratch)
            MUST(same(outputs[i].now, outputs[i].after, outputs[i].size, outputs[i].item));
}

/* Does `call`, which uses `variant`; what it accepts, it does again with plain C, to the same bits. */
static int variant;
#define TRY_STEP(call, may_diverge) \
    do { \
        eqk_status status_ = (call); \
        judge(status_, may_diverge); \
        if (!broken) { \
            rewind_outputs(); \
            variant = EQK_SCALAR; \
            judge_twin(status_, (call)); \
        } \
    } while (0)
#define TRY(call) TRY_STEP(call, 0)

static int draw_variant(void) {
    static const int bad[] = {-1, EQK_AVX512_INTEL + 1, INT32_MAX, INT32_MIN};
    int drawn = (int)among(EQK_AVX512_INTEL + 1);
    return spoil() ? bad[among(4)] : eqk_runs_variant(drawn) ? drawn : EQK_AUTO;
}
