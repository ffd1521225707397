// The pages in README.md, docs/ and so on: links lead somewhere, the index is complete, and commands have the options that they are
// shown with.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cctype>
#include <filesystem>
#include <map>
#include <optional>
#include <regex>
#include <set>
#include <string>
#include <vector>

#include "common/file.h"
#include "pipeline/commands/commands.h"
#include "support/command_help.h"
#include "support/documents.h"

namespace salient::pipeline {
namespace {

namespace fs = std::filesystem;
using test::Document;
using test::source_folder;

// What GitHub calls a heading in links: "Bits by budget" is #bits-by-budget.
std::string anchor_of(const std::string& heading) {
  std::string anchor;
  for (const char c : heading) {
    const auto byte = static_cast<unsigned char>(c);
    if (std::isalnum(byte) != 0 || c == '-' || c == '_') anchor += static_cast<char>(std::tolower(byte));
    if (c == ' ') anchor += '-';
  }
  return anchor;
}

std::set<std::string> anchors_of(const Document& document) {
  std::set<std::string> anchors;
  for (const std::string& line : document.text) {
    if (line.starts_with("#")) anchors.insert(anchor_of(line.substr(line.find_first_not_of("# "))));
  }
  return anchors;
}

// What is wrong with a link on `page`, a path below the source folder.
std::optional<std::string> broken_link(const fs::path& page, const std::string& target) {
  if (target.starts_with("http://") || target.starts_with("https://")) return std::nullopt;
  const size_t hash = target.find('#');
  const std::string path = target.substr(0, hash);
  const fs::path file = path.empty() ? source_folder() / page : source_folder() / page.parent_path() / path;
  if (!fs::exists(file)) return target + " is not there";
  if (hash == std::string::npos || file.extension() != ".md") return std::nullopt;
  if (anchors_of(test::read_document(read_text_file(file))).contains(target.substr(hash + 1))) return std::nullopt;
  return target + ": there is no such heading";
}

std::vector<std::string> links_of(const std::string& line) {
  static const std::regex kLink(R"re(\]\(([^)\s]+)\))re");
  std::vector<std::string> targets;
  for (std::sregex_iterator it(line.begin(), line.end(), kLink), end; it != end; ++it) targets.push_back((*it)[1]);
  return targets;
}

const std::string& help_of(const std::string& command) {
  static std::map<std::string, std::string> known;
  const auto [it, added] = known.try_emplace(command);
  if (added) it->second = test::program_says({command, "--help"});
  return it->second;
}

std::set<std::string> options_of(const std::string& command) {
  static const std::regex kOption(R"re((^|[\s,])(--?[a-z][a-z0-9-]*))re");
  const std::string& help = help_of(command);
  std::set<std::string> options;
  for (std::sregex_iterator option(help.begin(), help.end(), kOption), end; option != end; ++option) options.insert((*option)[2]);
  return options;
}

// What is wrong with a command line of the program: `words` behind its name.
std::optional<std::string> wrong_option(const std::vector<std::string>& words) {
  if (words.empty() || words[0] == "--help" || words[0] == "--version") return std::nullopt;
  const std::string& name = words[0];
  static const std::regex kName("[a-z][a-z-]*");
  if (!std::regex_match(name, kName)) return std::nullopt;  // COMMAND, ...
  const auto commands = pipeline::commands();
  if (std::none_of(commands.begin(), commands.end(), [&](const Command& one) { return one.name == name; })) {
    return "there is no command '" + name + "'";
  }
  for (size_t i = 1; i < words.size(); ++i) {
    if (words[i].size() < 2 || words[i][0] != '-' || std::isdigit(static_cast<unsigned char>(words[i][1])) != 0) continue;
    const std::string option = words[i].substr(0, words[i].find('='));
    if (!options_of(name).contains(option)) return "salient " + name + " has no option " + option;
  }
  return std::nullopt;
}

// Commands of the program on a page: in blocks of shell and in blocks without a language, and in `code` within a line.
std::vector<test::ShellCommand> shown_commands(const Document& document) {
  std::vector<test::ShellCommand> found;
  for (const test::CodeBlock& block : document.blocks) {
    if (!block.language.empty() && block.language != "sh" && block.language != "bash") continue;
    for (test::ShellCommand& command : test::shell_commands(block.lines, block.line)) found.push_back(std::move(command));
  }
  static const std::regex kCode("`([^`]+)`");
  for (size_t i = 0; i < document.text.size(); ++i) {
    const std::string& line = document.text[i];
    for (std::sregex_iterator code(line.begin(), line.end(), kCode), end; code != end; ++code) {
      for (test::ShellCommand& command : test::shell_commands({(*code)[1].str()}, static_cast<int>(i) + 1))
        found.push_back(std::move(command));
    }
  }
  std::erase_if(found, [](test::ShellCommand& command) {
    command.words = test::words_of_salient(command.words);
    return command.words.empty();
  });
  return found;
}

TEST(Documentation, TheChecksCatchWhatTheyShould) {
  EXPECT_TRUE(broken_link("README.md", "docs/missing.md"));
  EXPECT_TRUE(broken_link("docs/scale.md", "README.md#no-such-heading"));
  EXPECT_FALSE(broken_link("README.md", "docs/evaluation.md#what-quantization-broke"));
  EXPECT_THAT(links_of("see [one](a.md) and [two](b.md#c)"), ::testing::ElementsAre("a.md", "b.md#c"));
  EXPECT_TRUE(wrong_option({"quantize", "--model", "m", "--no-such-option"}));
  EXPECT_TRUE(wrong_option({"quantise"}));
  EXPECT_TRUE(wrong_option({"runs", "--model=x"}));
  EXPECT_FALSE(wrong_option({"quantize", "--src", "m", "--group-size", "-1", "--bits=3"}));
  EXPECT_FALSE(wrong_option({"report", "-o", "page.html"}));
  const Document document = test::read_document(
      "text `salient runs --one`\n```sh\nmpirun -n 2 salient quantize --two \\\n    --three 'a b'  # --four\n"
      "cd x && salient eval --five; salient inspect y\n```\n```yaml\nsalient: no\n```\n");
  std::vector<std::string> shown;
  for (const test::ShellCommand& command : shown_commands(document)) {
    std::string text = std::to_string(command.line) + ":";
    for (const std::string& word : command.words) text += " " + word;
    shown.push_back(text);
  }
  EXPECT_THAT(shown, ::testing::ElementsAre("3: quantize --two --three a b", "5: eval --five", "5: inspect y", "1: runs --one"));
}

TEST(Documentation, LinksLeadSomewhere) {
  size_t links = 0;
  for (const fs::path& page : test::document_pages()) {
    const Document document = test::read_document(read_text_file(source_folder() / page));
    for (size_t i = 0; i < document.text.size(); ++i) {
      for (const std::string& target : links_of(document.text[i])) {
        ++links;
        if (const auto broken = broken_link(page, target)) ADD_FAILURE() << page.string() << ":" << i + 1 << ": " << *broken;
      }
    }
  }
  EXPECT_GT(links, 80u);
}

TEST(Documentation, TheIndexNamesEveryPage) {
  std::set<fs::path> named;
  for (const std::string& line : test::read_document(read_text_file(source_folder() / "docs/README.md")).text) {
    for (const std::string& target : links_of(line)) named.insert((fs::path("docs") / target).lexically_normal());
  }
  for (const auto& entry : fs::recursive_directory_iterator(source_folder() / "docs")) {
    const fs::path page = entry.path().lexically_relative(source_folder());
    if (!entry.is_regular_file() || page == "docs/README.md") continue;
    EXPECT_TRUE(named.contains(page)) << "docs/README.md does not name " << page;
  }
}

TEST(Documentation, CommandsHaveTheOptionsThatAreShown) {
  size_t commands = 0;
  for (const fs::path& page : test::document_pages()) {
    for (const test::ShellCommand& command : shown_commands(test::read_document(read_text_file(source_folder() / page)))) {
      ++commands;
      if (const auto wrong = wrong_option(command.words)) ADD_FAILURE() << page.string() << ":" << command.line << ": " << *wrong;
    }
  }
  EXPECT_GT(commands, 100u);
}

TEST(Documentation, ExamplesOfHelpHaveTheirOptions) {
  size_t examples = 0;
  for (const Command& command : commands()) {
    const std::string& help = help_of(std::string(command.name));
    const size_t begin = help.find("\nexamples:\n");
    ASSERT_NE(begin, std::string::npos) << command.name;
    std::istringstream text(help.substr(begin + 1));
    std::vector<std::string> lines;
    for (std::string line; std::getline(text, line);) lines.push_back(line);
    for (const test::ShellCommand& one : test::shell_commands(lines, 1)) {
      const std::vector<std::string> words = test::words_of_salient(one.words);
      if (words.empty()) continue;
      ++examples;
      if (const auto wrong = wrong_option(words)) ADD_FAILURE() << "salient " << command.name << " --help: " << *wrong;
    }
  }
  EXPECT_GE(examples, commands().size());
}

}  // namespace
}  // namespace salient::pipeline
