/* Fuzzed calls of the functions of one type: EQK_REAL and EQK() are set by the file that includes this one, twice. */

#define REALS(count) ((EQK_REAL *)array(count, sizeof(EQK_REAL), 1))
#define WRITES(count) ((EQK_REAL *)writes(REALS(count), sizeof(EQK_REAL), 0))

/* Working memory of exactly the size asked for, wherever it begins; or too little. */
static void *EQK(work)(size_t needed, size_t *size) {
    void *memory;
    broken |= !needed; /* there is no such call */
    unaddressable |= needed > LARGEST * sizeof(EQK_REAL);
    broken |= unaddressable;
    memory = array((int64_t)(needed / sizeof(EQK_REAL)), sizeof(EQK_REAL), 1);
    *size = needed && spoil() ? draw(2) % needed : needed;
    return writes(memory, sizeof(EQK_REAL), 1);
}

/* The product of two sizes, -1 if they cannot be had. */
static int64_t EQK(times)(int64_t a, int64_t b) {
    if (a <= 0 || b <= 0 || a > LARGEST || b > LARGEST / a) {
        broken = 1;
        return -1;
    }
    return a * b;
}
#define TIMES(a, b) EQK(times)(a, b)
#define SIZE(n) ((n) > LARGEST ? -1 : (n)) /* of an array along one axis */

static void EQK(dense)(int which) {
    int lateral = which >= 4;
    int64_t batch = size(70), n_pre = size(80), n_post = lateral ? n_pre : size(80);
    int64_t pres = TIMES(batch, n_pre), posts = TIMES(batch, n_post), weights = TIMES(n_post, n_pre);
    double scale = number();
    size_t work_size;
    void *work;
    EQK_REAL *out, *a, *b, *c;
    switch (which % 4) {
    case 0:
        out = WRITES(SIZE(batch)), a = REALS(pres), b = REALS(posts), c = REALS(weights);
        if (lateral)
            TRY(EQK(lateral_energy)(variant, out, a, b, c, batch, n_pre));
        else
            TRY(EQK(dense_energy)(variant, out, a, b, c, batch, n_pre, n_post));
        break;
    case 1:
        out = WRITES(posts), a = REALS(pres), b = REALS(weights);
        work = EQK(work)(EQK(dense_workspace)(n_pre, n_post), &work_size);
        if (lateral)
            TRY(EQK(lateral_drive_post)(variant, out, a, b, batch, n_pre, work, work_size));
        else
            TRY(EQK(dense_drive_post)(variant, out, a, b, batch, n_pre, n_post, work, work_size));
        break;
    case 2:
        out = WRITES(pres), a = REALS(posts), b = REALS(weights);
        if (lateral)
            TRY(EQK(lateral_drive_pre)(variant, out, a, b, batch, n_pre));
        else
            TRY(EQK(dense_drive_pre)(variant, out, a, b, batch, n_pre, n_post));
        break;
    default:
        out = WRITES(weights), a = REALS(pres), b = REALS(posts);
        if (lateral)
            TRY(EQK(lateral_hebbian)(variant, out, a, b, scale, batch, n_pre));
        else
            TRY(EQK(dense_hebbian)(variant, out, a, b, scale, batch, n_pre, n_post));
    }
}

static void EQK(bias)(int which) {
    int64_t batch = size(70), n = size(80), all = TIMES(batch, n);
    double scale = number();
    if (which == 0) {
        EQK_REAL *out = WRITES(SIZE(batch)), *a = REALS(all), *b = REALS(SIZE(n));
        TRY(EQK(bias_energy)(variant, out, a, b, batch, n));
    } else if (which == 1) {
        EQK_REAL *out = WRITES(all), *a = REALS(SIZE(n));
        TRY(EQK(bias_drive_post)(variant, out, a, batch, n));
    } else {
        EQK_REAL *out = WRITES(SIZE(n)), *a = REALS(all);
        TRY(EQK(bias_hebbian)(variant, out, a, scale, batch, n));
    }
}

