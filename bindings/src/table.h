/* The table of kernels that every variant fills, once for each type: the ABI calls through it. */
#ifndef TABLE_H
#define TABLE_H
#include "../include/eqkernel.h"

/* `phases`: those that a precision other than EQK_FULL has of its own. */
#define DECLARE_TABLE(real, job, table, phases) \
    typedef struct { \
        void (*pack)(const job *, int64_t part, int64_t parts); \
        void (*free_phase)(const job *, int64_t tile, int64_t place); \
        void (*nudged_phase)(const job *, int64_t tile, int64_t place); \
    } phases; \
    typedef struct { \
        void (*free_phase)(const job *, int64_t tile, int64_t place); \
        void (*nudged_phase)(const job *, int64_t tile, int64_t place); \
        void (*update)(const job *, int64_t part, int64_t parts); \
        void (*dense_energy)(real *, const real *, const real *, const real *, double, int64_t, int64_t, int64_t); \
        void (*dense_drive_post)(real *, const real *, const real *, double, int64_t, int64_t, int64_t, real *); \
        void (*dense_drive_pre)(real *, const real *, const real *, double, int64_t, int64_t, int64_t); \
        void (*dense_hebbian)(real *, const real *, const real *, double, int64_t, int64_t, int64_t); \
        void (*bias_energy)(real *, const real *, const real *, int64_t, int64_t); \
        void (*bias_drive_post)(real *, const real *, int64_t, int64_t); \
        void (*bias_hebbian)(real *, const real *, double, int64_t, int64_t); \
        void (*conv_energy)(real *, const real *, const real *, const real *, const int32_t *, const eqk_conv *, \
                            int64_t, real *); \
        void (*conv_drive_post)(real *, const real *, const real *, const int32_t *, const eqk_conv *, int64_t, real *); \
        void (*conv_drive_pre)(real *, const real *, const real *, const int32_t *, const eqk_conv *, int64_t, real *); \
        void (*conv_hebbian)(real *, const real *, const real *, double, const int32_t *, const eqk_conv *, int64_t, \
                             real *); \
        void (*conv_choose)(int32_t *, const real *, const real *, const eqk_conv *, int64_t, real *); \
        void (*neurons_rate)(real *, const real *, int64_t, int); \
        void (*neurons_relax)(real *, const real *, double, int64_t, int); \
        void (*neurons_difference)(real *, const real *, const real *, int64_t, int); \
        void (*neurons_softmax)(real *, const real *, int64_t, int64_t); \
        void (*diffusion_energy)(real *, const real *, const real *, double, int64_t, int64_t, int64_t, int); \
        void (*diffusion_drive_post)(real *, const real *, double, int64_t, int64_t, int64_t, int); \
        void (*diffusion_hebbian)(real *, const real *, const real *, double, int64_t, int64_t, int64_t, int); \
        void (*field_advance)(real *, const real *, const eqk_field *, int64_t, int64_t, int64_t, int, int64_t, \
                              int64_t, real *, real *); \
    } table; \
    extern const table table##_scalar, table##_avx2, table##_avx512, table##_avx512_intel;

DECLARE_TABLE(float, eqk_job_f32, eqk_kernels_f32, eqk_phases_f32)
DECLARE_TABLE(double, eqk_job_f64, eqk_kernels_f64, eqk_phases_f64)

extern const eqk_phases_f32 eqk_bf16x3_avx512, eqk_bf16x3_amx;

#endif
