/* Test bench of a port: repeats a file of vectors/ and stops, with a status other than 0, at the first difference.
 *
 *   cc -std=c99 $(the -D options of the file's first line) check_vectors.c eqk_int.c -o check && ./check vectors/NAME.txt
 *
 * It runs unattended, so an HLS tool can take it for its C simulation and co-simulation. */
#include <stdio.h>
#include <string.h>
#include "eqk_int.h"

static const int config[] = {EQK_NX,     EQK_NH,        EQK_NO,         EQK_T_FREE, EQK_T_NUDGED,
                             EQK_LEAK,   EQK_FRAC,      EQK_BETA,       EQK_GAMMA,  EQK_SHIFT1,
                             EQK_SHIFT2, EQK_THRESHOLD, EQK_STOCHASTIC, EQK_INT_DIFFERENCE};
#define CONFIG_SIZE (int)(sizeof config / sizeof config[0])

static eqk_masters masters;
static eqk_workspace work; /* its report counts through all cases */
static int8_t x[EQK_BATCH_MAX * EQK_NX], t[EQK_BATCH_MAX * EQK_NO];
static FILE *file;
static long long case_number, sample_number;

static int should(const char *what) {
    printf("case %lld, sample %lld: the file should say %s here\n", case_number, sample_number, what);
    return 1;
}

static int word(const char *expected) { /* 0 if the next word is `expected` */
    char found[32];
    return fscanf(file, "%31s", found) == 1 && strcmp(found, expected) == 0 ? 0 : should(expected);
}

static int number(long long *value) { /* wider than the batch, for which a long may be too short */
    return fscanf(file, "%lld", value) == 1 ? 0 : should("another number");
}

static int compare(const char *what, int index, long long got) { /* 0 if the next number is `got` */
    long long expected;
    if (number(&expected)) return 1;
    if (expected == got) return 0;
    printf("case %lld, sample %lld, %s[%d]: expected %lld, got %lld\n", case_number, sample_number, what, index, expected,
           got);
    return 1;
}

static int row(const char *name, long long *values, int n) { /* 0 if the word `name` and n numbers are next */
    int at;
    if (word(name)) return 1;
    for (at = 0; at < n; at++)
        if (number(&values[at])) return 1;
    return 0;
}

#define COMPARE(name, array, size)                       \
    do {                                                 \
        int at;                                          \
        if (word(name)) return 1;                        \
        for (at = 0; at < (size); at++)                  \
            if (compare(name, at, (array)[at])) return 1; \
    } while (0)

static int check_sample(int k) {
    eqk_int_report unused = {0, 0, 0, 0};
    eqk_state state;
    eqk_ends ends;
    long long value[EQK_NX + EQK_NO];
    int j;
    if (row("x", value, EQK_NX)) return 1;
    for (j = 0; j < EQK_NX; j++) x[k * EQK_NX + j] = (int8_t)value[j];
    if (row("t", value, EQK_NO)) return 1;
    for (j = 0; j < EQK_NO; j++) t[k * EQK_NO + j] = (int8_t)value[j];
    eqk_sample(&work.weights, x + k * EQK_NX, t + k * EQK_NO, &state, &ends, &work.trace, &unused);
    COMPARE("h", state.h, EQK_NH);
    COMPARE("o", state.o, EQK_NO);
    COMPARE("a", ends.a, EQK_NH);
    COMPARE("p", ends.p, EQK_NO);
    COMPARE("q", ends.q, EQK_NH);
    COMPARE("r", ends.r, EQK_NO);
    COMPARE("s", ends.s, EQK_NH);
    return 0;
}

static int check_samples(int n, int repeated) { /* repeated: one sample stands for n */
    int k;
    for (k = 0; k < n; k++) {
        sample_number = k;
        if (k > 0 && repeated) {
            memcpy(x + k * EQK_NX, x, EQK_NX);
            memcpy(t + k * EQK_NO, t, EQK_NO);
        } else if (check_sample(k))
            return 1;
    }
    return 0;
}

static int check_case(void) {
    char kind[32];
    long long head[4]; /* number of the batch, rates of w1 and w2, samples */
    long long value[EQK_NX > EQK_NH ? EQK_NX : EQK_NH];
    uint32_t counts[4];
    int32_t label[EQK_BATCH_MAX];
    int i, j, n, status;
    if (word("case")) return 1;
    if (fscanf(file, "%31s", kind) != 1) return should("a kind");
    if (row("batch", head, 4)) return 1;
    if (head[3] < 1 || head[3] > EQK_BATCH_MAX) return should("1 to 255 samples");
    n = (int)head[3];
    for (i = 0; i < EQK_NH; i++) {
        if (row("w1", value, EQK_NX)) return 1;
        for (j = 0; j < EQK_NX; j++) masters.w1[i][j] = (int16_t)value[j];
    }
    for (j = 0; j < EQK_NO; j++) {
        if (row("w2", value, EQK_NH)) return 1;
        for (i = 0; i < EQK_NH; i++) masters.w2[j][i] = (int16_t)value[i];
    }
    eqk_quantise(&masters, &work.weights);
    for (i = 0; i < EQK_NH; i++) COMPARE("weight1", work.weights.w1[i], EQK_NX);
    for (j = 0; j < EQK_NO; j++) COMPARE("weight2", work.weights.w2[j], EQK_NH);
    if (check_samples(n, strcmp(kind, "long") == 0)) return 1;
    if (eqk_predict(&masters, x, n, label, &work) != EQK_INT_OK) {
        printf("case %lld: eqk_predict failed\n", case_number);
        return 1;
    }
    COMPARE("labels", label, n);
    status = eqk_train(&masters, x, t, n, (int)head[1], (int)head[2], (uint32_t)head[0], &work);
    for (i = 0; i < EQK_NH; i++) COMPARE("after1", masters.w1[i], EQK_NX);
    for (j = 0; j < EQK_NO; j++) COMPARE("after2", masters.w2[j], EQK_NH);
    COMPARE("status", &status, 1);
    counts[0] = work.report.samples;
    counts[1] = work.report.unsettled;
    counts[2] = work.report.stuck;
    counts[3] = work.report.clipped;
    COMPARE("report", counts, 4);
    return 0;
}

static int check_head(long long *cases) { /* the first line: -D options, then "cases" and their number */
    char option[64];
    int at = 0, value;
    while (fscanf(file, "%63s", option) == 1 && strcmp(option, "cases") != 0) {
        const char *equals = strchr(option, '=');
        if (!equals || sscanf(equals + 1, "%d", &value) != 1 || at >= CONFIG_SIZE || value != config[at]) {
            printf("compiled for another config: the file wants %s\n", option);
            return 1;
        }
        at++;
    }
    if (at == CONFIG_SIZE && fscanf(file, "%lld", cases) == 1 && *cases > 0) return 0;
    printf("the first line should be %d options, 'cases' and how many, at least 1\n", CONFIG_SIZE);
    return 1;
}

int main(int count, char **arguments) {
    long long cases;
    char more[2];
    if (count != 2 || !(file = fopen(arguments[1], "r"))) {
        printf("usage: check vectors/NAME.txt\n");
        return 2;
    }
    if (check_head(&cases)) return 2;
    for (case_number = 0; case_number < cases; case_number++) {
        sample_number = -1;
        if (check_case()) return 1;
    }
    if (fscanf(file, "%1s", more) == 1) return should("nothing more");
    fclose(file);
    printf("%s: %lld cases equal\n", arguments[1], cases);
    return 0;
}
