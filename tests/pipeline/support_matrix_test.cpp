// The README's list of architectures is made of the table in the code.
#include <gtest/gtest.h>

#include "common/file.h"
#include "support/run_program.h"

namespace salient::test {
namespace {

TEST(SupportMatrix, TheReadmeSaysWhatTheTableSays) {
  const std::string readme = read_text_file(SALIENT_SOURCE_DIR "/README.md");
  const std::string begin = "<!-- architectures: salient architectures --markdown -->\n";
  const std::string end = "<!-- end of architectures -->";
  const size_t from = readme.find(begin);
  const size_t to = readme.find(end);
  ASSERT_NE(from, std::string::npos);
  ASSERT_NE(to, std::string::npos);
  const auto result = run_program({"architectures", "--markdown"}, SALIENT_SOURCE_DIR);
  ASSERT_EQ(result.exit_code, 0);
  EXPECT_EQ(readme.substr(from + begin.size(), to - from - begin.size()), result.out)
      << "replace the lines between the two comments by the output of: salient architectures --markdown";
}

}  // namespace
}  // namespace salient::test
