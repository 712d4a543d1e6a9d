// R10 of eqk_int.h as a pipeline of 6 cycles: adders, shifts and exclusive ors, no multiplier.
module eqk_noise (
  input  logic clk,
  input  logic [31:0] word,
  output logic [31:0] noise
);
  logic [31:0] a, b, c, d, e;
  function automatic logic [31:0] mix(input logic [31:0] v, input int left, input int right);
    logic [31:0] sum;
    begin
      sum = v + (v << left);
      mix = sum ^ (sum >> right);
    end
  endfunction
  always_ff @(posedge clk) begin
    a <= mix(word, 10, 6);
    b <= mix(a, 3, 11);
    c <= b + (b << 15);
    d <= mix(c, 10, 6);
    e <= mix(d, 3, 11);
    noise <= mix(e, 15, 16);
  end
endmodule