static int EQK(neuron)(void) {
    int neuron = (int)code(EQK_HARD_SIGMOID, EQK_FHN - 1);
    return neuron == EQK_SOFTMAX ? EQK_FHN : neuron;
}

static void EQK(neurons)(int which) {
    int64_t batch = size(40), n = size(80), all = TIMES(batch, n);
    int neuron = EQK(neuron)();
    EQK_REAL *out = WRITES(which == 4 ? SIZE(batch) : all), *a = REALS(all), *b = which == 2 ? REALS(all) : NULL;
    if (which == 0)
        TRY(EQK(neurons_rate)(variant, out, a, all, neuron));
    else if (which == 1) {
        double step = finite();
        TRY(EQK(neurons_relax)(variant, out, a, step, all, neuron));
    } else if (which == 2)
        TRY(EQK(neurons_difference)(variant, out, a, b, all, neuron));
    else if (which == 3) {
        if (neuron >= EQK_HARD_SIGMOID && neuron <= EQK_FHN) /* the neuron is not asked for */
            TRY(EQK(neurons_softmax)(variant, out, a, batch, n));
    } else
        TRY(EQK(neurons_potential)(variant, out, a, batch, n, neuron));
}

static void EQK(diffusion)(int which) {
    int64_t batch = size(3), rows = size(12), width = size(60), all = TIMES(TIMES(batch, rows), width);
    int boundary = (int)code(EQK_PERIODIC, EQK_NEUMANN);
    double scale = number();
    EQK_REAL *out = WRITES(which == 0 ? SIZE(batch) : which == 1 ? all : 1), *a = REALS(all);
    EQK_REAL *b = which == 1 ? NULL : REALS(all);
    if (which == 0)
        TRY(EQK(diffusion_energy)(variant, out, a, b, scale, batch, rows, width, boundary));
    else if (which == 1)
        TRY(EQK(diffusion_drive_post)(variant, out, a, scale, batch, rows, width, boundary));
    else
        TRY(EQK(diffusion_hebbian)(variant, out, a, b, scale, batch, rows, width, boundary));
}

static void EQK(field)(void) {
    int64_t rows = size(20), width = draw(1) % 8 ? size(70) : size(1100), all = TIMES(TIMES(2, rows), width);
    int64_t steps = size(EQK_FIELD_STEPS), first = 0, last = 0;
    int boundary = (int)code(EQK_PERIODIC, EQK_NEUMANN);
    EQK_REAL *before = REALS(all), *after = WRITES(all), *largest = WRITES(1);
    eqk_field field, *place = array(1, sizeof field / 8 * 8, 1);
    size_t work_size;
    void *work = EQK(work)(EQK(field_workspace)(width, steps), &work_size);
    for (int i = 0; i < 7; i++)
        (&field.Du)[i] = number();
    if (place)
        memcpy(place, &field, sizeof field);
    if (all > 0)
        first = among(rows + 1), last = first + among(rows + 1 - first);
    if (spoil())
        last = among(2) || rows == INT64_MAX ? first - 1 : rows + 1;
    TRY(EQK(field_advance)(variant, after, before, place, rows, width, steps, boundary, first, last, largest, work,
                           work_size));
}

