#include "models/gguf/gguf_pre_tokenizers.h"

#include <algorithm>
#include <vector>

#include "common/error.h"

namespace salient::models {
namespace {

// As published tokenizer.json files have them.
constexpr std::string_view kLlama3 =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view kQwen2 =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view kQwen35 =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view kTekken =
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr std::string_view kGpt4o =
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

constexpr GgufPreTokenizer kRows[] = {
    {"llama-bpe", kLlama3, false, true},
    {"llama3", kLlama3, false, true},
    {"llama-v3", kLlama3, false, true},
    {"falcon3", kLlama3, false, true},
    {"dbrx", kLlama3},
    {"qwen2", kQwen2},
    {"deepseek-r1-qwen", kQwen2},
    {"qwen35", kQwen35},
    {"tekken", kTekken, false, true},
    {"gpt-4o", kGpt4o},
    {"smollm", "", true},
    {"starcoder", "", true},
    {"refact", "", true},
    {"gpt-2", ""},
    {"phi-2", ""},
};

struct Steps {
  std::vector<std::string> regexes;
  bool digits = false;
  bool byte_level = false;
  bool gpt2_words = false;
  std::string other;  // the first step that llama.cpp has not
};

void read_steps(const Json& part, std::string_view where, Steps& steps) {
  if (!part.is_object()) return;
  const auto type = require<std::string>(part, "type", where);
  const auto refuse = [&](std::string what) {
    if (steps.other.empty()) steps.other = std::move(what);
  };
  if (type == "Sequence") {
    for (const Json& inner : require<Json>(part, "pretokenizers", where)) read_steps(inner, where, steps);
  } else if (type == "Split") {
    const Json pattern = require<Json>(part, "pattern", where);
    const auto behavior = require<std::string>(part, "behavior", where);
    const bool invert = value_or<bool>(part, "invert", false, where);
    if (!pattern.is_object() || !pattern.contains("Regex") ||
        !((behavior == "Isolated" && !invert) || (behavior == "Removed" && invert)) || steps.byte_level)
      return refuse("this kind of Split");
    steps.regexes.push_back(require<std::string>(pattern, "Regex", where));
  } else if (type == "Digits") {
    if (!value_or<bool>(part, "individual_digits", false, where) || !steps.regexes.empty()) refuse("Digits together");
    steps.digits = true;
  } else if (type == "ByteLevel") {
    steps.byte_level = true;
    steps.gpt2_words = value_or<bool>(part, "use_regex", true, where);
    if (value_or<bool>(part, "add_prefix_space", true, where)) refuse("ByteLevel with add_prefix_space");
  } else {
    refuse(type);
  }
}

std::string names() {
  std::string list;
  for (const GgufPreTokenizer& row : kRows) list += (list.empty() ? "" : ", ") + std::string(row.name);
  return list;
}

}  // namespace

std::span<const GgufPreTokenizer> gguf_pre_tokenizers() { return kRows; }

const GgufPreTokenizer& choose_pre_tokenizer(const Json& pre_tokenizer, bool ignore_merges, std::string_view where) {
  Steps steps;
  read_steps(pre_tokenizer, where, steps);
  if (!steps.other.empty() || !steps.byte_level)
    fail(ErrorKind::kUnsupported, "{}: llama.cpp has no pre-tokenizer with {}", where,
         steps.other.empty() ? "no ByteLevel" : steps.other);
  for (const GgufPreTokenizer& row : kRows) {
    const bool words = row.regex.empty() ? steps.gpt2_words && steps.regexes.empty()
                                         : !steps.gpt2_words && steps.regexes.size() == 1 && steps.regexes.front() == row.regex;
    if (words && row.digits == steps.digits && row.ignore_merges == ignore_merges) return row;
  }
  fail(ErrorKind::kUnsupported, "{}: none of llama.cpp's pre-tokenizers ({}) cuts words like [{}]{}{}", where, names(),
       fmt::join(steps.regexes, "], ["), steps.digits ? " after single digits" : "", ignore_merges ? " with ignore_merges" : "");
}

const GgufPreTokenizer& find_pre_tokenizer(std::string_view name, std::string_view where) {
  const auto* const row =
      std::find_if(std::begin(kRows), std::end(kRows), [name](const GgufPreTokenizer& r) { return r.name == name; });
  if (row == std::end(kRows))
    fail(ErrorKind::kUnsupported, "{}: tokenizer.ggml.pre '{}' cannot be read, only {}", where, name, names());
  return *row;
}

Json make_pre_tokenizer(const GgufPreTokenizer& row) {
  Json steps = Json::array();
  if (row.digits) steps.push_back({{"type", "Digits"}, {"individual_digits", true}});
  if (!row.regex.empty())
    steps.push_back({{"type", "Split"}, {"pattern", {{"Regex", row.regex}}}, {"behavior", "Isolated"}, {"invert", false}});
  steps.push_back({{"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", true}, {"use_regex", row.regex.empty()}});
  return {{"type", "Sequence"}, {"pretokenizers", std::move(steps)}};
}

}  // namespace salient::models
