// A test for each parameter of a table: what it does is seen.
#pragma once

#include <gtest/gtest.h>

#include <ostream>
#include <set>
#include <string>
#include <vector>

namespace salient::test {

struct Effect {
  std::string key;
  void (*check)();
};
inline void PrintTo(const Effect& effect, std::ostream* out) { *out << effect.key; }

class ParameterEffect : public ::testing::TestWithParam<Effect> {};
TEST_P(ParameterEffect, IsSeen) { GetParam().check(); }
inline const auto kEffectName = [](const auto& effect) { return effect.param.key; };

// Of all rows; a key that is there twice is a failure.
inline std::set<std::string> keys_of(const std::vector<Effect>& effects) {
  std::set<std::string> names;
  for (const Effect& effect : effects) EXPECT_TRUE(names.insert(effect.key).second) << effect.key << " twice";
  return names;
}

}  // namespace salient::test
