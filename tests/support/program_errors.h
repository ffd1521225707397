// How the program ends when something is wrong: one clear message and the exit code of its kind.
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "support/run_program.h"

namespace salient::test {

inline constexpr int kInvalidArgument = 2;
inline constexpr int kNotFound = 3;
inline constexpr int kCorruption = 4;
inline constexpr int kUnsupported = 5;
inline constexpr int kIo = 6;

// Everything that all errors have in common, and the texts that this one must hold.
inline void expect_error(const ProgramResult& result, int exit_code, const std::vector<std::string>& texts) {
  EXPECT_EQ(result.exit_code, exit_code) << result.err;
  EXPECT_EQ(result.signal, 0) << result.err;
  for (const std::string& text : texts) EXPECT_THAT(result.err, testing::HasSubstr(text));
  const std::string begin = "salient: ";
  const bool at_start = result.err.starts_with(begin);
  const size_t message = at_start ? 0 : result.err.find("\n" + begin);
  EXPECT_NE(message, std::string::npos) << "no message: " << result.err;
  EXPECT_EQ(result.err.find("\n" + begin, at_start ? 0 : message + 1), std::string::npos)
      << "more than one message: " << result.err;
  for (const char* internal : {"terminate called", "what():", "Exception raised from", "frame #", "c10::", "std::", "nlohmann"}) {
    EXPECT_THAT(result.err, testing::Not(testing::HasSubstr(internal)));
  }
}

}  // namespace salient::test
