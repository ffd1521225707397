// docs/man/salient.1 is what scripts/man_page.sh makes of this program's --help.
#include <gtest/gtest.h>

#include <filesystem>
#include <sstream>
#include <string>

#include "common/file.h"
#include "pipeline/commands/commands.h"
#include "support/command_help.h"
#include "support/documents.h"
#include "support/run_program.h"
#include "support/temporary_folder.h"

namespace salient::pipeline {
namespace {

namespace fs = std::filesystem;

std::string man_page(const std::string& program) {
  const test::TemporaryFolder folder;
  test::ProgramCall call;
  call.program = "/bin/bash";
  call.folder = folder.path();
  call.arguments = {(test::source_folder() / "scripts/man_page.sh").string(), program};
  const test::ProgramResult result = test::run_program(call);
  EXPECT_EQ(result.exit_code, 0) << result.err;
  return result.out;
}

TEST(ManPage, IsWhatTheProgramSays) {
  // A program that says what this one does, without being started for each command.
  const test::TemporaryFolder folder;
  test::write_text(folder.path() / "program", "#!/bin/bash\ncat \"${0%/*}/${1#--}\"\n");
  fs::permissions(folder.path() / "program", fs::perms::owner_all);
  test::write_text(folder.path() / "help", test::program_says({"--help"}));
  test::write_text(folder.path() / "version", test::program_says({"--version"}));
  for (const Command& command : commands()) {
    test::write_text(folder.path() / command.name, test::program_says({std::string(command.name), "--help"}));
  }
  std::istringstream made(man_page((folder.path() / "program").string()));
  std::istringstream kept(read_text_file(test::source_folder() / "docs/man/salient.1"));
  std::string expected, found;
  for (int line = 1;; ++line) {
    const bool more = static_cast<bool>(std::getline(made, expected));
    const bool has = static_cast<bool>(std::getline(kept, found));
    if (!more && !has) break;
    ASSERT_TRUE(more == has && expected == found)
        << "docs/man/salient.1:" << line << ": found '" << found << "', --help says '" << expected
        << "'; scripts/man_page.sh build/release/salient > docs/man/salient.1 renews it";
  }
}

// A program with an option, a value, an alias, lines that go on, and characters that roff takes for its own.
TEST(ManPage, TakesHelpApart) {
  const test::TemporaryFolder folder;
  const fs::path program = folder.path() / "program";
  test::write_text(program, R"sh(#!/bin/bash
case "$*" in
  --version) echo "salient 9.9" ;;
  --help) printf '%s\n' 'Salient 9.9: makes things.' '' 'usage: salient COMMAND [options]' '' 'commands:' '  make-it   make it' '' 'examples:' '  salient make-it' '' \
    'salient COMMAND --help explains a command. Exit codes: 0 done.' ;;
  *) printf '%s\n' 'usage: salient make-it [options] FILE' '' 'Makes it.' '  as  it is' '' 'options:' '  --out FILE        where to, such as' \
    '                    .\x' '  --with-long-name NAME' '                    its name' '  -h [ --help ]     this text' '' 'examples:' "  salient make-it 'a'" ;;
esac
)sh");
  fs::permissions(program, fs::perms::owner_all);
  const std::string page = man_page(program.string());
  for (const char* part :
       {".TH SALIENT 1 \"\" \"Salient 9.9\"", "salient \\- makes things\n", ".TP\n\\fBmake\\-it\\fR\nmake it\n",
        ".SH \"EXIT STATUS\"\nExit codes: 0 done.\n", ".SH \"SALIENT MAKE\\-IT\"\n.B salient make\\-it [options] FILE\n",
        ".nf\n  as  it is\n.fi\n", ".TP\n\\fB\\-\\-out\\fR \\fIFILE\\fR\nwhere to, such as .\\ex\n",
        ".TP\n\\fB\\-\\-with\\-long\\-name\\fR \\fINAME\\fR\nits name\n", ".TP\n\\fB\\-h,\\fR \\fB\\-\\-help\\fR\nthis text\n",
        ".nf\nsalient make\\-it \\(aqa\\(aq\n.fi\n"}) {
    EXPECT_NE(page.find(part), std::string::npos) << part << "is not in:\n" << page;
  }
}

}  // namespace
}  // namespace salient::pipeline
