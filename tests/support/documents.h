// The pages that people read: README.md and its like, and everything below docs/; their code blocks, and the commands in these.
#pragma once

#include <algorithm>
#include <cctype>
#include <filesystem>
#include <sstream>
#include <string>
#include <string_view>
#include <vector>

#include "common/file.h"

namespace salient::test {

inline std::filesystem::path source_folder() { return SALIENT_SOURCE_DIR; }

// Relative to the source folder, sorted.
inline std::vector<std::filesystem::path> document_pages() {
  std::vector<std::filesystem::path> pages = {"README.md", "CONTRIBUTING.md", "CHANGELOG.md", "models/demo/README.md"};
  for (const auto& entry : std::filesystem::recursive_directory_iterator(source_folder() / "docs")) {
    if (entry.path().extension() == ".md") pages.push_back(entry.path().lexically_relative(source_folder()));
  }
  std::sort(pages.begin(), pages.end());
  return pages;
}

struct CodeBlock {
  std::string language;  // what follows the opening ```
  int line = 0;          // of the first line within
  std::vector<std::string> lines;
};

struct Document {
  std::vector<CodeBlock> blocks;
  std::vector<std::string> text;  // the lines outside of blocks; those of blocks are empty
};

inline Document read_document(const std::string& markdown) {
  Document document;
  std::istringstream lines(markdown);
  bool inside = false;
  int number = 0;
  for (std::string line; std::getline(lines, line);) {
    ++number;
    const bool fence = line.starts_with("```");
    if (fence && !inside) document.blocks.push_back({line.substr(3), number + 1, {}});
    if (!fence && inside) document.blocks.back().lines.push_back(line);
    document.text.push_back(fence || inside ? "" : line);
    if (fence) inside = !inside;
  }
  return document;
}

struct ShellCommand {
  int line = 0;
  std::vector<std::string> words;
};

// Simple commands of shell text: words as the shell splits them, without variables; lines that end in a backslash go on in the next
// one, and comments, pipes, && and ; end a command.
inline std::vector<ShellCommand> shell_commands(const std::vector<std::string>& lines, int first_line) {
  std::vector<ShellCommand> commands;
  ShellCommand command;
  std::string word;
  bool has_word = false;
  char quote = 0;
  const auto end_word = [&] {
    if (has_word) command.words.push_back(word);
    word.clear();
    has_word = false;
  };
  const auto end_command = [&](int next) {
    end_word();
    if (!command.words.empty()) commands.push_back(command);
    command = {next, {}};
  };
  command.line = first_line;
  for (size_t n = 0; n < lines.size(); ++n) {
    const std::string& line = lines[n];
    bool goes_on = false;
    for (size_t i = 0; i < line.size(); ++i) {
      const char c = line[i];
      if (quote != 0) {
        if (c == quote) {
          quote = 0;
        } else {
          word += c;
        }
      } else if (c == '\'' || c == '"') {
        quote = c;
        has_word = true;
      } else if (c == '\\' && i + 1 == line.size()) {
        goes_on = true;
      } else if (c == '\\') {
        word += line[++i];
        has_word = true;
      } else if (c == '#' && !has_word) {
        break;
      } else if (c == ';' || c == '|' || c == '&') {
        end_command(first_line + static_cast<int>(n));
      } else if (std::isspace(static_cast<unsigned char>(c)) != 0) {
        end_word();
      } else {
        word += c;
        has_word = true;
      }
    }
    if (quote != 0) {
      word += '\n';
    } else if (goes_on) {
      end_word();
    } else {
      end_command(first_line + static_cast<int>(n) + 1);
    }
  }
  end_command(0);
  return commands;
}

// The words behind "salient" where the command runs that program, itself or by mpirun; else none.
inline std::vector<std::string> words_of_salient(const std::vector<std::string>& words) {
  size_t first = 0;
  if (!words.empty() && words[0] == "mpirun")
    first = static_cast<size_t>(std::find(words.begin(), words.end(), "salient") - words.begin());
  if (first >= words.size()) return {};
  if (words[first] != "salient" && !words[first].ends_with("/salient")) return {};
  return {words.begin() + static_cast<std::ptrdiff_t>(first) + 1, words.end()};
}

}  // namespace salient::test
