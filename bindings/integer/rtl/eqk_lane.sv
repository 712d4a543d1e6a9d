// One hidden neuron and its synapses. Of each word of masters that passes it takes one, makes it a weight, and multiplies:
//   settling   w times the value that comes from the other end, summed here; w times its own value, summed by the tree
//   learning   the two products of the synapse's trace, and the master's new value
module eqk_lane #(
  parameter int LANE = 0, AW = 24, DW = 28, MW = 16, PW = 24, LEARN = 1,
  parameter int LEAK = 1, FRAC = 7, BETA = 1, GAMMA = 0, SHIFT1 = 6, SHIFT2 = 6, THRESHOLD = 0, STOCHASTIC = 1,
  parameter int RATE1 = 10, RATE2 = 10
) (
  input  logic clk,
  input  logic nudged, first,            // phase, and whether this is its first step
  input  logic learning, second,         // the trace of a weight, and whether of w2
  input  logic clear, valid, load, keep, // empty the sum; add a product; take the input drive; take the step's result
  input  logic signed [MW-1:0] master,   // 3: its part of the word
  input  logic signed [7:0] value,       // 3: x[j], or what output j sends
  input  logic signed [15:0] response,   // 3: response of output j
  input  logic [31:0] noise,             // 6
  output logic signed [PW-1:0] upward,   // 5: for the tree
  output logic signed [15:0] learnt,     // 9
  output logic clipped, felt,            // 9, 7
  output logic moving
);
  localparam int GW = 26;

  // 4: operands
  logic signed [7:0] weight;
  logic signed [15:0] left, left_own;
  logic signed [7:0] right, right_own;
  logic signed [15:0] state;             // h, then c_h
  logic signed [7:0] sent, sent_free;    // what is sent now, and what the free state sent
  generate
    if (MW == 16) begin : from_master
      logic signed [16:0] q;
      always_comb begin
        q = (17'(master) + 17'sd128) >>> 8;
        if (THRESHOLD > 0) weight = q > THRESHOLD ? 8'sd1 : q < -THRESHOLD ? -8'sd1 : 8'sd0;
        else weight = q > 127 ? 8'sd127 : q < -127 ? -8'sd127 : q[7:0];
      end
    end else begin : stored
      always_comb weight = 8'(master);
    end
  endgenerate
  always_ff @(posedge clk) begin
    left <= !learning ? 16'(weight) : second ? response : state;
    right <= learning && second ? sent_free : value;
    left_own <= !learning ? 16'(weight) : second ? 16'(state >>> GAMMA) : 16'sd0;
    right_own <= learning ? value : first ? 8'sd0 : sent;
  end

  // 5: products; without learning a ternary weight needs no multiplier
  logic signed [PW-1:0] product;
  generate
    if (LEARN == 0 && THRESHOLD > 0) begin : add_or_subtract
      always_ff @(posedge clk) begin
        product <= left == 0 ? '0 : left < 0 ? -(PW'(right)) : PW'(right);  // yosys reads -PW'( as (-PW)'(
        upward <= left_own == 0 ? '0 : left_own < 0 ? -(PW'(right_own)) : PW'(right_own);
      end
    end else begin : multiply
      always_ff @(posedge clk) begin
        product <= left * right;
        upward <= left_own * right_own;
      end
    end
  endgenerate

  // 6: the sum of what comes from the other ends
  logic signed [AW-1:0] sum;
  logic signed [DW-1:0] drive_in, wide;
  always_comb wide = DW'(sum);
  always_ff @(posedge clk) begin
    if (clear) sum <= '0;
    else if (valid) sum <= sum + AW'(product);
    if (load) begin
      if (SHIFT1 <= FRAC) drive_in <= wide <<< (FRAC > SHIFT1 ? FRAC - SHIFT1 : 0);
      else if (SHIFT1 - FRAC >= AW) drive_in <= '0;  // as in eqk_neuron
      else drive_in <= (wide + (DW'(1) <<< (SHIFT1 > FRAC ? SHIFT1 - FRAC - 1 : 0))) >>> (SHIFT1 > FRAC ? SHIFT1 - FRAC : 0);
    end
  end

  // the step
  logic signed [FRAC+8:0] drive, drive_next;
  logic signed [15:0] state_next;
  logic signed [7:0] sent_next;
  eqk_neuron #(.AW(AW), .DW(DW), .FREE_SHIFT(SHIFT2 + GAMMA), .NUDGED_SHIFT(SHIFT2), .LEAK(LEAK), .FRAC(FRAC), .BETA(BETA), .STREAM(0))
  neuron (.clk, .nudged, .sum, .base(nudged ? '0 : drive_in), .state(first ? 16'sd0 : state), .drive, .state_next,
          .drive_next, .sent(sent_next), .moving);
  always_ff @(posedge clk) if (keep) begin
    state <= state_next;
    drive <= drive_next;
    sent <= sent_next;
    if (!nudged) sent_free <= sent_next;
  end

  // 6 to 9: R9
  generate
    if (LEARN != 0) begin : learner
      logic signed [GW-1:0] trace, g;
      logic signed [15:0] master_4, master_5, master_6, master_7;
      logic signed [GW:0] wish;
      logic [31:0] turned;
      logic second_4, second_5, second_6, second_7;
      function automatic logic signed [GW-1:0] rounding(input logic [31:0] word, input int rate);
        rounding = STOCHASTIC != 0 ? GW'(word & ((32'd1 << rate) - 1)) : (GW'(1) << rate) >> 1;
      endfunction
      always_comb turned = (LANE % 32 == 0) ? noise : (noise >> (LANE % 32)) | (noise << (32 - LANE % 32));
      always_ff @(posedge clk) begin
        master_4 <= master; master_5 <= master_4; master_6 <= master_5; master_7 <= master_6;
        second_4 <= second; second_5 <= second_4; second_6 <= second_5; second_7 <= second_6;
        trace <= GW'(product) + GW'(upward);                                            // 6
        g <= trace + (second_6 ? rounding(turned, RATE2) : rounding(turned, RATE1));    // 7
        felt <= trace != 0;
        wish <= master_7 + (second_7 ? g >>> RATE2 : g >>> RATE1);                      // 8
        learnt <= wish > 32767 ? 16'sd32767 : wish < -32767 ? -16'sd32767 : wish[15:0]; // 9
        clipped <= wish > 32767 || wish < -32767;
      end
    end else begin : fixed
      always_comb begin
        learnt = '0;
        clipped = 1'b0;
        felt = 1'b0;
      end
    end
  endgenerate
endmodule
