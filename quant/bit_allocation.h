// Mixed precision by budget: how many bits each module gets, so that the sum of their errors is least and the mean bits of a weight
// stay within a target.
//
// A multiple-choice knapsack (Kellerer, Pferschy, Pisinger, "Knapsack Problems", chapter 11): one choice of bits for each module,
// cost weights * bits, value the measured error. Solved exactly by dynamic programming over the budget in units of the weight
// counts' greatest common divisor, which real models' shapes make large; where that would need too many units, over rounded-up
// costs, and what rounding left of the budget is then given away greedily. The mean never exceeds the target in either case.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace salient::quant {

struct BitChoice {
  int bits = 0;      // 1 .. 16
  double error = 0;  // of the module at these bits, not negative; a choice whose error is not finite is never taken
};

struct BitCandidate {
  std::string name;     // for error texts
  int64_t weights = 0;  // what one more bit costs; > 0
  std::vector<BitChoice> choices;
  double importance = 1;  // the errors are multiplied by it
  // Candidates with the same number >= 0 get the same bits (q, k and v of one block where an engine fuses them); -1 = on its own.
  int64_t shared = -1;
};

struct BitAllocation {
  std::vector<int> bits;  // one for each candidate, in their order
  double mean_bits = 0;   // over weights; <= target_bits
  double error = 0;       // sum of importance * error
};

// Deterministic; of two choices with the same total error the one with fewer bits.
// Errors: invalid argument when target_bits lies outside of what the choices can reach, naming that range; when a candidate, or
// candidates that share, have no usable choice in common.
BitAllocation allocate_bits(const std::vector<BitCandidate>& candidates, double target_bits);

}  // namespace salient::quant
