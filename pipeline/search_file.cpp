#include "pipeline/search_file.h"

#include <ATen/TensorOperators.h>

#include <array>
#include <utility>

#include "common/error.h"
#include "common/file.h"
#include "common/hash.h"
#include "models/io/safetensors.h"
#include "pipeline/llm_awq_search.h"

namespace salient::pipeline {
namespace fs = std::filesystem;
namespace {

constexpr std::string_view kScales = "scales.";
constexpr std::string_view kLow = "clip_low.";
constexpr std::string_view kHigh = "clip_high.";
constexpr std::string_view kValues = "clip_values.";
constexpr std::string_view kLimit = "clip_limit.";

struct ClipPart {
  std::string_view prefix;
  at::Tensor FoundClip::*tensor;
  int64_t dimensions;
};
constexpr std::array kClipParts = {ClipPart{kLow, &FoundClip::low, 2}, ClipPart{kHigh, &FoundClip::high, 2},
                                   ClipPart{kValues, &FoundClip::values, 1}, ClipPart{kLimit, &FoundClip::limit, 2}};

std::map<std::string, std::string> metadata_of(const SearchResult& search, const Json& groups, const std::string& job) {
  return {{"format", kSearchFormat},
          {"model_type", search.model_type},
          {"fingerprint", search.fingerprint},
          {"job", job},
          {"settings", dump_json(search.settings)},
          {"groups", dump_json(groups)}};
}

Json groups_json(const SearchResult& search) {
  Json groups = Json::object();
  for (const auto& [name, found] : search.scales)
    groups[name] = {{"balance", found.balance}, {"kind", found.kind}, {"ratio", found.ratio}};
  return groups;
}

void append_tensors(const SearchResult& search, std::vector<models::NamedTensor>& tensors) {
  for (const auto& [name, found] : search.scales) tensors.push_back({std::string(kScales) + name, found.scales});
  for (const auto& [name, clip] : search.clips) {
    for (const ClipPart& part : kClipParts) {
      if ((clip.*part.tensor).defined()) tensors.push_back({std::string(part.prefix) + name, clip.*part.tensor});
    }
  }
}

std::string text_of(const models::SafetensorsFile& file, const std::string& key) {
  const auto found = file.metadata().find(key);
  return found == file.metadata().end() ? "" : found->second;
}

FoundScales read_group(const Json& group, const std::string& where) {
  FoundScales found;
  for (const Json& module : require<Json>(group, "balance", where)) {
    if (!module.is_string()) fail(ErrorKind::kCorruption, "{}: balance: found {}, expected names", where, module.type_name());
    found.balance.push_back(module.get<std::string>());
  }
  found.kind = require<std::string>(group, "kind", where);
  found.ratio = require<double>(group, "ratio", where);
  return found;
}

// The clip of one linear must be whole: two ends of one shape, whose places are in the list; or a limit alone.
void check_clip(const FoundClip& clip, const std::string& where) {
  if (clip.limit.defined()) {
    const bool sound = clip.limit.scalar_type() == at::kFloat && (clip.limit >= 0).all().item<bool>();
    if (!sound || clip.low.defined() || clip.high.defined())
      fail(ErrorKind::kCorruption, "{}: expected {} as float32, 0 or more, and no other range beside it", where, kLimit);
    return;
  }
  if (!clip.low.defined() || !clip.high.defined() || clip.low.sizes() != clip.high.sizes() ||
      clip.low.scalar_type() != clip.high.scalar_type())
    fail(ErrorKind::kCorruption, "{}: expected {} and {} of one shape and dtype", where, kLow, kHigh);
  if (clip.low.scalar_type() != (clip.values.defined() ? at::kByte : at::kFloat))
    fail(ErrorKind::kCorruption, "{}: found {}, expected uint8 with {} and float32 without", where,
         c10::toString(clip.low.scalar_type()), kValues);
  const at::Tensor& factors = clip.values.defined() ? clip.values : clip.low;
  const auto within = [](const at::Tensor& x) { return (x >= 0).logical_and(x <= 1).all().item<bool>(); };
  if (factors.scalar_type() != at::kFloat || !within(factors) || (!clip.values.defined() && !within(clip.high)))
    fail(ErrorKind::kCorruption, "{}: expected float32 factors from 0 to 1", where);
  if (!clip.values.defined()) return;
  const auto largest = [](const at::Tensor& places) { return places.numel() == 0 ? 0 : places.max().item<int64_t>(); };
  if (std::max(largest(clip.low), largest(clip.high)) >= clip.values.numel())
    fail(ErrorKind::kCorruption, "{}: a place beyond the {} values of {}", where, clip.values.numel(), kValues);
}

SearchResult read_safetensors(const fs::path& path) {
  const models::SafetensorsFile file(path);
  if (text_of(file, "format") != kSearchFormat) {
    throw Error(ErrorKind::kCorruption, fmt::format("{}: the format in its metadata is '{}', expected '{}': no search result",
                                                    path.string(), text_of(file, "format"), kSearchFormat))
        .with_hint("salient quantize --save-search writes one");
  }
  SearchResult search;
  search.model_type = text_of(file, "model_type");
  search.fingerprint = text_of(file, "fingerprint");
  search.settings = parse_json(text_of(file, "settings"), path.string() + ": settings");
  const Json groups = parse_json(text_of(file, "groups"), path.string() + ": groups");
  for (const auto& [name, group] : groups.items())
    search.scales[name] = read_group(group, fmt::format("{}: groups: '{}'", path.string(), name));
  for (const auto& [name, info] : file.tensors()) {
    const std::string where = fmt::format("{}: tensor '{}'", path.string(), name);
    if (name.starts_with(kScales)) {
      const auto group = search.scales.find(name.substr(kScales.size()));
      if (group == search.scales.end()) fail(ErrorKind::kCorruption, "{}: no such group in the file's metadata", where);
      if (info.dtype != at::kFloat || info.shape.size() != 1)
        fail(ErrorKind::kCorruption, "{}: found {} of {} dimensions, expected float32 of one", where, c10::toString(info.dtype),
             info.shape.size());
      group->second.scales = file.view(name);
      continue;
    }
    bool known = false;
    for (const ClipPart& part : kClipParts) {
      if (!name.starts_with(part.prefix)) continue;
      known = true;
      if (static_cast<int64_t>(info.shape.size()) != part.dimensions)
        fail(ErrorKind::kCorruption, "{}: found {} dimensions, expected {}", where, info.shape.size(), part.dimensions);
      search.clips[name.substr(part.prefix.size())].*part.tensor = file.view(name);
    }
    if (!known) fail(ErrorKind::kCorruption, "{}: no tensor of a search result has such a name", where);
  }
  for (const auto& [name, found] : search.scales) {
    if (!found.scales.defined())
      fail(ErrorKind::kCorruption, "{}: group '{}' has no tensor {}{}", path.string(), name, kScales, name);
  }
  for (const auto& [name, clip] : search.clips) check_clip(clip, fmt::format("{}: clip range of '{}'", path.string(), name));
  return search;
}

}  // namespace

void write_search(const fs::path& path, const SearchResult& search, const std::string& job) {
  std::vector<models::NamedTensor> tensors;
  append_tensors(search, tensors);
  models::write_safetensors(path, tensors, metadata_of(search, groups_json(search), job));
}

fs::path search_part(const fs::path& work_folder, int64_t block) { return work_folder / fmt::format("search_{}.bin", block); }

bool is_search_part(const std::string& name) { return name.starts_with("search_") && name.ends_with(".bin"); }

void join_search_parts(const fs::path& path, const fs::path& work_folder, int64_t blocks, const SearchResult& whole,
                       const std::string& job) {
  std::vector<models::NamedTensor> tensors;  // views of the parts
  Json groups = Json::object();
  for (int64_t block = 0; block < blocks; ++block) {
    const SearchResult part = read_safetensors(search_part(work_folder, block));
    groups.update(groups_json(part));
    append_tensors(part, tensors);
  }
  models::write_safetensors(path, tensors, metadata_of(whole, groups, job));
}

SearchResult read_search(const fs::path& path) {
  SearchResult search = is_llm_awq_search(path) ? read_llm_awq_search(path) : read_safetensors(path);
  search.file = path.string();
  search.sha256 = sha256_file(path);
  return search;
}

std::string search_file_job(const fs::path& path) {
  try {
    const models::SafetensorsFile file(path);
    return text_of(file, "format") == kSearchFormat ? text_of(file, "job") : "";
  } catch (const Error&) {
    return "";
  }
}

}  // namespace salient::pipeline
