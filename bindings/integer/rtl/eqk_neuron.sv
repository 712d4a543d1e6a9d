// One neuron's step, a pipeline of 9 cycles: R4, R8 (or the clamp of the free phase) and R7 of eqk_int.h.
// Both phases use the same adders: the free phase is the secant's upper branch with v = 0.
module eqk_neuron #(
  parameter int AW = 24,            // width of an accumulator
  parameter int DW = 28,            // width of a drive
  parameter int FREE_SHIFT = 6,     // shift of R4 in the free phase
  parameter int NUDGED_SHIFT = 6,   // and in the nudged phase
  parameter int LEAK = 1,
  parameter int FRAC = 7,
  parameter int BETA = 1,
  parameter int STREAM = 1          // 0: the inputs hold still while a step runs, and need no delays
) (
  input  logic clk,
  input  logic nudged,                    // which phase: constant while a value is under way
  input  logic signed [AW-1:0] sum,       // accumulator
  input  logic signed [DW-1:0] base,      // what is added to it: input drive or error
  input  logic signed [15:0] state,       // state or response before the step
  input  logic signed [FRAC+8:0] drive,   // drive of the last free step, clamped to [-SMAX, 2 SMAX]
  output logic signed [15:0] state_next,
  output logic signed [FRAC+8:0] drive_next,
  output logic signed [7:0] sent,         // what others will see of state_next
  output logic moving                     // a cycle later: state_next is over 2^FRAC from the rate of its drive
);
  localparam int UW = FRAC + 9, PW = UW + BETA + 1;
  localparam logic signed [DW-1:0] SMAX = 127 << FRAC;
  localparam logic signed [PW-1:0] TOP = PW'(127) << (FRAC + BETA);
  localparam logic signed [16:0] HALF = LEAK > 0 ? 17'(1 << LEAK) >> 1 : 0;
  localparam logic signed [16:0] HALF_SENT = FRAC > 0 ? 17'(1 << FRAC) >> 1 : 0;

  function automatic logic signed [DW-1:0] scale(input logic signed [AW-1:0] a, input int n);
    logic signed [DW-1:0] wide;
    begin
      wide = a;
      if (n <= FRAC) scale = wide <<< (FRAC - n);
      else if (n - FRAC >= AW) scale = '0;  // less than half: the half itself would not fit
      else scale = (wide + (DW'(1) <<< (n - FRAC - 1))) >>> (n - FRAC);
    end
  endfunction
  function automatic logic signed [PW-1:0] rate(input logic signed [PW-1:0] v);
    rate = v < 0 ? '0 : v > TOP ? TOP : v;
  endfunction

  logic signed [DW-1:0] scaled, total, base_1;
  logic signed [UW-1:0] u, drive_2, u_8;
  logic signed [FRAC+7:0] v;
  logic signed [PW-1:0] plus, minus, high, low, gap;
  logic signed [16:0] goal, goal_7, goal_8, move, way;
  logic signed [15:0] s_6, s_7, s_8;
  logic signed [16:0] rounded;

  always_comb begin
    gap = high - low;
    rounded = s_8 + HALF_SENT;
  end

  generate // what the later stages need of the earlier ones
    if (STREAM != 0) begin : delay
      logic signed [15:0] s [1:7];
      logic signed [UW-1:0] d [1:2];
      logic signed [UW-1:0] w [4:8];
      integer k;
      always_ff @(posedge clk) begin
        s[1] <= state;
        d[1] <= drive;
        d[2] <= d[1];
        w[4] <= u;
        for (k = 2; k <= 7; k = k + 1) s[k] <= s[k-1];
        for (k = 5; k <= 8; k = k + 1) w[k] <= w[k-1];
      end
      assign s_6 = s[6];
      assign s_7 = s[7];
      assign drive_2 = d[2];
      assign u_8 = w[8];
    end else begin : hold
      assign s_6 = state;
      assign s_7 = state;
      assign drive_2 = drive;
      assign u_8 = u;
    end
  endgenerate

  always_ff @(posedge clk) begin
    // 1: R4
    scaled <= nudged ? scale(sum, NUDGED_SHIFT) : scale(sum, FREE_SHIFT);
    base_1 <= base;
    // 2: drive u of the free phase, v of the nudged one
    total <= scaled + base_1;
    // 3: clamp
    u <= nudged ? drive_2 : total < -SMAX ? -SMAX[UW-1:0] : total > 2 * SMAX ? {SMAX[UW-2:0], 1'b0} : total[UW-1:0];
    v <= !nudged ? '0 : total < -SMAX ? -SMAX[FRAC+7:0] : total > SMAX ? SMAX[FRAC+7:0] : total[FRAC+7:0];
    // 4: u + beta v and u - beta v, times 2^BETA
    plus <= (PW'(u) <<< BETA) + PW'(v);
    minus <= (PW'(u) <<< BETA) - PW'(v);
    // 5: the hard sigmoid of both
    high <= rate(plus);
    low <= rate(minus);
    // 6: where the step leads to
    goal <= nudged ? 17'(gap >>> 1) : 17'(high >>> BETA);
    // 7 and 8: R7
    move <= goal - s_6 + HALF;
    goal_7 <= goal;
    s_8 <= LEAK > 0 ? 16'(s_7 + (move >>> LEAK)) : goal_7[15:0];
    goal_8 <= goal_7;
    // 9: R5, and 10
    way <= goal_8 - s_8;
    sent <= 8'(rounded >>> FRAC);
    state_next <= s_8;
    drive_next <= u_8;
    moving <= way > (17'sd1 <<< FRAC) || way < -(17'sd1 <<< FRAC);
  end
endmodule