static void EQK(conv)(int which) {
    int64_t batch = size(5), height, width, n_pre = -1, n_post = -1, filters = -1;
    eqk_conv conv = {0}, *place = array(1, sizeof conv, 0);
    size_t work_size;
    void *work;
    int32_t *winners;
    EQK_REAL *out, *a, *b, *c;
    double scale = number();
    int before = broken;
    conv.pre_height = size(10), conv.pre_width = size(10), conv.pre_channels = size(draw(1) % 4 ? 5 : 40);
    conv.post_channels = size(draw(1) % 4 ? 5 : 40), conv.kernel = size(5), conv.stride = size(4);
    conv.padding = among(5), conv.window = size(3);
    conv.pool = which == 4 ? EQK_MAX_POOL : code(EQK_NO_POOL, EQK_AVERAGE_POOL);
    if (draw(1) % 16 == 15) /* anything at all */
        (&conv.pre_height)[among(9)] = (int64_t)draw(8);
    broken = before; /* whether it can be, the library says itself */
    if (place)
        memcpy(place, &conv, sizeof conv);
    if (eqk_conv_post(&conv, &height, &width, &n_post) == EQK_OK) {
        MUST(height > 0 && width > 0 && n_post == height * width * conv.post_channels);
        broken = 0;
        n_pre = TIMES(TIMES(TIMES(conv.pre_height, conv.pre_width), conv.pre_channels), SIZE(batch));
        filters = TIMES(TIMES(TIMES(conv.kernel, conv.kernel), conv.pre_channels), conv.post_channels);
        n_post = TIMES(n_post, SIZE(batch));
        unaddressable = broken;
        broken |= before;
    } else
        broken = 1;
    winners = which == 4 || conv.pool == EQK_MAX_POOL ? array(n_post, sizeof *winners, 0) : NULL;
    if (which == 4)
        writes(winners, sizeof *winners, 0);
    work = EQK(work)(EQK(conv_workspace)(&conv), &work_size);
    switch (which) {
    case 0:
        out = WRITES(SIZE(batch)), a = REALS(n_pre), b = REALS(n_post), c = REALS(filters);
        TRY(EQK(conv_energy)(variant, out, a, b, c, winners, place, batch, work, work_size));
        break;
    case 1:
        out = WRITES(n_post), a = REALS(n_pre), b = REALS(filters);
        TRY(EQK(conv_drive_post)(variant, out, a, b, winners, place, batch, work, work_size));
        break;
    case 2:
        out = WRITES(n_pre), a = REALS(n_post), b = REALS(filters);
        TRY(EQK(conv_drive_pre)(variant, out, a, b, winners, place, batch, work, work_size));
        break;
    case 3:
        out = WRITES(filters), a = REALS(n_pre), b = REALS(n_post);
        TRY(EQK(conv_hebbian)(variant, out, a, b, scale, winners, place, batch, work, work_size));
        break;
    default:
        a = REALS(n_pre), b = REALS(filters);
        TRY(EQK(conv_choose)(variant, winners, a, b, place, batch, work, work_size));
    }
}

/* Layers in a chain, their matrices one after the other or anywhere. Gives the sizes of the first and the last, and the
 * sum of all but the first: -1 each, if they cannot be had. */
