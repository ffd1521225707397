// Command-line options of one command, declared once: parsing, help and errors come from the same rows. Boost.Program_options stays
// in here.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace salient::pipeline {

// One option. `name` may hold aliases after commas ("model,src"): the first is the one that --help shows first; a one-letter alias
// is used with a single dash. Without `value` it is a flag.
struct OptionRow {
  std::string name;
  std::string value;      // what stands for the value in --help: "DIR"; empty for a flag
  std::string help;       // the default belongs in here
  bool repeated = false;  // may be given several times
};

struct CommandText {
  std::string name;         // "quantize"
  std::string positional;   // "CONFIG", "MODEL..." or "": what stands without a dash
  std::string description;  // what it does, in a sentence or three
  std::string examples;     // lines
};

class Arguments {
 public:
  // Adds --help, --threads, --log-level to the rows. Errors: invalid argument, for an unknown option (with the nearest known one),
  // a missing value, positional values where none belong.
  Arguments(const CommandText& text, const std::vector<OptionRow>& rows, const std::vector<std::string>& words);

  bool wants_help() const { return wants_help_; }
  const std::string& help() const { return help_; }

  bool has(const std::string& name) const;
  bool flag(const std::string& name) const { return has(name); }
  // Errors of all: invalid argument, naming the option, what was found and what was expected.
  std::string text(const std::string& name) const;  // required
  std::string text_or(const std::string& name, const std::string& fallback) const;
  int64_t integer_or(const std::string& name, int64_t fallback, int64_t least, int64_t most) const;
  // 8 or 16; nothing where the option is not given.
  std::optional<int> runtime_bits(const std::string& name) const;
  // As given; and split at commas.
  std::vector<std::string> values(const std::string& name) const;
  std::vector<std::string> list(const std::string& name) const;
  const std::vector<std::string>& positional() const { return positional_; }

 private:
  const std::vector<std::string>* find(const std::string& name) const;

  std::string command_;
  std::vector<std::pair<std::string, std::vector<std::string>>> values_;
  std::vector<std::string> positional_;
  bool wants_help_ = false;
  std::string help_;
};

}  // namespace salient::pipeline
