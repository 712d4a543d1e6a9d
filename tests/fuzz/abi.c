/* Fuzzes the whole C ABI: `make fuzz`. Every call is drawn from the fuzzer's bytes (draw.h), whole or with something
 * broken. What is whole must be done without touching a byte that is not the call's, and to the same bits by plain C;
 * what is broken must be refused, with nothing written.
 */
#include "draw.h"

enum { FREE_PHASE, NUDGED_PHASE, SETTLE, MEASURE, PACK, UPDATE, TRAIN_STEP };
enum { CALLS = 32 }; /* of each type, see `anything` */

#define EQK_REAL float
#define EQK(name) eqk_##name##_f32
#include "real.h"
#undef EQK_REAL
#undef EQK
#undef REALS
#undef WRITES
#undef TIMES
#undef SIZE
#define EQK_REAL double
#define EQK(name) eqk_##name##_f64
#include "real.h"

/* Queries of any numbers at all. */
static void queries(void) {
    int64_t a = (int64_t)draw(8), b = (int64_t)draw(8);
    int number = (int)(int32_t)draw(4);
    MUST(eqk_abi_version() == EQK_ABI_VERSION && strlen(eqk_status_text(number)) && strlen(eqk_variant_name(number)));
    MUST(strlen(eqk_precision_name(number)) && eqk_bf16x3() >= EQK_FULL && eqk_bf16x3() <= EQK_BF16X3_AMX);
    MUST(eqk_dense_workspace_f32(a, b) <= eqk_dense_workspace_f64(a, b));
    MUST(eqk_tiles_f32(0) == 0 && eqk_tiles_f64(0) == 0);
    MUST(eqk_field_workspace_f32(a, b) == 0 || (a > 0 && b > 0 && b <= EQK_FIELD_STEPS));
    MUST(eqk_field_workspace_f64(a, b) == 0 || (a > 0 && b > 0 && b <= EQK_FIELD_STEPS));
}

/* The map of a convolution of any numbers at all, most of them small. */
static void map(void) {
    eqk_conv conv, *place = array(1, sizeof conv, 0);
    int64_t *sizes[3];
    for (int i = 0; i < 9; i++)
        (&conv.pre_height)[i] = draw(1) == 255 ? (int64_t)draw(8) : among(8);
    if (place)
        memcpy(place, &conv, sizeof conv);
    for (int i = 0; i < 3; i++)
        sizes[i] = optional(1, sizeof(int64_t));
    broken |= eqk_conv_post(&conv, NULL, NULL, NULL) != EQK_OK;
    TRY(eqk_conv_post(place, sizes[0], sizes[1], sizes[2]));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    int which;
    bytes = data, bytes_end = data + size;
    which = (int)among(2 * CALLS + 2);
    if (which == 2 * CALLS)
        queries();
    else if (which > 2 * CALLS)
        map();
    else if (which % 2)
        eqk_anything_f32(which / 2);
    else
        eqk_anything_f64(which / 2);
    release();
    return 0;
}

#ifdef STANDALONE /* without a fuzzer: so many random calls, always the same ones; with a second argument, bits may differ */
int main(int count, char **arguments) {
    uint64_t state = 1;
    compares_bits = count < 3;
    for (long i = count > 1 ? atol(arguments[1]) : 1000; i > 0; i--) {
        uint8_t data[160];
        for (size_t j = 0; j < sizeof data; j++) {
            state = state * 6364136223846793005u + 1442695040888963407u;
            data[j] = (uint8_t)(state >> 56);
        }
        LLVMFuzzerTestOneInput(data, i % 4 ? sizeof data : (size_t)(i / 4 % (long)sizeof data));
    }
    return 0;
}
#endif
