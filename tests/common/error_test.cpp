#include "common/error.h"

#include <gtest/gtest.h>

namespace salient {
namespace {

TEST(Error, KindsKeepTheirExitCodes) {
  EXPECT_EQ(static_cast<int>(ErrorKind::kInternal), 1);
  EXPECT_EQ(static_cast<int>(ErrorKind::kInvalidArgument), 2);
  EXPECT_EQ(static_cast<int>(ErrorKind::kNotFound), 3);
  EXPECT_EQ(static_cast<int>(ErrorKind::kCorruption), 4);
  EXPECT_EQ(static_cast<int>(ErrorKind::kUnsupported), 5);
  EXPECT_EQ(static_cast<int>(ErrorKind::kIo), 6);
  EXPECT_EQ(static_cast<int>(ErrorKind::kCheckFailed), 7);
  EXPECT_EQ(to_string(ErrorKind::kCorruption), "corrupt data");
}

TEST(Error, CarriesKindCodeHintAndContext) {
  try {
    with_context("outer", [] {
      with_context("inner", [] { throw Error(ErrorKind::kIo, "disk").with_code("DISK_FULL").with_hint("free some"); });
    });
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::kIo);
    EXPECT_EQ(error.message(), "outer: inner: disk");
    EXPECT_STREQ(error.what(), "outer: inner: disk");
    EXPECT_EQ(error.code(), "DISK_FULL");
    EXPECT_EQ(error.hint(), "free some");
  }
}

TEST(Error, ContextPassesValuesAndForeignExceptions) {
  EXPECT_EQ(with_context("x", [] { return 7; }), 7);
  EXPECT_THROW(with_context("x", [] { throw std::bad_alloc(); }), std::bad_alloc);
}

TEST(Error, FailFormats) {
  try {
    fail(ErrorKind::kNotFound, "{}: {}", "a", 1);
  } catch (const Error& error) {
    EXPECT_EQ(error.message(), "a: 1");
    EXPECT_TRUE(error.code().empty());
  }
}

}  // namespace
}  // namespace salient
