#include "models/text/regex.h"

#include <algorithm>
#include <cstdint>

#include "common/error.h"
#include "models/text/pcre2_handles.h"
#include "models/text/regex_translate.h"
#include "models/text/unicode.h"
#include "models/text/utf8.h"

namespace salient::models {
namespace {

// Backtracking steps and memory for one match: enough for a megabyte of one character, not for an exponential pattern.
constexpr uint32_t kMatchLimit = 500'000'000;
constexpr uint32_t kHeapKib = uint32_t{1} << 20;  // without the compiler; PCRE2's own limit is 20 GB
constexpr size_t kJitStackStart = size_t{1} << 16;
constexpr size_t kJitStackMost = size_t{1} << 28;  // reserved only when the default 32 KiB do not do, touched only as far as needed

}  // namespace

struct Regex::Program {
  std::string pattern;
  pcre2::Code code;

  // One search over a text; what PCRE2 writes to while it matches belongs to the call, never to the program.
  class Search {
   public:
    Search(const Program& program, std::string_view text)
        : program_(program),
          text_(text),
          data_(pcre2_match_data_create(1, nullptr)),
          context_(pcre2_match_context_create(nullptr)) {
      if (!data_ || !context_) fail(ErrorKind::kInternal, "out of memory for a regular expression match");
      pcre2_set_match_limit(context_.get(), kMatchLimit);
      pcre2_set_heap_limit(context_.get(), kHeapKib);
    }

    // The leftmost match at or behind `start`; false when there is none.
    bool next(size_t start, TextRange& found) {
      int result = run(start, 0);
      if (result == PCRE2_ERROR_JIT_STACKLIMIT && !stack_) {
        stack_.reset(pcre2_jit_stack_create(kJitStackStart, kJitStackMost, nullptr));
        if (stack_) pcre2_jit_stack_assign(context_.get(), nullptr, stack_.get());
        result = run(start, 0);
      }
      if (result == PCRE2_ERROR_JIT_STACKLIMIT) result = run(start, PCRE2_NO_JIT);
      if (result == PCRE2_ERROR_NOMATCH) return false;
      if (result < 0) {
        fail(ErrorKind::kUnsupported, "the tokenizer's regular expression '{}' gives up on {} bytes of text at byte {}: {}",
             program_.pattern, text_.size(), start, pcre2::message_of(result));
      }
      const PCRE2_SIZE* offsets = pcre2_get_ovector_pointer(data_.get());
      // \K inside a lookaround can put the beginning behind the end, or before the start: into a match that is taken already.
      const size_t end = std::max<size_t>(start, offsets[1]);
      found = {std::clamp<size_t>(offsets[0], start, end), end};
      return true;
    }

   private:
    int run(size_t start, uint32_t options) {
      return pcre2_match(program_.code.get(), reinterpret_cast<PCRE2_SPTR>(text_.data()), text_.size(), start,
                         options | PCRE2_NO_UTF_CHECK, data_.get(), context_.get());
    }

    const Program& program_;
    std::string_view text_;
    pcre2::MatchData data_;
    pcre2::JitStack stack_;
    pcre2::MatchContext context_;
  };
};

Regex::Regex(std::string_view pattern, std::string_view where) {
  const std::string translated = translate_regex(pattern);
  pcre2::CompileContext context(pcre2_compile_context_create(nullptr));
  if (!context) fail(ErrorKind::kInternal, "out of memory for a regular expression");
  pcre2_set_newline(context.get(), PCRE2_NEWLINE_LF);
  pcre2_set_bsr(context.get(), PCRE2_BSR_UNICODE);
  int error = 0;
  PCRE2_SIZE offset = 0;
  auto program = std::make_shared<Program>();
  program->pattern = pattern;
  // In Oniguruma ^ and $ always match at lines.
  program->code.reset(pcre2_compile(reinterpret_cast<PCRE2_SPTR>(translated.data()), translated.size(),
                                    PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_DUPNAMES | PCRE2_NEVER_BACKSLASH_C, &error,
                                    &offset, context.get()));
  if (!program->code) {
    const std::string as_pcre = translated == pattern ? "" : fmt::format(" of its PCRE2 form '{}'", translated);
    fail(ErrorKind::kCorruption, "{}: bad regular expression '{}': {} at byte {}{}", where, pattern, pcre2::message_of(error),
         offset, as_pcre);
  }
  // Without a compiler for this machine the interpreter does the same, only slower.
  pcre2_jit_compile(program->code.get(), PCRE2_JIT_COMPLETE);
  program_ = std::move(program);
}

std::vector<TextRange> Regex::find_all(std::string_view text) const {
  std::string replaced;
  if (std::any_of(text.begin(), text.end(), [](char c) { return static_cast<unsigned char>(c) >= 0x80; })) {
    replaced = with_stand_ins(text);
    text = replaced;
  }
  std::vector<TextRange> matches;
  Program::Search search(*program_, text);
  TextRange found{};
  size_t start = 0;
  while (start <= text.size() && search.next(start, found)) {
    if (found.begin == found.end && !matches.empty() && matches.back().end == found.end) {
      if (start == text.size()) break;
      next_code_point(text, start);
      continue;
    }
    matches.push_back(found);
    start = found.end;
  }
  return matches;
}

}  // namespace salient::models
