// Regular expressions of tokenizer.json: Oniguruma's syntax and meaning, run by PCRE2.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace salient::models {

struct TextRange {
  size_t begin, end;  // bytes
};

// Immutable and safe to use from many threads.
class Regex {
 public:
  // `pattern`: Oniguruma syntax, see regex_translate.h. `where` names the file and key. Errors: corruption, with PCRE2's message
  // and offset.
  Regex(std::string_view pattern, std::string_view where);

  // All matches in well-formed UTF-8, from left to right, not overlapping. An empty match right behind another match is left out.
  // Errors: unsupported, where matching takes too many steps or too much memory.
  std::vector<TextRange> find_all(std::string_view text) const;

 private:
  struct Program;
  std::shared_ptr<const Program> program_;
};

}  // namespace salient::models
