#include "eval/numeric_answer.h"

#include <algorithm>

namespace salient::eval {
namespace {

constexpr std::string_view kMark = "#### ";

bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool is_number_char(char c) { return is_digit(c) || c == '.' || c == ','; }
bool is_money_char(char c) { return is_number_char(c) || c == '$'; }

template <typename Predicate>
size_t run_length(std::string_view text, size_t begin, Predicate predicate) {
  size_t end = begin;
  while (end < text.size() && predicate(text[end])) ++end;
  return end - begin;
}

}  // namespace

std::string extract_strict(std::string_view text) {
  for (size_t at = text.find(kMark); at != std::string_view::npos; at = text.find(kMark, at + 1)) {
    const size_t begin = at + kMark.size();
    const size_t sign = begin < text.size() && text[begin] == '-' ? 1 : 0;
    const size_t length = run_length(text, begin + sign, is_number_char);
    if (length > 0) return std::string(text.substr(begin, sign + length));
  }
  return std::string(kNoAnswer);
}

std::string extract_flexible(std::string_view text) {
  std::string_view last = kNoAnswer;
  for (size_t at = 0; at < text.size();) {
    const size_t sign = text[at] == '-' ? 1 : 0;
    size_t length = run_length(text, at + sign, is_money_char);
    if (length < 2) length = run_length(text, at + sign, is_digit);  // the second alternative: one digit is enough
    if (length == 0) {
      ++at;
      continue;
    }
    last = text.substr(at, sign + length);
    at += sign + length;
  }
  return std::string(last);
}

std::string normalize_number(std::string_view text) {
  std::string out;
  for (const char c : text) {
    if (c != ',' && c != '$') out += c;
  }
  if (const size_t mark = out.rfind(kMark); mark != std::string::npos) out.erase(0, mark + kMark.size());
  // "\.$" also matches before a line feed that ends the text.
  const size_t end = !out.empty() && out.back() == '\n' ? out.size() - 1 : out.size();
  if (out.ends_with('.')) {
    out.pop_back();
  } else if (end != out.size() && end > 0 && out[end - 1] == '.') {
    out.erase(end - 1, 1);
  }
  std::transform(out.begin(), out.end(), out.begin(), [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; });
  return out;
}

bool same_number(std::string_view prediction, std::string_view reference) {
  return normalize_number(prediction) == normalize_number(reference);
}

}  // namespace salient::eval
