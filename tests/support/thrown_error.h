// The Error that a piece of code throws, for tests that look at what it says.
#pragma once

#include <gtest/gtest.h>

#include <string>

#include "common/error.h"

namespace salient::test {

// Where `body` throws none, the test fails, and the result is an internal error without words.
template <typename Body>
Error error_of(Body&& body) {
  try {
    body();
  } catch (const Error& error) {
    return error;
  }
  ADD_FAILURE() << "no error";
  return Error(ErrorKind::kInternal, "");
}

// The test fails where it is not of this kind, too.
template <typename Body>
Error error_of(Body&& body, ErrorKind kind) {
  Error error = error_of(body);
  EXPECT_EQ(error.kind(), kind) << error.message();
  return error;
}

// All that a user would read: the message and the hint.
template <typename Body>
std::string message_of(Body&& body, ErrorKind kind) {
  const Error error = error_of(body, kind);
  return error.message() + " " + error.hint();
}

}  // namespace salient::test
