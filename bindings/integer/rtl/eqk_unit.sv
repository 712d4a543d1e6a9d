// Equilibrium propagation unit: settles, responds and learns on chip, one sample a time, equal to eqk_int.c to the last bit
// (difference form, batches of one sample). NH lanes; every cycle one word of the memory serves all of them.
//
//   memory     words 0 .. NX-1 are the columns of w1, words NX .. NX+NO-1 the rows of w2; a lane owns MW bits of each
//   a step     reads the NO words of w2 once: every synapse carries its values both ways in the same cycle
//   learning   reads, changes and writes all NX + NO words
//
// cycles while busy, L = ceil(log2 NH), NH at least 2:
//   prediction  (NX + 5) + T_FREE (NO + L + 15)
//   training    (NX + 5) + (T_FREE + T_NUDGED) (NO + L + 15) + (NX + NO + 9)
//
// LEARN = 0 leaves out all that learns; words then hold weights, of 8 bits or (THRESHOLD > 0) 2 bits, instead of masters.
module eqk_unit #(
  parameter int NX = 65, NH = 16, NO = 10, T_FREE = 20, T_NUDGED = 8,
  parameter int LEAK = 1, FRAC = 7, BETA = 1, GAMMA = 0, SHIFT1 = 6, SHIFT2 = 6, THRESHOLD = 0, STOCHASTIC = 1,
  parameter int RATE1 = 10, RATE2 = 10, LEARN = 1,
  parameter int MW = LEARN != 0 ? 16 : THRESHOLD > 0 ? 2 : 8,
  parameter int WORDS = NX + NO, CW = $clog2(WORDS + 64), XW = NX > 1 ? $clog2(NX) : 1, OW = NO > 1 ? $clog2(NO) : 1
) (
  input  logic clk, reset,
  input  logic start, train,
  output logic busy, done,
  output logic [OW-1:0] label,                  // of the largest output
  output logic signed [15:0] score,             // its state
  output logic unsettled, stuck, clipped,       // of this sample: as eqk_int_report counts
  output logic [31:0] cycles,
  // while not busy: inputs, targets, memory and the counter of the noise
  input  logic x_write, t_write, word_write, noise_write,
  input  logic [CW-1:0] address,
  input  logic signed [7:0] byte_in,
  input  logic [31:0] noise_in,                 // batch number times (NX + NO)
  input  logic [NH*MW-1:0] word_in,
  output logic [NH*MW-1:0] word_out             // three cycles after its address
);
  localparam int MOST = NX > NH ? (NX > NO ? NX : NO) : (NH > NO ? NH : NO);
  localparam int AW = (THRESHOLD > 0 ? 9 : 15) + $clog2(MOST);
  localparam int LEFT1 = FRAC > SHIFT1 ? FRAC - SHIFT1 : 0, LEFT2 = FRAC > SHIFT2 ? FRAC - SHIFT2 : 0;
  localparam int WIDE = AW + (LEFT1 > LEFT2 ? LEFT1 : LEFT2) + 2, DW = WIDE > FRAC + 11 ? WIDE : FRAC + 11;
  localparam int PW = LEARN != 0 ? 24 : THRESHOLD > 0 ? 9 : 16;
  localparam int L = $clog2(NH), STEP_CYCLES = NO + L + 15, DRIVE_CYCLES = NX + 5, LEARN_CYCLES = WORDS + 9;

  typedef enum logic [1:0] {IDLE, DRIVE, STEP, LEARNING} phase_t;
  phase_t phase;
  logic [CW-1:0] count;
  logic [15:0] steps;
  logic nudged, first, training;

  // ---- sequencer ---------------------------------------------------------------------------------------------------
  logic last_step, end_drive, end_step, end_learning, finish;
  always_comb begin
    last_step = steps == 16'((nudged ? T_NUDGED : T_FREE) - 1);
    end_drive = phase == DRIVE && count == CW'(DRIVE_CYCLES - 1);
    end_step = phase == STEP && count == CW'(STEP_CYCLES - 1);
    end_learning = phase == LEARNING && count == CW'(LEARN_CYCLES - 1);
    finish = end_learning || (end_step && last_step && !training);
  end
  always_ff @(posedge clk) begin
    done <= finish;
    count <= count + 1'b1;
    if (busy) cycles <= cycles + 1;
    if (end_drive || end_step) count <= '0;
    if (end_drive) phase <= STEP;
    if (end_step) begin
      first <= last_step;
      steps <= last_step ? '0 : steps + 1'b1;
      if (last_step) nudged <= 1'b1;
      if (last_step && nudged) phase <= LEARNING;
    end
    if (phase == IDLE && start) begin
      phase <= DRIVE; busy <= 1'b1; cycles <= 0; count <= '0; steps <= '0; first <= 1'b1; nudged <= 1'b0;
      training <= train && LEARN != 0;
    end
    if (finish || reset) begin
      phase <= IDLE; busy <= 1'b0;
    end
    if (reset) done <= 1'b0;
  end

  // ---- memory: a word every cycle, and its registers ---------------------------------------------------------------------
  logic [NH*MW-1:0] memory [0:WORDS-1];
  logic [NH*MW-1:0] word_1, word_2, word_back;
  logic [CW-1:0] at, write_at, at_now [1:9]; // the address a word had when it entered, 1 to 9 cycles ago
  logic issue, write;
  logic [9:1] issued;
  integer k;
  always_comb begin
    case (phase)
      DRIVE: begin at = count; issue = count < CW'(NX); end
      STEP: begin at = CW'(NX) + count; issue = count < CW'(NO); end
      LEARNING: begin at = count; issue = count < CW'(WORDS); end
      default: begin at = address; issue = 1'b0; end
    endcase
    write = busy ? issued[9] && learning : word_write;
    write_at = busy ? at_now[9] : address;
  end
  always_ff @(posedge clk) begin
    at_now[1] <= at < CW'(WORDS) ? at : '0;
    for (k = 2; k <= 9; k = k + 1) at_now[k] <= at_now[k-1];
    issued <= {issued[8:1], issue};
    if (write) memory[write_at] <= busy ? word_back : word_in;
    word_1 <= memory[at_now[1]];
    word_2 <= word_1;
  end
  assign word_out = word_2;

  // ---- inputs and outputs: small memories, read with the word ---------------------------------------------------------------
  logic signed [7:0] x [0:NX-1];
  logic signed [7:0] t [0:NO-1];
  logic signed [7:0] sent_o [0:NO-1];
  logic signed [7:0] sent_c [0:NO-1];
  logic signed [15:0] o [0:NO-1];
  logic signed [15:0] c [0:NO-1];
  logic signed [FRAC+8:0] drive_o [0:NO-1];
  logic signed [7:0] x_2, y_2, value_3;
  logic signed [15:0] c_2, c_3;
  logic [OW-1:0] out; // the output whose word is read
  logic of_w2, of_w2_2, of_w2_3;
  always_ff @(posedge clk) begin
    if (x_write) x[address[XW-1:0]] <= byte_in;
    if (t_write) t[address[OW-1:0]] <= byte_in;
    of_w2 <= at >= CW'(NX);
    out <= at >= CW'(NX) && at < CW'(WORDS) ? OW'(at - CW'(NX)) : '0;
    x_2 <= x[of_w2 ? '0 : at_now[1][XW-1:0]];
    y_2 <= phase == STEP && first ? 8'sd0 : phase == STEP && nudged ? sent_c[out] : sent_o[out];
    c_2 <= c[out];
    of_w2_2 <= of_w2; of_w2_3 <= of_w2_2;
    value_3 <= of_w2_2 ? y_2 : x_2;
    c_3 <= c_2;
  end

  // ---- the lanes ------------------------------------------------------------------------------------------------------------
  logic [31:0] noise_count, noise;
  logic clear_lanes, load_lanes, keep_lanes, kept_lanes, left, learning;
  logic [NH*PW-1:0] upward;
  logic [NH-1:0] lane_clipped, lane_felt, lane_moving;
  eqk_noise noise_unit (.clk, .word(noise_count), .noise);
  always_ff @(posedge clk) begin
    if (noise_write) noise_count <= noise_in;
    else if (phase == LEARNING && count < CW'(WORDS)) noise_count <= noise_count + 1'b1;
  end
  always_ff @(posedge clk) begin
    clear_lanes <= count == 0;
    load_lanes <= end_drive;
    keep_lanes <= phase == STEP && count == CW'(NO + 13);
    learning <= phase == LEARNING;
  end
  genvar i;
  generate
    for (i = 0; i < NH; i = i + 1) begin : lanes
      logic signed [15:0] learnt;
      eqk_lane #(.LANE(i), .AW(AW), .DW(DW), .MW(MW), .PW(PW), .LEARN(LEARN), .LEAK(LEAK), .FRAC(FRAC), .BETA(BETA),
                 .GAMMA(GAMMA), .SHIFT1(SHIFT1), .SHIFT2(SHIFT2), .THRESHOLD(THRESHOLD), .STOCHASTIC(STOCHASTIC),
                 .RATE1(RATE1), .RATE2(RATE2))
      lane (.clk, .nudged, .first, .learning, .second(of_w2_3), .clear(clear_lanes), .valid(issued[5] && !learning),
            .load(load_lanes), .keep(keep_lanes), .master(word_2[i*MW+:MW]), .value(value_3),
            .response(c_3), .noise, .upward(upward[i*PW+:PW]), .learnt, .clipped(lane_clipped[i]), .felt(lane_felt[i]),
            .moving(lane_moving[i]));
      assign word_back[i*MW+:MW] = MW'(learnt);
    end
  endgenerate

  // ---- the output neurons: one pipeline, a neuron a cycle as their sums leave the tree ------------------------------------------
  localparam int D = L + 5; // from the word's address to the sum
  logic signed [AW-1:0] sum_o;
  logic [OW-1:0] enter, leave;
  logic enters, entered, leaves;
  logic signed [DW-1:0] error;
  logic signed [15:0] state_o, next_o;
  logic signed [FRAC+8:0] drive_before, drive_after;
  logic signed [7:0] sent_after;
  logic moving_o;
  eqk_tree #(.N(NH), .IW(PW), .OW(AW)) tree (.clk, .values(upward), .sum(sum_o));
  always_ff @(posedge clk) begin // enters: the cycle before a sum arrives; leaves: 9 cycles after it has
    enters <= phase == STEP && count >= CW'(D - 2) && count < CW'(D - 2 + NO);
    enter <= phase == STEP && count >= CW'(D - 2) && count < CW'(D - 2 + NO) ? OW'(count - CW'(D - 2)) : '0;
    entered <= enters;
    leaves <= phase == STEP && count >= CW'(D + 8) && count < CW'(D + 8 + NO);
    leave <= phase == STEP && count >= CW'(D + 8) && count < CW'(D + 8 + NO) ? OW'(count - CW'(D + 8)) : '0;
    error <= nudged ? (DW'(t[enter]) <<< FRAC) - DW'(o[enter]) : '0;
    state_o <= first ? 16'sd0 : nudged ? c[enter] : o[enter];
    drive_before <= drive_o[enter];
  end
  eqk_neuron #(.AW(AW), .DW(DW), .FREE_SHIFT(SHIFT2), .NUDGED_SHIFT(SHIFT2 + GAMMA), .LEAK(LEAK), .FRAC(FRAC), .BETA(BETA))
  neuron (.clk, .nudged, .sum(sum_o), .base(error), .state(state_o), .drive(drive_before), .state_next(next_o),
          .drive_next(drive_after), .sent(sent_after), .moving(moving_o));
  always_ff @(posedge clk) if (leaves) begin
    drive_o[leave] <= drive_after;
    if (nudged) begin
      c[leave] <= next_o;
      sent_c[leave] <= sent_after;
    end else begin
      o[leave] <= next_o;
      sent_o[leave] <= sent_after;
    end
  end

  // ---- label and report -----------------------------------------------------------------------------------------------------------
  localparam logic signed [DW-1:0] WRONG = (127 << FRAC) >> 1;
  logic wrong, felt, free_end;
  assign free_end = phase == STEP && !nudged && last_step;
  always_ff @(posedge clk) begin
    left <= leaves;
    kept_lanes <= keep_lanes;
    if (free_end && leaves && (leave == 0 || next_o > score)) begin
      label <= leave;
      score <= next_o;
    end
    if (phase == IDLE && start) begin
      unsettled <= 1'b0; wrong <= 1'b0; felt <= 1'b0; stuck <= 1'b0; clipped <= 1'b0;
    end else begin
      if (free_end && ((left && moving_o) || (kept_lanes && |lane_moving))) unsettled <= 1'b1;
      if (nudged && entered && (error > WRONG || error < -WRONG)) wrong <= 1'b1;
      if (learning && issued[7] && |lane_felt) felt <= 1'b1;
      if (learning && issued[9] && |lane_clipped) clipped <= 1'b1;
      if (end_learning) stuck <= wrong && !felt;
    end
  end
endmodule