static void EQK(draw_layers)(EQK(job) * job, int64_t *inputs, int64_t *classes, int64_t *rows) {
    static const double currents[] = {0.3, 1e-3, 1e30}, taus[] = {1, 2.5, 1e30}, no_currents[] = {-1, NAN, INFINITY};
    static const int64_t wrong[] = {-2, INT64_MIN, INT64_MAX, ((int64_t)1 << 40) + 1};
    int64_t count = 2 + among(4), all = 0, sum = 0, anywhere = draw(1) % 4 == 3;
    eqk_layer layers[5], *place;
    for (int64_t l = 0; l < count; l++) {
        int last = l == count - 1, softmax = l > 1 && last && draw(1) % 2;
        eqk_layer *layer = layers + l;
        *layer = draw_layer(l ? layer - 1 : NULL, softmax);
        layer->row = sum;
        if (!l)
            continue;
        layer->neuron = softmax ? EQK_SOFTMAX : EQK(neuron)();
        sum += layer->size;
        layer->weight = all, all += weights_of(layer);
        layer->bias = all, all += biases_of(layer);
        if (!softmax && layer->size <= 72 && draw(1) % 2)
            layer->lateral = all, all += layer->size * layer->size;
        if (!softmax && draw(1) % 4 == 3)
            layer->adaptation = currents[among(3)], layer->tau = taus[among(3)];
        layer->on_rate = last && !softmax && draw(1) % 4 == 3;
    }
    for (int64_t l = 1; l < count && anywhere; l++) {
        layers[l].weight = among(all - weights_of(layers + l) + 1);
        layers[l].bias = among(all - biases_of(layers + l) + 1);
        if (layers[l].lateral >= 0)
            layers[l].lateral = among(all - layers[l].size * layers[l].size + 1);
    }
    *inputs = layers[0].size, *classes = layers[count - 1].size, *rows = sum;
    job->count = count, job->parameter_count = all;
    if (spoil()) {
        eqk_layer *bad = layers + 1 + among(count - 1);
        int64_t *fields[] = {&bad->weight, &bad->bias, &bad->lateral, &bad->row, &bad->neuron, &bad->size, &job->count,
                             &job->parameter_count, &bad->height, &bad->kernel, &bad->padding, &bad->pool, &bad->window,
                             &bad->on_rate};
        int64_t field = among(16);
        if (field < 14)
            *fields[field] = wrong[among(4)];
        else
            bad->adaptation = field == 14 ? no_currents[among(3)] : 1, bad->tau = field == 14 ? 1 : no_currents[among(3)];
        *inputs = *classes = *rows = -1;
    }
    place = array(count, sizeof *place, 0);
    if (place)
        memcpy(place, layers, (size_t)count * sizeof *place);
    job->layers = place;
}

static void EQK(draw_settling)(EQK(job) * job) {
    static const double tolerances[] = {0, 1e-3, 1e3, INFINITY};
    eqk_schedule *s = &job->schedule;
    s->order = (int32_t)code(EQK_SYNCHRONOUS, EQK_SWEEP);
    s->step = s->order == EQK_EVEN_ODD && among(2) ? 1.5 : fraction();
    s->tolerance = spoil() ? (among(2) ? NAN : -1) : tolerances[among(4)];
    s->free_steps = steps(), s->nudged_steps = steps();
}

static void EQK(draw_nudge)(EQK(job) * job, int64_t classes) {
    static const double betas[] = {0.1, 1, 1e-3, 1e30, 1e-30}, wrong[] = {0, NAN, INFINITY, 1e-320};
    eqk_schedule *s = &job->schedule;
    int64_t outs = TIMES(job->batch, classes);
    s->form = (int32_t)code(EQK_STATE, EQK_MEAN_DIFFERENCE);
    s->nudge = s->form == EQK_STATE || s->form == EQK_STATES ? (int32_t)code(EQK_FROZEN, EQK_LIVE) : EQK_FROZEN;
    job->beta = spoil() ? wrong[among(sizeof(EQK_REAL) == 4 ? 4 : 3)] : betas[among(5)];
    if (s->form == EQK_STATE && among(2))
        job->beta = -job->beta;
    int before = broken;
    if (among(2) && !(job->target = REALS(outs)))
        broken = before; /* labels will do */
    before = broken;
    if (!job->target || among(2)) {
        int64_t *labels = array(outs < 0 ? -1 : job->batch, sizeof *labels, 0);
        if (!labels && job->target)
            broken = before;
        job->labels = labels;
        for (size_t b = 0; b < array_size / sizeof *labels; b++)
            labels[b] = among(classes);
        if (!job->target && array_size && spoil())
            labels[among(job->batch)] = among(2) ? -1 : classes;
    }
}

/* A number that is finite in the type, or one that is refused. */
static double EQK(finite)(void) {
    double x = number();
    broken |= !isfinite((EQK_REAL)x);
    return x;
}

