# A network learns XOR from Julia: the job of train.c, with the structures of eqkernel.h field by field.
#
#     LD_LIBRARY_PATH=FOLDER julia bindings/examples/train.jl
#
# FOLDER holds libeqkernel.so (`make install-c`, or the line in docs/c.md).
using Printf

const lib = "libeqkernel"
const ABI_VERSION = 4
const TANH, LINEAR, SOFTMAX = 2, 3, 4
const SWEEP = 2
const DIFFERENCE = 3
const SGD = 1

Base.@kwdef struct Layer
    size::Int64
    weight::Int64 = -1
    bias::Int64 = -1
    lateral::Int64 = -1
    neuron::Int64
    row::Int64 = 0
    height::Int64 = 0
    width::Int64 = 0
    channels::Int64 = 0
    kernel::Int64 = 0
    stride::Int64 = 0
    padding::Int64 = 0
    pool::Int64 = 0
    window::Int64 = 0
    on_rate::Int64 = 0
    adaptation::Float64 = 0
    tau::Float64 = 0
end

Base.@kwdef struct Schedule
    gamma::Float64
    step::Float64
    tolerance::Float64 = 0
    free_steps::Int64
    nudged_steps::Int64
    order::Int32
    form::Int32
    nudge::Int32 = 0
    precision::Int32 = 0
end

struct Report
    steps::Float64
    residual::Float64
    early::Float64
end

Base.@kwdef struct Optimiser
    rate::Float64
    decay::Float64 = 0
    constants::NTuple{7,Float64} = ntuple(_ -> 0.0, 7)
    rule::Int32
    unused::Int32 = 0
end

Base.@kwdef mutable struct Job # `work` is filled in once its size is known
    version::Int32 = ABI_VERSION
    variant::Int32 = 0
    layers::Ptr{Layer}
    count::Int64
    parameter_count::Int64
    parameters::Ptr{Float32}
    schedule::Schedule
    beta::Float64
    batch::Int64
    x::Ptr{Float32}
    target::Ptr{Float32} = C_NULL
    labels::Ptr{Int64}
    state::Ptr{Float32}
    mean::Ptr{Float32}
    difference::Ptr{Float32}
    winners::Ptr{Float32} = C_NULL
    report::Ptr{Report}
    optimiser::Optimiser
    first::Ptr{Float32} = C_NULL
    second::Ptr{Float32} = C_NULL
    work::Ptr{Cvoid} = C_NULL
    work_size::Csize_t = 0
end

require(status) = status == 0 || error(unsafe_string(@ccall lib.eqk_status_text(status::Cint)::Cstring))

function main()
    input, hidden, output, batch = 2, 16, 2, 4
    version = @ccall lib.eqk_abi_version()::Cint
    version == ABI_VERSION || error("the library has another version of the ABI than this example")
    b1 = hidden * input
    w2 = b1 + hidden
    b2 = w2 + output * hidden
    layers = [
        Layer(size = input, neuron = LINEAR),
        Layer(size = hidden, weight = 0, bias = b1, neuron = TANH),
        Layer(size = output, weight = w2, bias = b2, neuron = SOFTMAX, row = hidden),
    ]
    x = Float32[0 0 1 1; 0 1 0 1] # columns lie one after the other: (n, B) here is (B, n) in C
    labels = Int64[0, 1, 1, 0]
    parameters = zeros(Float32, b2 + output)
    random = 0x00000001 # Numerical Recipes' generator: uniform in [-1, 1)
    for i in eachindex(parameters)
        random = (random * 1664525 + 1013904223) % UInt32
        parameters[i] = Float32(random >> 8) / 8388608 - 1
    end
    state, mean, difference = (zeros(Float32, batch * (hidden + output)) for _ in 1:3)
    report = Vector{Report}(undef, 2)
    loss, correct = Ref(0.0), Ref(Int64(0))
    GC.@preserve layers x labels parameters state mean difference report begin # the job holds pointers, no references
        job = Job(
            layers = pointer(layers), count = length(layers),
            parameters = pointer(parameters), parameter_count = length(parameters),
            schedule = Schedule( # few-step, eqkernel's default
                gamma = 0.003, step = 1, free_steps = 3, nudged_steps = 1, order = SWEEP, form = DIFFERENCE),
            beta = 0.02, batch = batch, x = pointer(x), labels = pointer(labels),
            state = pointer(state), mean = pointer(mean), difference = pointer(difference), report = pointer(report),
            optimiser = Optimiser(rate = 0.5, rule = SGD))
        job.work_size = @ccall lib.eqk_workspace_f32(job::Ref{Job})::Csize_t
        work = Vector{UInt8}(undef, job.work_size)
        GC.@preserve work begin
            job.work = pointer(work)
            for _ in 1:500
                require(@ccall lib.eqk_train_step_f32(job::Ref{Job}, loss::Ref{Float64}, correct::Ref{Int64})::Cint)
            end
            tiles = @ccall lib.eqk_tiles_f32(job::Ref{Job})::Int64
            require(@ccall lib.eqk_free_phase_f32(job::Ref{Job}, 0::Int64, tiles::Int64)::Cint)
        end
    end
    readout = reshape(state[batch * hidden + 1:end], output, batch) # the last block of the states
    for b in 1:batch
        @printf("%d xor %d: %.3f\n", x[1, b], x[2, b], readout[2, b])
    end
    best = @ccall lib.eqk_best_variant()::Cint
    kernels = unsafe_string(@ccall lib.eqk_variant_name(best::Cint)::Cstring)
    @printf("loss %.4f, %d of %d right, %s kernels\n", loss[], correct[], batch, kernels)
    correct[] == batch && loss[] < 0.05 || error("it has not learnt")
end

main()
