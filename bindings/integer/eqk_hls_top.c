/* The function an HLS tool makes a circuit of: one sample a call, predicting or learning. HLS-style C, not compiled by an
 * HLS tool yet. One translation unit, so that everything inlines; check_vectors.c is the test bench of what it calls. */
#include "eqk_int.c"

void eqk_top(eqk_masters *masters, const int8_t x[EQK_NX], const int8_t t[EQK_NO], int train, int rate1, int rate2,
             uint32_t batch, int32_t *label, eqk_int_report *report);

void eqk_top(eqk_masters *masters, const int8_t x[EQK_NX], const int8_t t[EQK_NO], int train, int rate1, int rate2,
             uint32_t batch, int32_t *label, eqk_int_report *report) {
    EQK_HLS(INTERFACE mode = bram port = masters)
    EQK_HLS(INTERFACE mode = axis port = x)
    EQK_HLS(INTERFACE mode = axis port = t)
    EQK_HLS(INTERFACE mode = s_axilite port = train)
    EQK_HLS(INTERFACE mode = s_axilite port = rate1)
    EQK_HLS(INTERFACE mode = s_axilite port = rate2)
    EQK_HLS(INTERFACE mode = s_axilite port = batch)
    EQK_HLS(INTERFACE mode = s_axilite port = label)
    EQK_HLS(INTERFACE mode = s_axilite port = report)
    EQK_HLS(INTERFACE mode = s_axilite port = return)
    static eqk_weights weights; /* memories of the circuit */
    static eqk_trace trace;
    int8_t input[EQK_NX], target[EQK_NO]; /* a stream gives each byte once, in order, whatever is done with it */
    int32_t drive[EQK_NH];
    int16_t error[EQK_NO];
    eqk_state state;
    eqk_drive last;
    eqk_ends ends;
    int j;
    EQK_HLS(ARRAY_PARTITION variable = weights.w1 dim = 1 complete)
    EQK_HLS(ARRAY_PARTITION variable = weights.w2 dim = 2 complete)
    for (j = 0; j < EQK_NX; j++) input[j] = x[j];
    for (j = 0; j < EQK_NO; j++) target[j] = t[j];
    eqk_quantise(masters, &weights);
    free_phase(&weights, input, drive, &state, &last);
    *label = 0;
    for (j = 1; j < EQK_NO; j++)
        if (state.o[j] > state.o[*label]) *label = j;
    if (!train) return;
    eqk_error(&state, target, error);
    if (EQK_INT_DIFFERENCE)
        eqk_difference(&weights, &state, &last, error, &ends);
    else
        eqk_plus_minus(&weights, drive, &state, error, &ends);
    clear(&trace);
    judge(&state, &last, error, eqk_accumulate(&ends, input, &trace), report);
    report->clipped += eqk_update(masters, &trace, rate1, rate2, batch);
}