static void EQK(draw_optimiser)(EQK(job) * job) {
    eqk_optimiser *o = &job->optimiser;
    int64_t all = job->parameter_count > LARGEST ? -1 : job->parameter_count;
    double power = 1;
    o->rule = (int32_t)code(EQK_GRADIENT, EQK_ADAM), o->rate = EQK(finite)(), o->decay = EQK(finite)();
    for (int i = 0; i < 7; i++)
        o->constants[i] = i == 4 && o->rule == EQK_ADAM ? (spoil() ? 0 : 1e-8) : EQK(finite)();
    if (!broken) {
        int64_t last = job->count - 1, top = job->layers[last].neuron == EQK_SOFTMAX ? last - 1 : last;
        for (int64_t l = 1; l < top; l++)
            power *= job->schedule.gamma;
        broken |= !isfinite((EQK_REAL)(1 / power));
    }
    if (o->rule == EQK_MOMENTUM || o->rule == EQK_ADAM)
        job->first = WRITES(all);
    if (o->rule == EQK_ADAM)
        job->second = WRITES(all);
}

/* A precision that the library can be asked for here, and a variant that has it. */
static void EQK(draw_precision)(EQK(job) * job) {
    static const int bad[] = {-1, EQK_BF16X3_AMX + 1, INT32_MAX};
    int single = sizeof(EQK_REAL) == 4, best = eqk_bf16x3();
    if (spoil())
        job->schedule.precision = among(2) || (single && best == EQK_BF16X3_AMX) ? bad[among(3)] : EQK_BF16X3_AMX;
    else if (single && best && among(2)) {
        job->schedule.precision = 1 + (int32_t)among(best);
        if (variant == EQK_SCALAR || variant == EQK_AVX2)
            variant = EQK_AUTO;
    }
}

/* The weights are packed before a phase, where it will not be refused. */
static eqk_status EQK(packed)(const EQK(job) * job) { return broken ? EQK_OK : EQK(pack)(job, 0, 1); }

/* Whole jobs are settled before they are measured. */
static eqk_status EQK(settled)(const EQK(job) * job, double *loss, int64_t *correct) {
    eqk_status status = EQK(packed)(job);
    if (!broken && !status)
        status = EQK(settle)(job, 0, EQK(tiles)(job));
    return status ? status : EQK(measure)(job, loss, correct);
}

/* Whether the numbers, n a sample, of tiles first..last - 1 are finite; with `mend` they become so. */
static int EQK(finite_samples)(const EQK(job) * job, const EQK_REAL *numbers, int64_t n, int64_t first, int64_t last,
                               int mend) {
    int64_t width = EQK_TILE / (int64_t)sizeof(EQK_REAL), end;
    int others = 0;
    for (int64_t l = 1; l < job->count; l++)
        if (job->layers[l].kernel) {
            width /= 2;
            break;
        }
    end = last * width < job->batch ? last * width : job->batch;
    for (int64_t i = first * width * n; i < end * n; i++)
        if (!isfinite(numbers[i])) {
            others++;
            if (mend)
                ((EQK_REAL *)numbers)[i] = 0;
        }
    return mend || !others;
}

/* Samples that are not finite are refused, but by eqk_measure, which does not look at them. */
static void EQK(judge_samples)(const EQK(job) * job, int which, int64_t first, int64_t last, int64_t tiles) {
    const eqk_layer *layers = job->layers;
    int all = which == MEASURE || which == TRAIN_STEP, fine = 1;
    first = all ? 0 : first, last = all ? tiles : last;
    if (which != NUDGED_PHASE)
        fine &= EQK(finite_samples)(job, job->x, layers[0].size, first, last, which == MEASURE);
    if (which != FREE_PHASE && job->target)
        fine &= EQK(finite_samples)(job, job->target, layers[job->count - 1].size, first, last, which == MEASURE);
    broken |= !fine;
}

