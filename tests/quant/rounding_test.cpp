#include "quant/rounding.h"

#include <gtest/gtest.h>

#include <set>
#include <string>

#include "common/error.h"

namespace salient::quant {
namespace {

TEST(Rounding, EveryKindIsReadBackFromItsName) {
  std::set<std::string_view> names;
  for (const RoundingKind kind : {RoundingKind::kNearest, RoundingKind::kGram, RoundingKind::kAdaround}) {
    EXPECT_EQ(parse_rounding_kind(to_string(kind)), kind);
    names.insert(to_string(kind));
  }
  EXPECT_EQ(names, (std::set<std::string_view>{"nearest", "gram", "adaround"}));
  EXPECT_EQ(parse_rounding_kind("rtn"), RoundingKind::kNearest);
}

TEST(Rounding, EveryColumnOrderIsReadBackFromItsName) {
  EXPECT_EQ(to_string(ColumnOrder::kNatural), "natural");
  EXPECT_EQ(to_string(ColumnOrder::kActivation), "activation");
  for (const ColumnOrder order : {ColumnOrder::kNatural, ColumnOrder::kActivation})
    EXPECT_EQ(parse_column_order(to_string(order)), order);
}

TEST(Rounding, OtherNamesAreRefusedWithWhatIsKnown) {
  const auto error_of = [](auto&& call) {
    try {
      call();
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::kInvalidArgument);
      return error.message();
    }
    return std::string("no error");
  };
  EXPECT_EQ(error_of([] { parse_rounding_kind("Gram"); }), "rounding 'Gram': expected nearest (or rtn), gram or adaround");
  EXPECT_EQ(error_of([] { parse_column_order(""); }), "column order '': expected natural or activation");
}

}  // namespace
}  // namespace salient::quant
