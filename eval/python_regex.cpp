#include "eval/python_regex.h"

#include <algorithm>

#include "common/error.h"
#include "models/text/pcre2_handles.h"
#include "models/text/utf8.h"

namespace salient::eval {
namespace {

constexpr uint32_t kMatchLimit = 100'000'000;

// Python's \Z is the very end of the text, PCRE2's \z.
std::string translate(std::string_view pattern) {
  std::string out;
  for (size_t i = 0; i < pattern.size(); ++i) {
    out += pattern[i];
    if (pattern[i] != '\\' || i + 1 == pattern.size()) continue;
    ++i;
    out += pattern[i] == 'Z' ? 'z' : pattern[i];
  }
  return out;
}

}  // namespace

struct PythonRegex::Program {
  std::string pattern;
  models::pcre2::Code code;
};

PythonRegex::PythonRegex(std::string_view pattern) {
  auto program = std::make_shared<Program>();
  program->pattern = pattern;
  const std::string translated = translate(pattern);
  int error = 0;
  PCRE2_SIZE offset = 0;
  program->code.reset(pcre2_compile(reinterpret_cast<PCRE2_SPTR>(translated.data()), translated.size(),
                                    PCRE2_UTF | PCRE2_UCP | PCRE2_NEVER_BACKSLASH_C, &error, &offset, nullptr));
  if (!program->code) {
    fail(ErrorKind::kInvalidArgument, "bad regular expression '{}': {} at byte {}", pattern, models::pcre2::message_of(error),
         offset);
  }
  pcre2_jit_compile(program->code.get(), PCRE2_JIT_COMPLETE);  // without it the interpreter does the same, only slower
  program_ = std::move(program);
}

std::vector<PythonRegex::Match> PythonRegex::find_all(std::string_view given) const {
  const std::string text = models::repair_utf8(given);
  const models::pcre2::MatchData data(pcre2_match_data_create_from_pattern(program_->code.get(), nullptr));
  const models::pcre2::MatchContext context(pcre2_match_context_create(nullptr));
  if (!data || !context) fail(ErrorKind::kInternal, "out of memory for a regular expression match");
  pcre2_set_match_limit(context.get(), kMatchLimit);
  std::vector<Match> out;
  size_t start = 0;
  bool after_empty = false;  // the next match may not be empty where the last one was
  while (start <= text.size()) {
    const auto match_with = [&](uint32_t options) {
      if (after_empty) options |= PCRE2_NOTEMPTY_ATSTART;
      return pcre2_match(program_->code.get(), reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(), start,
                         PCRE2_NO_UTF_CHECK | options, data.get(), context.get());
    };
    int result = match_with(0);
    if (result == PCRE2_ERROR_JIT_STACKLIMIT) result = match_with(PCRE2_NO_JIT);  // the interpreter keeps its state on the heap
    if (result == PCRE2_ERROR_NOMATCH) break;
    if (result < 0) {
      fail(ErrorKind::kUnsupported, "the regular expression '{}' gives up on {} bytes of text: {}", program_->pattern, text.size(),
           models::pcre2::message_of(result));
    }
    const PCRE2_SIZE* offsets = pcre2_get_ovector_pointer(data.get());
    // \K inside a lookaround can put the beginning behind the end, or before the start: into a match that is taken already.
    const size_t end = std::max<size_t>(start, offsets[1]);
    Match match{std::clamp<size_t>(offsets[0], start, end), end, {}};
    if (after_empty && match.begin == match.end && end == start) {  // what PCRE2 does not take for empty
      if (start == text.size()) break;
      models::next_code_point(text, start);
      after_empty = false;
      continue;
    }
    for (uint32_t i = 1; i < pcre2_get_ovector_count(data.get()); ++i) {
      const bool took_part = static_cast<int>(i) < result && offsets[2 * i] != PCRE2_UNSET;
      match.groups.push_back(took_part ? text.substr(offsets[2 * i], offsets[2 * i + 1] - offsets[2 * i]) : std::string());
    }
    after_empty = match.begin == match.end;
    start = match.end;
    out.push_back(std::move(match));
  }
  return out;
}

std::string PythonRegex::replace(std::string_view given, std::string_view replacement) const {
  const std::string text = models::repair_utf8(given);
  std::string out;
  size_t at = 0;
  for (const Match& match : find_all(text)) {
    out.append(text, at, match.begin - at);
    for (size_t i = 0; i < replacement.size(); ++i) {
      const bool group =
          replacement[i] == '\\' && i + 1 < replacement.size() && replacement[i + 1] >= '1' && replacement[i + 1] <= '9';
      if (!group) {
        out += replacement[i];
        continue;
      }
      const auto number = static_cast<size_t>(replacement[++i] - '1');
      if (number >= match.groups.size()) fail(ErrorKind::kInvalidArgument, "'{}' has no group {}", program_->pattern, number + 1);
      out += match.groups[number];
    }
    at = match.end;
  }
  return out.append(text, at, std::string::npos);
}

}  // namespace salient::eval
