#include "quant/rounding.h"

#include "common/error.h"

namespace salient::quant {

std::string_view to_string(RoundingKind kind) {
  switch (kind) {
    case RoundingKind::kNearest: return "nearest";
    case RoundingKind::kGram: return "gram";
    case RoundingKind::kAdaround: return "adaround";
  }
  return "";
}

std::string_view to_string(ColumnOrder order) {
  switch (order) {
    case ColumnOrder::kNatural: return "natural";
    case ColumnOrder::kActivation: return "activation";
  }
  return "";
}

RoundingKind parse_rounding_kind(std::string_view name) {
  if (name == "rtn") return RoundingKind::kNearest;
  for (const RoundingKind kind : {RoundingKind::kNearest, RoundingKind::kGram, RoundingKind::kAdaround}) {
    if (to_string(kind) == name) return kind;
  }
  fail(ErrorKind::kInvalidArgument, "rounding '{}': expected nearest (or rtn), gram or adaround", name);
}

ColumnOrder parse_column_order(std::string_view name) {
  for (const ColumnOrder order : {ColumnOrder::kNatural, ColumnOrder::kActivation}) {
    if (to_string(order) == name) return order;
  }
  fail(ErrorKind::kInvalidArgument, "column order '{}': expected natural or activation", name);
}

}  // namespace salient::quant
