/* Diffusion on a grid, Phi = -D/2 sum_<ij> (s_i - s_j)^2: see eqkernel.reference.diffusion. A line is a sheet of one row,
 * which is its own neighbour above and below. */

/* The cell of 0..n-1 whose value lies at i on the endless line: beyond a periodic edge the other end, beyond a zero-flux
 * edge the mirror image. */
INLINE int64_t source(int64_t i, int64_t n, int mirror) {
    int64_t period = mirror ? 2 * n : n;
    i = (i % period + period) % period;
    return i < n ? i : 2 * n - 1 - i;
}

/* The sum over neighbours j of s_j - s_i at cells j, j + 1, ... of a row, `some` of them, which have neighbours there. */
INLINE vec laplacian_inside(const real *north, const real *row, const real *south, int64_t j, int64_t some) {
    vec vertical = v_add(v_load_some(north + j, some), v_load_some(south + j, some));
    vec horizontal = v_add(v_load_some(row + j - 1, some), v_load_some(row + j + 1, some));
    return v_fnma(v_set(4), v_load_some(row + j, some), v_add(vertical, horizontal));
}

/* The same at an edge. */
INLINE real laplacian_edge(const real *north, const real *row, const real *south, int64_t j, int64_t width, int mirror) {
    real cell[LANES] = {row[j]}, sum[LANES] = {0};
    real vertical = north[j] + south[j];
    sum[0] = vertical + (row[source(j - 1, width, mirror)] + row[source(j + 1, width, mirror)]);
    v_store(sum, v_fnma(v_set(4), v_load(cell), v_load(sum)));
    return sum[0];
}

/* drive += scale lap sheets, both (B, rows, width). */
static void add_laplacian(real *restrict drive, const real *restrict sheets, real scale, int64_t batch, int64_t rows,
                          int64_t width, int mirror) {
    for (int64_t b = 0; b < batch; b++)
        for (int64_t i = 0; i < rows; i++) {
            const real *sheet = sheets + b * rows * width, *row = sheet + i * width;
            const real *north = sheet + source(i - 1, rows, mirror) * width;
            const real *south = sheet + source(i + 1, rows, mirror) * width;
            real *out = drive + (b * rows + i) * width;
            out[0] += scale * laplacian_edge(north, row, south, 0, width, mirror);
            if (width > 1)
                out[width - 1] += scale * laplacian_edge(north, row, south, width - 1, width, mirror);
            for (int64_t j = 1; j < width - 1; j += LANES) {
                int64_t some = width - 1 - j;
                vec old = v_load_some(out + j, some);
                v_store_some(out + j, v_fma(v_set(scale), laplacian_inside(north, row, south, j, some), old), some);
            }
        }
}

/* post . lap pre of one sheet, in chains along the rows that are summed at the end. */
static real correlation(const real *pre, const real *post, int64_t rows, int64_t width, int mirror) {
    vec chain[PARTS];
    real total = 0, edges = 0, lanes[CHAINS];
    for (int p = 0; p < PARTS; p++)
        chain[p] = v_set(0);
    for (int64_t i = 0; i < rows; i++) {
        const real *row = pre + i * width, *other = post + i * width;
        const real *north = pre + source(i - 1, rows, mirror) * width;
        const real *south = pre + source(i + 1, rows, mirror) * width;
        edges += other[0] * laplacian_edge(north, row, south, 0, width, mirror);
        if (width > 1)
            edges += other[width - 1] * laplacian_edge(north, row, south, width - 1, width, mirror);
        for (int64_t j = 1; j < width - 1; j += CHAINS)
            for (int p = 0; p < PARTS && j + p * LANES < width - 1; p++) {
                int64_t at = j + p * LANES, some = width - 1 - at;
                chain[p] = v_fma(v_load_some(other + at, some), laplacian_inside(north, row, south, at, some), chain[p]);
            }
    }
    for (int p = 0; p < PARTS; p++)
        v_store(lanes + p * LANES, chain[p]);
    for (int c = 0; c < CHAINS; c++)
        total += lanes[c];
    return total + edges;
}

static void diffusion_energy(real *restrict energy, const real *pre, const real *post, double D, int64_t batch,
                             int64_t rows, int64_t width, int mirror) {
    for (int64_t b = 0; b < batch; b++) {
        int64_t at = b * rows * width;
        energy[b] -= (real)(0.5 * D) * correlation(pre + at, post + at, rows, width, mirror);
    }
}

static void diffusion_drive_post(real *drive, const real *pre, double D, int64_t batch, int64_t rows, int64_t width,
                                 int mirror) {
    add_laplacian(drive, pre, (real)(0.5 * D), batch, rows, width, mirror);
}

static void diffusion_hebbian(real *trace, const real *pre, const real *post, double scale, int64_t batch, int64_t rows,
                              int64_t width, int mirror) {
    real total = 0;
    for (int64_t b = 0; b < batch; b++)
        total += correlation(pre + b * rows * width, post + b * rows * width, rows, width, mirror);
    *trace += (real)(0.5 * scale) * total;
}
