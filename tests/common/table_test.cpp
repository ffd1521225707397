#include "common/table.h"

#include <gtest/gtest.h>

#include "common/error.h"
#include "common/text.h"

namespace salient {
namespace {

TEST(Table, AlignsNumbersRightAndTextLeft) {
  EXPECT_EQ(format_table({"model", "n", "size"}, {{"Qwen3-0.6B", "4", "1.2 GiB"}, {"日本", "128", "-"}}),
            "model         n     size\n"
            "----------  ---  -------\n"
            "Qwen3-0.6B    4  1.2 GiB\n"
            "日本        128        -\n");
}

TEST(Table, AVersionOrNameKeepsAColumnLeft) {
  EXPECT_EQ(format_table({"a", "b"}, {{"2025-11-21", "12"}, {"x", "4 rows of text"}}),
            "a           b\n"
            "----------  --------------\n"
            "2025-11-21  12\n"
            "x           4 rows of text\n");
}

TEST(Table, CutsTheWidestTextFirst) {
  const std::string text =
      format_table({"name", "value"}, {{"a very long name that does not fit", "12345"}, {"short", "1"}}, {.max_width = 24});
  EXPECT_EQ(text,
            "name               value\n"
            "-----------------  -----\n"
            "a very long name…  12345\n"
            "short                  1\n");
  for (const std::string& line : split(text, '\n')) EXPECT_LE(display_width(line), 24u);
}

TEST(Table, NeverCutsNumbers) {
  EXPECT_NE(format_table({"n"}, {{"123456789012345678901234567890"}}, {.max_width = 10}).find("123456789012345678901234567890"),
            std::string::npos);
}

TEST(Table, HostileCellsStayInTheirLine) {
  EXPECT_EQ(format_table({"name", "x"}, {{"a\nb\x1b[2J"}}), "name     x\n-------  -\na b [2J\n");
}

TEST(Table, EmptyAndIndented) {
  EXPECT_EQ(format_table({"a", "b"}, {}, {.indent = 2}), "  a  b\n  -  -\n");
  EXPECT_EQ(format_table({}, {}), "\n\n");
  EXPECT_THROW(format_table({"a"}, {{"1", "2"}}), Error);
}

}  // namespace
}  // namespace salient
