/* A network learns XOR from C: fill a job, train, predict. See docs/c.md for how to compile it. */
#include <stdio.h>
#include <stdlib.h>

#include "eqkernel.h"

enum { INPUT = 2, HIDDEN = 16, OUTPUT = 2, BATCH = 4, ROWS = HIDDEN + OUTPUT };
enum { W1 = 0, B1 = W1 + HIDDEN * INPUT, W2 = B1 + HIDDEN, B2 = W2 + OUTPUT * HIDDEN, PARAMETERS = B2 + OUTPUT };

static void require(eqk_status status) {
    if (status != EQK_OK) {
        fprintf(stderr, "eqkernel: %s\n", eqk_status_text((int)status));
        exit(1);
    }
}

int main(void) {
    const eqk_layer layers[] = {
        {.size = INPUT, .weight = -1, .bias = -1, .lateral = -1, .neuron = EQK_LINEAR},
        {.size = HIDDEN, .weight = W1, .bias = B1, .lateral = -1, .neuron = EQK_TANH},
        {.size = OUTPUT, .weight = W2, .bias = B2, .lateral = -1, .neuron = EQK_SOFTMAX, .row = HIDDEN},
    };
    const float x[BATCH * INPUT] = {0, 0, 0, 1, 1, 0, 1, 1};
    const int64_t labels[BATCH] = {0, 1, 1, 0};
    float parameters[PARAMETERS], state[BATCH * ROWS], mean[BATCH * ROWS], difference[BATCH * ROWS];
    eqk_report report[2];
    eqk_job_f32 job = {0};
    double loss = 0;
    int64_t correct = 0;
    uint32_t random = 1;

    if (eqk_abi_version() != EQK_ABI_VERSION)
        return 1;
    for (int i = 0; i < PARAMETERS; i++) { /* Numerical Recipes' generator: uniform in [-1, 1) */
        random = random * 1664525u + 1013904223u;
        parameters[i] = (float)(random >> 8) / 8388608.0f - 1.0f;
    }
    job.version = EQK_ABI_VERSION;
    job.layers = layers;
    job.count = 3;
    job.parameters = parameters;
    job.parameter_count = PARAMETERS;
    job.schedule.gamma = 0.003; /* few-step, eqkernel's default */
    job.schedule.step = 1;
    job.schedule.free_steps = 3;
    job.schedule.nudged_steps = 1;
    job.schedule.order = EQK_SWEEP;
    job.schedule.form = EQK_DIFFERENCE;
    job.beta = 0.02;
    job.batch = BATCH;
    job.x = x;
    job.labels = labels;
    job.state = state;
    job.mean = mean;
    job.difference = difference;
    job.report = report;
    job.optimiser.rule = EQK_SGD;
    job.optimiser.rate = 0.5;
    job.work_size = eqk_workspace_f32(&job);
    job.work = malloc(job.work_size);
    if (!job.work_size || !job.work)
        return 1;
    for (int step = 0; step < 500; step++)
        require(eqk_train_step_f32(&job, &loss, &correct));
    require(eqk_free_phase_f32(&job, 0, eqk_tiles_f32(&job)));
    for (int b = 0; b < BATCH; b++) /* the readout is the last block of the states */
        printf("%g xor %g: %.3f\n", x[2 * b], x[2 * b + 1], state[BATCH * HIDDEN + b * OUTPUT + 1]);
    printf("loss %.4f, %d of %d right, %s kernels\n", loss, (int)correct, BATCH, eqk_variant_name(eqk_best_variant()));
    free(job.work);
    return correct == BATCH && loss < 0.05 ? 0 : 1;
}
