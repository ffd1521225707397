#include "pipeline/batch/name_words.h"

#include <algorithm>
#include <array>
#include <cctype>

namespace salient::pipeline {
namespace {

constexpr std::array<std::string_view, 46> kWords = {
    "awq",       "autoawq",     "gptq",     "gptqmodel",  "rtn",      "imatrix",       "imat",        "quantized",
    "quantised", "quant",       "quants",   "quantize",   "gguf",     "ggml",          "marlin",      "gemm",
    "gemv",      "fast",        "packed",   "compressed", "tensors",  "llmcompressor", "torchscript", "script",
    "scripted",  "traced",      "jit",      "pt",         "ts",       "safetensors",   "hf",          "export",
    "exported",  "dequantized", "smoothed", "sym",        "asym",     "fp32",          "fp16",        "bf16",
    "f32",       "f16",         "float32",  "float16",    "bfloat16", "float"};

// Behind one of llama.cpp's types only: Q4_K_M, IQ3_XXS, Q5_1.
constexpr std::array<std::string_view, 11> kTypeEndings = {"0", "1", "k", "s", "m", "l", "xs", "xl", "xxs", "nl", "p"};

// A prefix and a number: w4, g128, kv8. Several in one word: w4a16, w4g128.
constexpr std::array<std::string_view, 6> kNumbered = {"kv", "int", "group", "w", "a", "g"};

bool is_digit(char c) { return std::isdigit(static_cast<unsigned char>(c)) != 0; }

template <typename List>
bool holds(const List& list, std::string_view word) {
  return std::find(list.begin(), list.end(), word) != list.end();
}

// "q4", "iq3", "tq2".
bool is_ggml_type(std::string_view word) {
  for (const std::string_view prefix : {"iq", "tq", "q"}) {
    if (!word.starts_with(prefix)) continue;
    const std::string_view rest = word.substr(prefix.size());
    return rest.size() == 1 && is_digit(rest.front());
  }
  return false;
}

bool is_numbered(std::string_view word) {
  if (word.empty()) return false;
  while (!word.empty()) {
    const auto prefix = std::find_if(kNumbered.begin(), kNumbered.end(), [&](std::string_view p) { return word.starts_with(p); });
    if (prefix == kNumbered.end()) return false;
    word.remove_prefix(prefix->size());
    const size_t digits = static_cast<size_t>(std::find_if_not(word.begin(), word.end(), is_digit) - word.begin());
    if (digits == 0) return false;
    word.remove_prefix(digits);
  }
  return true;
}

// "4bit", "head" with its dtype ("headfp16"), "int4".
bool is_quantization_word(std::string_view word) {
  if (holds(kWords, word) || is_ggml_type(word) || is_numbered(word)) return true;
  if (word.size() > 3 && is_digit(word.front()) && (word.substr(1) == "bit" || word.substr(1) == "bits")) return true;
  return word.starts_with("head") && word.size() > 4 && (is_digit(word.back()));
}

}  // namespace

std::vector<std::string> name_words(std::string_view name) {
  std::vector<std::string> words(1);
  for (size_t i = 0; i < name.size(); ++i) {
    const char c = name[i];
    const bool in_number = c == '.' && i > 0 && i + 1 < name.size() && is_digit(name[i - 1]) && is_digit(name[i + 1]);
    if (c == '-' || c == '_' || c == ' ' || (c == '.' && !in_number)) {
      if (!words.back().empty()) words.emplace_back();
    } else {
      words.back() += static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
    }
  }
  if (words.back().empty()) words.pop_back();
  return words;
}

std::vector<std::string> model_words(std::string_view name) {
  std::vector<std::string> kept;
  bool type = false;  // the word before belongs to one of llama.cpp's types
  for (std::string& word : name_words(name)) {
    if (type && holds(kTypeEndings, word)) continue;
    type = is_ggml_type(word);
    if (!is_quantization_word(word)) kept.push_back(std::move(word));
  }
  return kept;
}

}  // namespace salient::pipeline