/* A job that has what `which` needs, and nothing else. */
static void EQK(phases)(int which) {
    EQK(job) job = {0}, *place;
    int settles = which != UPDATE && which != PACK, nudges = settles && which != FREE_PHASE, learns = which >= UPDATE;
    int64_t inputs, classes, rows, tiles, first = 0, last = 0, parts = 1, part = 0;
    double *loss = 0;
    int64_t *correct = 0;
    EQK(draw_layers)(&job, &inputs, &classes, &rows);
    job.batch = size(draw(1) % 8 ? 5 : 70), job.version = spoil() ? 99 : EQK_ABI_VERSION;
    rows = TIMES(job.batch, rows), inputs = TIMES(job.batch, inputs), tiles = EQK(tiles)(&job);
    if (which != PACK)
        job.schedule.gamma = fraction();
    if (which != UPDATE)
        EQK(draw_precision)(&job);
    job.parameters = REALS(rows < 0 ? -1 : job.parameter_count);
    if (learns)
        writes(job.parameters, sizeof(EQK_REAL), 0);
    if (which != PACK)
        job.x = REALS(inputs);
    if (nudges || learns)
        job.mean = WRITES(rows), job.difference = WRITES(rows), job.winners = optional(rows, sizeof(EQK_REAL));
    if (nudges)
        EQK(draw_nudge)(&job, classes);
    if (learns)
        EQK(draw_optimiser)(&job);
    if (settles) {
        EQK(draw_settling)(&job);
        job.state = WRITES(rows);
        job.report = writes(array(rows < 0 ? -1 : 6 * tiles, sizeof(double), 1), sizeof(double), 0);
    }
    if (which == PACK || which == UPDATE)
        parts = spoil() ? bad_size() : 1 + among(4), part = parts > 0 && parts < 5 ? among(parts) : 0;
    if (which != UPDATE && (!broken || EQK(workspace)(&job)))
        job.work = EQK(work)(EQK(workspace)(&job), &job.work_size);
    if (which == UPDATE && EQK(update_workspace)(&job, parts))
        job.work = EQK(work)(EQK(update_workspace)(&job, parts), &job.work_size);
    if (rows > 0)
        first = among(tiles + 1), last = first + among(tiles + 1 - first);
    if (settles && which != MEASURE && which != TRAIN_STEP && spoil())
        last = among(2) ? first - 1 : tiles + 1;
    place = array(1, sizeof job, 0);
    if (settles && !broken)
        EQK(judge_samples)(&job, which, first, last, tiles);
    job.variant = variant;
    if (place)
        memcpy(place, &job, sizeof job);
    /* split factors are not for plain C: again with the variant that has them */
#define TWIN (variant == job.variant ? 0 : (variant = job.schedule.precision ? EQK_AVX512 : variant))
#define DO(call) (TWIN ? memcpy(&place->variant, &variant, sizeof variant) : 0, EQK(call))
#define PHASE(name) (DO(packed)(place) ? EQK_NOT_SUPPORTED : EQK(name)(place, first, last))
    if (which == MEASURE || which == TRAIN_STEP)
        loss = optional(1, sizeof *loss), correct = optional(1, sizeof *correct);
    switch (which) {
    case FREE_PHASE: TRY(PHASE(free_phase)); break;
    case NUDGED_PHASE: TRY(PHASE(nudged_phase)); break;
    case SETTLE: TRY(PHASE(settle)); break;
    case MEASURE: TRY_STEP(DO(settled)(place, loss, correct), 1); break;
    case PACK: TRY(DO(pack)(place, part, parts)); break;
    case UPDATE: TRY(DO(update)(place, part, parts)); break;
    default: TRY_STEP(DO(train_step)(place, loss, correct), 1);
    }
#undef TWIN
#undef DO
#undef PHASE
}

/* One of the functions. */
static void EQK(anything)(int which) {
    variant = draw_variant();
    if (which < 8)
        EQK(dense)(which);
    else if (which < 11)
        EQK(bias)(which - 8);
    else if (which < 16)
        EQK(neurons)(which - 11);
    else if (which < 19)
        EQK(diffusion)(which - 16);
    else if (which < 20)
        EQK(field)();
    else if (which < 25)
        EQK(conv)(which - 20);
    else
        EQK(phases)(which - 25);
}
