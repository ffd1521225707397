#include "eval/window_text.h"

#include <gtest/gtest.h>

#include <string>

#include "common/file.h"
#include "support/temporary_folder.h"
#include "support/thrown_error.h"

namespace salient::eval {
namespace {

TEST(WindowText, IsTheWholeFileOrTheRowsTexts) {
  const test::TemporaryFolder folder;
  write_file(folder.path() / "a.txt", "one\n\nzw\xc3\xb6lf\n");
  EXPECT_EQ(read_window_text(folder.path() / "a.txt").text, "one\n\nzw\xc3\xb6lf\n");
  write_file(folder.path() / "a.jsonl", "{\"text\": \"one\"}\n{\"text\": \"two\"}\n");
  EXPECT_EQ(read_window_text(folder.path() / "a.jsonl").text, "one\n\ntwo");
}

// Of a model's weights, or a text in Latin-1, a figure would come out all the same.
TEST(WindowText, WhatIsNoTextIsRefused) {
  const test::TemporaryFolder folder;
  const auto file = folder.path() / "a.txt";
  for (const auto& [bytes, found] :
       {std::pair{std::string("GGUF\3\0\0\0more", 12), "a zero byte at 5"}, {std::string("zw\xf6lf"), "bytes that are no UTF-8"}}) {
    write_file(file, bytes);
    const Error error = test::error_of([&] { read_window_text(file); }, ErrorKind::kCorruption);
    EXPECT_NE(error.message().find(file.string() + ": found " + found), std::string::npos) << error.message();
  }
}

}  // namespace
}  // namespace salient::eval
