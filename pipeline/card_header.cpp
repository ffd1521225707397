#include "pipeline/card_header.h"

#include <string>
#include <string_view>

#include "common/error.h"
#include "common/file.h"
#include "common/yaml.h"

namespace salient::pipeline {
namespace fs = std::filesystem;
namespace {

std::string header_of(const fs::path& card) {
  const std::string text = read_text_file(card);
  constexpr std::string_view kLine = "---\n";
  if (!text.starts_with(kLine)) return "";
  const size_t end = text.find("\n---", kLine.size() - 1);
  return end == std::string::npos ? "" : text.substr(kLine.size(), end + 1 - kLine.size());
}

}  // namespace

Json read_card_header(const fs::path& card) {
  if (!fs::is_regular_file(card)) return {};
  try {
    return ConfigNode::parse(header_of(card), card.string()).to_json();
  } catch (const Error&) {
    return {};
  }
}

}  // namespace salient::pipeline
