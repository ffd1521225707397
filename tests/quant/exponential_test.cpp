#include "quant/exponential.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

namespace salient::quant {
namespace {

// Every 97th float32 between the ends: 20 million of them.
TEST(Exponential, IsWithinOneAndAHalfUnitsOfTheLastPlace) {
  double worst = 0;
  for (const float sign : {-1.0F, 1.0F}) {
    const uint32_t last = std::bit_cast<uint32_t>(sign > 0 ? 88.72F : 87.32F);
    for (uint32_t bits = 0; bits <= last; bits += 97) {
      const float x = sign * std::bit_cast<float>(bits);
      const double exact = std::exp(static_cast<double>(x));
      const auto rounded = static_cast<float>(exact);
      const double unit =
          static_cast<double>(std::nextafter(rounded, std::numeric_limits<float>::infinity())) - static_cast<double>(rounded);
      worst = std::max(worst, std::abs(static_cast<double>(exponential(x)) - exact) / unit);
    }
  }
  EXPECT_LT(worst, 1.5);
}

TEST(Exponential, AtTheEnds) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  EXPECT_EQ(exponential(-kInfinity), 0.0F);
  EXPECT_EQ(exponential(-1e30F), 0.0F);
  EXPECT_EQ(exponential(0.0F), 1.0F);
  EXPECT_EQ(exponential(88.8F), kInfinity);
  EXPECT_EQ(exponential(kInfinity), kInfinity);
  EXPECT_TRUE(std::isnan(exponential(std::numeric_limits<float>::quiet_NaN())));
}

}  // namespace
}  // namespace salient::quant
