// Sum of N signed values: a tree of adders with a register after each of its ceil(log2 N) levels.
module eqk_tree #(
  parameter int N = 16,
  parameter int IW = 24,
  parameter int OW = 24
) (
  input  logic clk,
  input  logic [N*IW-1:0] values,
  output logic signed [OW-1:0] sum
);
  localparam int LEVELS = $clog2(N), LEAVES = 1 << LEVELS;
  logic signed [OW-1:0] node [1:2*LEAVES-1]; // a heap: the children of node n are 2n and 2n + 1
  genvar n;
  generate
    for (n = 0; n < LEAVES; n = n + 1) begin : leaf
      if (n < N) assign node[LEAVES+n] = OW'($signed(values[n*IW+:IW]));
      else assign node[LEAVES+n] = '0;
    end
    for (n = 1; n < LEAVES; n = n + 1) begin : adder
      always_ff @(posedge clk) node[n] <= node[2*n] + node[2*n+1];
    end
  endgenerate
  assign sum = node[1];
endmodule
