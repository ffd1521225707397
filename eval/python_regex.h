// Regular expressions of Python's re module over str, run by PCRE2: the filters and metrics of evaluation harnesses are written in
// them. Not like Python's: what few letters outside ASCII \w, \s and ignoring case take; (?a), (?L), (?u) are refused.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace salient::eval {

// Immutable and safe to use from many threads.
class PythonRegex {
 public:
  // Errors: invalid argument with PCRE2's message and offset.
  explicit PythonRegex(std::string_view pattern);

  struct Match {
    size_t begin = 0;  // bytes
    size_t end = 0;
    std::vector<std::string> groups;  // of 1, 2, ...; empty where a group took no part
  };
  // re.finditer over `text`, whose ill-formed parts become U+FFFD first: empty matches may follow others directly. Errors:
  // unsupported, where matching takes too many steps.
  std::vector<Match> find_all(std::string_view text) const;

  // re.sub. In the replacement \1 to \9 stand for groups; every other character for itself.
  std::string replace(std::string_view text, std::string_view replacement) const;

 private:
  struct Program;
  std::shared_ptr<const Program> program_;
};

}  // namespace salient::eval
