#include "pipeline/artifact_name.h"

#include <algorithm>

#include "common/error.h"
#include "common/text.h"

namespace salient::pipeline {
namespace {

constexpr std::string_view kSuffix = "_quantized";

bool is_name_character(char c) {
  return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '.' || c == '_' || c == '-';
}

std::string_view part_title(NamePart part) {
  switch (part) {
    case NamePart::kBaseModel: return "base model";
    case NamePart::kDataset: return "dataset";
    case NamePart::kMethod: return "training method";
    case NamePart::kPeft: return "peft";
  }
  return "part";
}

// The character that a part may not hold because the name is split there; '\0' = none.
char forbidden_separator(NamePart part) {
  switch (part) {
    case NamePart::kBaseModel: return '\0';
    case NamePart::kDataset: return '-';
    case NamePart::kMethod:
    case NamePart::kPeft: return '_';
  }
  return '\0';
}

bool is_allowed(NamePart part, std::string_view text) {
  const auto is_edge = [](char c) { return c == '-' || c == '.'; };
  return !text.empty() && std::all_of(text.begin(), text.end(), is_name_character) && !is_edge(text.front()) &&
         !is_edge(text.back()) && text.find(forbidden_separator(part)) == std::string_view::npos &&
         text.find("--") == std::string_view::npos && text.find("..") == std::string_view::npos;
}

void check_part(NamePart part, const std::string& text) {
  if (is_allowed(part, text)) return;
  fail(ErrorKind::kInvalidArgument, "artifact name: {} '{}' cannot stand in a file name, expected something like '{}'",
       part_title(part), shorten(one_line(text), 80), sanitise_name_part(part, text));
}

// Removes what stands behind the last `separator` of `text` and returns it; nothing when there is none.
std::optional<std::string> take_last(std::string_view& text, char separator) {
  const size_t at = text.rfind(separator);
  if (at == std::string_view::npos) return std::nullopt;
  std::string last(text.substr(at + 1));
  text = text.substr(0, at);
  return last;
}

}  // namespace

std::string make_artifact_name(const ArtifactName& name) {
  check_part(NamePart::kBaseModel, name.base_model);
  check_part(NamePart::kDataset, name.dataset);
  check_part(NamePart::kMethod, name.method);
  check_part(NamePart::kPeft, name.peft);
  quant::validate(name.spec);
  const std::string text = fmt::format("{}-{}_{}_{}_{}{}", name.base_model, name.dataset, name.method, name.peft,
                                       quant::to_tag(name.spec, name.quantization_method), name.quantized ? kSuffix : "");
  if (text.size() > kLongestArtifactName) {
    throw Error(ErrorKind::kInvalidArgument,
                fmt::format("artifact name: '{}' has {} characters, the Hugging Face Hub takes at most {}", text, text.size(),
                            kLongestArtifactName))
        .with_hint("give a shorter base model or dataset name: model.base_model, dataset.name in the configuration");
  }
  return text;
}

std::optional<ArtifactName> parse_artifact_name(std::string_view text) {
  if (text.size() > kLongestArtifactName) return std::nullopt;
  ArtifactName name;
  name.quantized = text.ends_with(kSuffix);
  if (name.quantized) text.remove_suffix(kSuffix.size());

  // The tag is the shortest end that reads as one.
  bool found = false;
  for (size_t at = text.rfind('_'); at != std::string_view::npos && at > 0; at = text.rfind('_', at - 1)) {
    const std::string_view tag = text.substr(at + 1);
    const auto spec = quant::parse_tag(tag);
    if (!spec) continue;
    name.quantization_method = tag.substr(0, tag.find('_'));
    if (quant::to_tag(*spec, name.quantization_method) != tag) return std::nullopt;
    name.spec = *spec;
    text = text.substr(0, at);
    found = true;
    break;
  }
  if (!found) return std::nullopt;

  const auto peft = take_last(text, '_');
  const auto method = take_last(text, '_');
  const auto dataset = take_last(text, '-');
  if (!peft || !method || !dataset) return std::nullopt;
  name.base_model = text;
  name.dataset = *dataset;
  name.method = *method;
  name.peft = *peft;
  const bool allowed = is_allowed(NamePart::kBaseModel, name.base_model) && is_allowed(NamePart::kDataset, name.dataset) &&
                       is_allowed(NamePart::kMethod, name.method) && is_allowed(NamePart::kPeft, name.peft) &&
                       std::all_of(name.quantization_method.begin(), name.quantization_method.end(), is_name_character);
  return allowed ? std::optional(name) : std::nullopt;
}

std::string sanitise_name_part(NamePart part, std::string_view text) {
  const std::string_view given = text;
  while (!text.empty() && text.back() == '/') text.remove_suffix(1);
  if (const size_t slash = text.rfind('/'); slash != std::string_view::npos) text.remove_prefix(slash + 1);

  const char replacement = part == NamePart::kDataset ? '_' : '-';
  std::string clean;
  for (const char c : text) {
    const char kept = is_name_character(c) && c != forbidden_separator(part) ? c : replacement;
    const bool repeats = !clean.empty() && clean.back() == kept && (kept == '-' || kept == '.' || kept != c);
    if (!repeats) clean += kept;
  }
  const size_t first = clean.find_first_not_of("-.");
  const size_t last = clean.find_last_not_of("-.");
  clean = first == std::string::npos ? "" : clean.substr(first, last - first + 1);
  if (clean.find_first_not_of("_") == std::string::npos) {
    fail(ErrorKind::kInvalidArgument, "artifact name: {} '{}' has no letter or digit", part_title(part),
         shorten(one_line(given), 80));
  }
  return clean;
}

}  // namespace salient::pipeline
