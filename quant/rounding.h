// How codes are chosen once scales and clipping are fixed.
//
//   nearest  each weight to its nearest code
//   gram     error-compensated: the error of each column is made up for by the columns after it, as in GPTQ (Frantar et al., "GPTQ:
//            Accurate Post-Training Quantization for Generative Pre-trained Transformers", arXiv 2210.17323), from the Gram matrix of the
//            inputs in the AWQ-scaled space; then descent on single codes (quant/code_descent.h)
//   adaround up or down by a relaxed optimisation of the same objective (quant/adaround.h)
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

namespace salient::quant {

enum class RoundingKind : uint8_t { kNearest, kGram, kAdaround };
// In which order columns are rounded.
enum class ColumnOrder : uint8_t { kNatural, kActivation };  // as they lie; those with the largest inputs first

std::string_view to_string(RoundingKind kind);  // "nearest", "gram", "adaround"
std::string_view to_string(ColumnOrder order);  // "natural", "activation"
// Errors: invalid argument. "rtn" is another name of "nearest".
RoundingKind parse_rounding_kind(std::string_view name);
ColumnOrder parse_column_order(std::string_view name);

struct RoundingOptions {
  RoundingKind kind = RoundingKind::kGram;
  ColumnOrder order = ColumnOrder::kActivation;
  double damping = 0.01;  // added to the diagonal, as a share of its mean
  // What the off-diagonal part of the Gram matrix is multiplied by: 0 = no compensation, 1 = all of it. Nothing: chosen on
  // held-back rows.
  std::optional<double> off_diagonal;
  int sweeps = 2;  // of descent on single codes after the compensated rounding
};

}  // namespace salient::quant
