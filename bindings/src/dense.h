/* The verbs of dense, bias and lateral connections. A lateral one is a dense one from a layer to itself, times 1/2. */

/* energy[b] -= scale post[b] . (W pre[b]). */
static void dense_energy(real *restrict energy, const real *pre, const real *post, const real *weight, double scale,
                         int64_t batch, int64_t n_pre, int64_t n_post) {
    for (int64_t b = 0; b < batch; b++) {
        real total = 0;
        for (int64_t i = 0; i < n_post; i += WIDTH) {
            int64_t rows = n_post - i < WIDTH ? n_post - i : WIDTH;
            real drive[WIDTH] = {0};
            forward_single(drive, weight + i * n_pre, n_pre, pre + b * n_pre, rows, n_pre);
            for (int64_t r = 0; r < rows; r++)
                total += post[b * n_post + i + r] * drive[r];
        }
        energy[b] -= (real)scale * total;
    }
}

/* drive += scale pre W^T; work holds a tile of both ends, and room for one of pre. */
static void dense_drive_post(real *restrict drive, const real *pre, const real *weight, double scale, int64_t batch,
                             int64_t n_pre, int64_t n_post, real *work) {
    for (int64_t first = 0; first < batch; first += WIDTH) {
        int64_t count = batch - first < WIDTH ? batch - first : WIDTH, lanes = lanes_for(count);
        real *source = work, *product = work + n_pre * lanes;
        memset(work, 0, (size_t)((n_pre + n_post) * lanes) * sizeof *work);
        if (lanes == 1)
            forward_single(product, weight, n_pre, pre + first * n_pre, n_post, n_pre);
        else {
            transpose(source, lanes, pre + first * n_pre, n_pre, count, n_pre);
            forward_tile(product, lanes, weight, n_pre, source, n_post, n_pre, 0, product + n_post * lanes);
        }
        for (int64_t b = 0; b < count; b++)
            for (int64_t i = 0; i < n_post; i++)
                drive[(first + b) * n_post + i] += (real)scale * product[i * lanes + b];
    }
}

static void dense_drive_pre(real *drive, const real *post, const real *weight, double scale, int64_t batch,
                            int64_t n_pre, int64_t n_post) {
    backward(drive, n_pre, post, n_post, 1, weight, n_pre, batch, n_post, n_pre, (real)scale, 1);
}

static void dense_hebbian(real *trace, const real *pre, const real *post, double scale, int64_t batch, int64_t n_pre,
                          int64_t n_post) {
    backward(trace, n_pre, post, 1, n_post, pre, n_pre, n_post, batch, n_pre, (real)scale, 1);
}

static void bias_energy(real *restrict energy, const real *post, const real *weight, int64_t batch, int64_t n) {
    for (int64_t b = 0; b < batch; b++) {
        real total = 0;
        for (int64_t i = 0; i < n; i++)
            total += weight[i] * post[b * n + i];
        energy[b] -= total;
    }
}

static void bias_drive_post(real *drive, const real *weight, int64_t batch, int64_t n) {
    for (int64_t b = 0; b < batch; b++)
        combine(drive + b * n, drive + b * n, 1, weight, n);
}

static void bias_hebbian(real *trace, const real *post, double scale, int64_t batch, int64_t n) {
    for (int64_t i = 0; i < n; i += LANES) {
        vec sum = v_set(0);
        for (int64_t b = 0; b < batch; b++)
            sum = v_add(sum, v_load_some(post + b * n + i, n - i));
        v_store_some(trace + i, v_fma(v_set((real)scale), sum, v_load_some(trace + i, n - i)), n - i);
    }
}
