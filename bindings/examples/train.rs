// A network learns XOR from Rust: the job of train.c, with the structures of eqkernel.h as `bindgen` would write them.
//
//     rustc --edition 2021 -O -L FOLDER bindings/examples/train.rs && LD_LIBRARY_PATH=FOLDER ./train
//
// FOLDER holds libeqkernel.so (`make install-c`, or the line in docs/c.md).
use std::ffi::{c_char, c_int, c_void, CStr};
use std::ptr::{null, null_mut};

const ABI_VERSION: i32 = 4;
const TANH: i64 = 2;
const LINEAR: i64 = 3;
const SOFTMAX: i64 = 4;
const SWEEP: i32 = 2;
const DIFFERENCE: i32 = 3;
const SGD: i32 = 1;

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Layer {
    size: i64,
    weight: i64,
    bias: i64,
    lateral: i64,
    neuron: i64,
    row: i64,
    height: i64,
    width: i64,
    channels: i64,
    kernel: i64,
    stride: i64,
    padding: i64,
    pool: i64,
    window: i64,
    on_rate: i64,
    adaptation: f64,
    tau: f64,
}

#[repr(C)]
#[derive(Default)]
struct Schedule {
    gamma: f64,
    step: f64,
    tolerance: f64,
    free_steps: i64,
    nudged_steps: i64,
    order: i32,
    form: i32,
    nudge: i32,
    precision: i32,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct Report {
    steps: f64,
    residual: f64,
    early: f64,
}

#[repr(C)]
#[derive(Default)]
struct Optimiser {
    rate: f64,
    decay: f64,
    constants: [f64; 7],
    rule: i32,
    unused: i32,
}

#[repr(C)]
struct Job {
    version: i32,
    variant: i32,
    layers: *const Layer,
    count: i64,
    parameter_count: i64,
    parameters: *mut f32,
    schedule: Schedule,
    beta: f64,
    batch: i64,
    x: *const f32,
    target: *const f32,
    labels: *const i64,
    state: *mut f32,
    mean: *mut f32,
    difference: *mut f32,
    winners: *mut f32,
    report: *mut Report,
    optimiser: Optimiser,
    first: *mut f32,
    second: *mut f32,
    work: *mut c_void,
    work_size: usize,
}

#[link(name = "eqkernel")]
extern "C" {
    fn eqk_abi_version() -> c_int;
    fn eqk_best_variant() -> c_int;
    fn eqk_variant_name(variant: c_int) -> *const c_char;
    fn eqk_status_text(status: c_int) -> *const c_char;
    fn eqk_tiles_f32(job: *const Job) -> i64;
    fn eqk_workspace_f32(job: *const Job) -> usize;
    fn eqk_free_phase_f32(job: *const Job, first: i64, last: i64) -> c_int;
    fn eqk_train_step_f32(job: *const Job, loss: *mut f64, correct: *mut i64) -> c_int;
}

fn text(name: *const c_char) -> String {
    // The library's names and sentences are constants that end in zero.
    unsafe { CStr::from_ptr(name) }.to_string_lossy().into_owned()
}

fn require(status: c_int) -> Result<(), String> {
    if status == 0 { Ok(()) } else { Err(text(unsafe { eqk_status_text(status) })) }
}

fn main() -> Result<(), String> {
    const INPUT: i64 = 2;
    const HIDDEN: i64 = 16;
    const OUTPUT: i64 = 2;
    const BATCH: usize = 4;
    const ROWS: usize = (HIDDEN + OUTPUT) as usize;
    if unsafe { eqk_abi_version() } != ABI_VERSION {
        return Err("the library has another version of the ABI than this example".into());
    }
    let (b1, w2) = (HIDDEN * INPUT, HIDDEN * INPUT + HIDDEN);
    let b2 = w2 + OUTPUT * HIDDEN;
    let none = Layer { weight: -1, bias: -1, lateral: -1, ..Layer::default() };
    let layers = [
        Layer { size: INPUT, neuron: LINEAR, ..none },
        Layer { size: HIDDEN, weight: 0, bias: b1, neuron: TANH, ..none },
        Layer { size: OUTPUT, weight: w2, bias: b2, neuron: SOFTMAX, row: HIDDEN, ..none },
    ];
    let x: [f32; 2 * BATCH] = [0.0, 0.0, 0.0, 1.0, 1.0, 0.0, 1.0, 1.0];
    let labels: [i64; BATCH] = [0, 1, 1, 0];
    let mut random = 1u32; // Numerical Recipes' generator: uniform in [-1, 1)
    let mut parameters: Vec<f32> = (0..b2 + OUTPUT)
        .map(|_| {
            random = random.wrapping_mul(1664525).wrapping_add(1013904223);
            (random >> 8) as f32 / 8388608.0 - 1.0
        })
        .collect();
    let (mut state, mut mean, mut difference) = ([0f32; BATCH * ROWS], [0f32; BATCH * ROWS], [0f32; BATCH * ROWS]);
    let mut report = [Report::default(); 2];
    let mut job = Job {
        version: ABI_VERSION,
        variant: 0,
        layers: layers.as_ptr(),
        count: layers.len() as i64,
        parameter_count: parameters.len() as i64,
        parameters: parameters.as_mut_ptr(),
        schedule: Schedule { // few-step, eqkernel's default
            gamma: 0.003, step: 1.0, free_steps: 3, nudged_steps: 1, order: SWEEP, form: DIFFERENCE,
            ..Schedule::default()
        },
        beta: 0.02,
        batch: BATCH as i64,
        x: x.as_ptr(),
        target: null(),
        labels: labels.as_ptr(),
        state: state.as_mut_ptr(),
        mean: mean.as_mut_ptr(),
        difference: difference.as_mut_ptr(),
        winners: null_mut(),
        report: report.as_mut_ptr(),
        optimiser: Optimiser { rate: 0.5, rule: SGD, ..Optimiser::default() },
        first: null_mut(),
        second: null_mut(),
        work: null_mut(),
        work_size: 0,
    };
    let (mut loss, mut correct) = (0f64, 0i64);
    job.work_size = unsafe { eqk_workspace_f32(&job) };
    let mut work = vec![0u64; job.work_size.div_ceil(8)];
    job.work = work.as_mut_ptr().cast();
    for _ in 0..500 {
        require(unsafe { eqk_train_step_f32(&job, &mut loss, &mut correct) })?;
    }
    require(unsafe { eqk_free_phase_f32(&job, 0, eqk_tiles_f32(&job)) })?;
    for b in 0..BATCH {
        // the readout is the last block of the states
        println!("{} xor {}: {:.3}", x[2 * b], x[2 * b + 1], state[BATCH * HIDDEN as usize + 2 * b + 1]);
    }
    let kernels = text(unsafe { eqk_variant_name(eqk_best_variant()) });
    println!("loss {loss:.4}, {correct} of {BATCH} right, {kernels} kernels");
    if correct == BATCH as i64 && loss < 0.05 { Ok(()) } else { Err("it has not learnt".into()) }
}
