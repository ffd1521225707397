#include "models/io/checkpoint.h"

#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <c10/core/ScalarType.h>

#include <algorithm>
#include <atomic>
#include <optional>
#include <set>
#include <string_view>
#include <system_error>

#include "common/cancellation.h"
#include "common/error.h"
#include "common/text.h"
#include "models/gguf/gguf_checkpoint.h"
#include "models/io/adapter.h"
#include "models/io/links.h"
#include "models/io/merge_adapter.h"
#include "models/io/model_files.h"

namespace salient::models {
namespace fs = std::filesystem;
namespace {

constexpr const char* kSingleFile = "model.safetensors";
constexpr const char* kIndexFile = "model.safetensors.index.json";
constexpr size_t kListed = 5;  // names given in an error before "and ... more"

std::string list_some(const std::vector<std::string>& names) {
  const auto end = names.begin() + static_cast<std::ptrdiff_t>(std::min(names.size(), kListed));
  std::string text = fmt::format("{}", fmt::join(names.begin(), end, ", "));
  if (names.size() > kListed) text += fmt::format(" and {} more", names.size() - kListed);
  return text;
}

template <typename Value>
std::vector<std::string> nearest_names(const std::string& name, const std::map<std::string, Value>& known) {
  std::vector<std::pair<size_t, std::string>> ranked;
  for (const auto& [candidate, value] : known) ranked.emplace_back(edit_distance(name, candidate), candidate);
  const size_t count = std::min<size_t>(3, ranked.size());
  std::partial_sort(ranked.begin(), ranked.begin() + static_cast<std::ptrdiff_t>(count), ranked.end());
  std::vector<std::string> names;
  for (size_t i = 0; i < count; ++i) names.push_back(ranked[i].second);
  return names;
}

[[noreturn]] void fail_without_weights(const fs::path& folder) {
  for (const char* other :
       {"pytorch_model.bin", "pytorch_model.bin.index.json", "model.pt", "consolidated.00.pth", "tf_model.h5"}) {
    if (!fs::exists(folder / other)) continue;
    throw Error(ErrorKind::kUnsupported,
                fmt::format("{}: the weights are in {}, expected {} or {}", folder.string(), other, kSingleFile, kIndexFile))
        .with_hint("load the model in transformers and save it with save_pretrained(folder, safe_serialization=True)");
  }
  std::vector<std::string> found;
  for (const fs::directory_entry& entry : fs::directory_iterator(folder)) {
    if (entry.path().extension() == ".safetensors") found.push_back(entry.path().filename().string());
  }
  std::sort(found.begin(), found.end());
  fail(ErrorKind::kNotFound, "{}: no weights: expected {} or {}, found {}", folder.string(), kSingleFile, kIndexFile,
       found.empty() ? "no .safetensors file" : list_some(found));
}

// Tensor name -> shard file name, as the index says. File names are plain: an index must not lead out of its folder.
std::map<std::string, std::string> read_index(const fs::path& path) {
  const Json index = read_json_file(path);
  const Json map = require<Json>(index, "weight_map", path.string());
  if (!map.is_object())
    fail(ErrorKind::kCorruption, "{}: weight_map is a JSON {}, expected an object", path.string(), map.type_name());
  std::map<std::string, std::string> result;
  for (const auto& [name, value] : map.items()) {
    const std::string file = require<std::string>(map, name, path.string() + ": weight_map");
    if (!is_plain_file_name(file))
      fail(ErrorKind::kCorruption, "{}: tensor '{}' lies in '{}', expected a file name without folders", path.string(), name, file);
    result[name] = file;
  }
  if (result.empty()) fail(ErrorKind::kCorruption, "{}: weight_map is empty", path.string());
  return result;
}

// Index of the first element whose exponent bits are all set (NaN or Inf). Blocks are tested without a branch inside, so that the
// loop vectorizes.
template <typename Word>
std::optional<int64_t> find_exponent(const void* data, int64_t count, Word exponent) {
  constexpr int64_t kBlock = 4096;
  const auto* words = static_cast<const Word*>(data);
  for (int64_t begin = 0; begin < count; begin += kBlock) {
    const int64_t end = std::min(count, begin + kBlock);
    Word any = 0;
    for (int64_t i = begin; i < end; ++i) any |= static_cast<Word>((words[i] & exponent) == exponent);
    if (any == 0) continue;
    for (int64_t i = begin; i < end; ++i) {
      if ((words[i] & exponent) == exponent) return i;
    }
  }
  return std::nullopt;
}

// The first such element, searched by all threads.
template <typename Word>
std::optional<int64_t> find_first_exponent(const void* data, int64_t count, Word exponent) {
  constexpr int64_t kGrain = int64_t{1} << 20;
  std::atomic<int64_t> first = count;
  at::parallel_for(0, count, kGrain, [&](int64_t begin, int64_t end) {
    const auto found = find_exponent(static_cast<const Word*>(data) + begin, end - begin, exponent);
    if (!found) return;
    int64_t known = first.load();
    while (begin + *found < known && !first.compare_exchange_weak(known, begin + *found)) {
    }
  });
  return first < count ? std::optional<int64_t>(first) : std::nullopt;
}

// `tensor`: contiguous, on the CPU.
std::optional<int64_t> find_non_finite(const at::Tensor& tensor) {
  const void* data = tensor.const_data_ptr();
  switch (tensor.scalar_type()) {
    case at::kDouble: return find_first_exponent<uint64_t>(data, tensor.numel(), 0x7ff0'0000'0000'0000);
    case at::kFloat: return find_first_exponent<uint32_t>(data, tensor.numel(), 0x7f80'0000);
    case at::kHalf: return find_first_exponent<uint16_t>(data, tensor.numel(), 0x7c00);
    case at::kBFloat16: return find_first_exponent<uint16_t>(data, tensor.numel(), 0x7f80);
    default: return std::nullopt;
  }
}

}  // namespace

Checkpoint::Checkpoint(const fs::path& path) : folder_(path) {
  if (const auto file = find_gguf_model(path)) {
    folder_ = *file;
    gguf_ = std::make_shared<const GgufCheckpoint>(*file);
    config_ = gguf_->config();
    for (const auto& [name, info] : gguf_->tensors()) places_.emplace(name, Place{0, name});
    return;
  }
  if (!is_adapter(path)) {
    open_folder(path);
    return;
  }
  check_links(path);
  const Adapter adapter = read_adapter(path);
  const fs::path base = adapter_base(adapter);
  with_context(path.string(), [&] { open_folder(base); });
  merge_adapter(*this, adapter);
}

void Checkpoint::open_folder(const fs::path& folder) {
  if (!fs::is_directory(folder))
    fail(ErrorKind::kNotFound, "{}: no such folder, expected a checkpoint folder with config.json", folder.string());
  check_links(folder);
  config_ = read_json_file(folder / "config.json");
  if (!config_.is_object())
    fail(ErrorKind::kCorruption, "{}: expected a JSON object, found {}", (folder / "config.json").string(), config_.type_name());

  std::map<std::string, std::string> indexed;
  std::vector<std::string> file_names;
  if (fs::exists(folder / kSingleFile)) {
    file_names.push_back(kSingleFile);
  } else if (fs::exists(folder / kIndexFile)) {
    indexed = read_index(folder / kIndexFile);
    std::set<std::string> unique;
    for (const auto& [name, file] : indexed) unique.insert(file);
    file_names.assign(unique.begin(), unique.end());
    std::vector<std::string> missing;
    for (const std::string& file : file_names) {
      std::error_code error;  // a name may be too long for any file
      if (!fs::exists(folder / file, error)) missing.push_back(file);
    }
    if (!missing.empty()) {
      throw Error(ErrorKind::kNotFound, fmt::format("{}: {} of {} shards that {} names are missing: {}", folder.string(),
                                                    missing.size(), file_names.size(), kIndexFile, fmt::join(missing, ", ")))
          .with_hint("download or copy the missing files; the checkpoint is incomplete");
    }
  } else {
    fail_without_weights(folder);
  }

  for (const std::string& file : file_names) {
    files_.emplace_back(folder / file);
    for (const auto& [name, info] : files_.back().tensors()) {
      const auto [it, inserted] = places_.emplace(name, Place{files_.size() - 1, name});
      if (!inserted) {
        fail(ErrorKind::kCorruption, "{}: tensor '{}' is in two shards, {} and {}", folder.string(), name,
             file_names[it->second.file], file);
      }
    }
  }
  std::vector<std::string> absent;
  for (const auto& [name, file] : indexed) {
    if (!places_.contains(name)) absent.push_back(fmt::format("{} (should be in {})", name, file));
  }
  if (!absent.empty()) {
    fail(ErrorKind::kCorruption, "{}: {} tensors of the index are in no shard: {}", (folder / kIndexFile).string(), absent.size(),
         list_some(absent));
  }
}

std::vector<std::string> Checkpoint::names() const {
  std::vector<std::string> result;
  result.reserve(places_.size());
  for (const auto& [name, place] : places_) result.push_back(name);
  return result;
}

const Checkpoint::Place& Checkpoint::place_of(const std::string& name) const {
  const auto it = places_.find(name);
  if (it == places_.end()) {
    fail(ErrorKind::kNotFound, "{}: no tensor '{}'; the nearest of {} names: {}", folder_.string(), name, places_.size(),
         fmt::join(nearest_names(name, places_), ", "));
  }
  return it->second;
}

const TensorInfo& Checkpoint::info(const std::string& name) const {
  if (const auto changed = changed_.find(name); changed != changed_.end()) return changed->second.info;
  const Place& place = place_of(name);
  return gguf_ ? gguf_->tensors().at(name) : files_[place.file].info(place.stored);
}

const fs::path& Checkpoint::file_of(const std::string& name) const {
  const Place& place = place_of(name);
  return gguf_ ? gguf_->path() : files_[place.file].path();
}

at::Tensor Checkpoint::stored_view(const std::string& name) const {
  const Place& place = place_of(name);
  return gguf_ ? gguf_->load(name) : files_[place.file].view(place.stored);
}

at::Tensor Checkpoint::view(const std::string& name) const {
  at::Tensor shown = stored_view(name);
  const auto changed = changed_.find(name);
  if (changed == changed_.end()) return shown;
  for (const TensorChange& change : changed->second.changes) shown = change.apply(shown, /*part=*/false);
  return shown.to(changed->second.info.dtype);
}

void Checkpoint::change(std::map<std::string, TensorChange> tensors, Json config) {
  if (gguf_) fail(ErrorKind::kInvalidArgument, "{}: the tensors of a GGUF file are not changed", folder_.string());
  for (auto& [name, change] : tensors) {
    Changed& changed = changed_.try_emplace(name, Changed{info(name), {}}).first->second;
    changed.info.shape = change.shape;
    changed.changes.push_back(std::move(change));
  }
  config_ = std::move(config);
}

size_t Checkpoint::add_file(const fs::path& path) {
  if (gguf_) fail(ErrorKind::kInvalidArgument, "{}: no file is added to a GGUF file", folder_.string());
  files_.emplace_back(path);
  return files_.size() - 1;
}

void Checkpoint::show(const std::string& name, size_t file, const std::string& stored) {
  files_[file].info(stored);
  places_.insert_or_assign(name, Place{file, stored});
}

void Checkpoint::show_original(const std::string& name, const std::string& original) {
  if (gguf_) fail(ErrorKind::kInvalidArgument, "{}: the tensors of a GGUF file are not changed", folder_.string());
  places_.insert_or_assign(name, Place(place_of(original)));
}

at::Tensor Checkpoint::copy_checked(const std::string& name, const std::vector<int64_t>& expected_shape,
                                    std::optional<int64_t> part, at::ScalarType dtype) const {
  const TensorInfo& info = this->info(name);
  const std::string where = fmt::format("{}: tensor '{}'", file_of(name).string(), name);
  if (info.shape != expected_shape) {
    fail(ErrorKind::kCorruption, "{}: shape is [{}], expected [{}] from config.json", where, fmt::join(info.shape, ", "),
         fmt::join(expected_shape, ", "));
  }
  if (at::isFloatingType(info.dtype) != at::isFloatingType(dtype)) {
    fail(ErrorKind::kCorruption, "{}: dtype is {}, expected {} type", where, safetensors_dtype_name(info.dtype),
         at::isFloatingType(dtype) ? "a floating-point" : "an integer");
  }
  const auto check_finite = [&](const at::Tensor& tensor, const std::string& what) {
    if (const auto bad = find_non_finite(tensor)) {
      fail(ErrorKind::kCorruption, "{}{}: element {} (of {}) is {}, expected finite numbers", where, what, *bad, tensor.numel(),
           tensor.flatten()[*bad].item<double>());
    }
  };
  const at::Tensor whole = stored_view(name);
  at::Tensor shown = part ? whole.select(0, *part) : whole;
  check_finite(shown, "");
  bool own = gguf_ && !part;  // in memory of its own already
  if (const auto changed = changed_.find(name); changed != changed_.end()) {
    for (const TensorChange& change : changed->second.changes) {
      shown = change.apply(shown, part.has_value());
      check_finite(shown, ", " + change.what);
    }
    own = true;
  }
  at::Tensor copy = shown.to(at::TensorOptions().dtype(dtype), /*non_blocking=*/false, /*copy=*/!own);
  const bool narrows =
      at::isFloatingType(dtype) && shown.scalar_type() != dtype && (shown.scalar_type() == at::kDouble || dtype == at::kHalf);
  if (narrows) {
    if (const auto bad = find_non_finite(copy)) {
      throw Error(ErrorKind::kUnsupported, fmt::format("{}: element {} is {}, which does not fit into {}", where, *bad,
                                                       shown.flatten()[*bad].item<double>(), c10::toString(dtype)))
          .with_hint("AutoAWQ checkpoints are float16; this model needs a format that keeps bfloat16");
    }
  }
  release(name);
  return copy;
}

at::Tensor Checkpoint::load(const std::string& name, const std::vector<int64_t>& expected_shape, at::ScalarType dtype,
                            at::Device device) const {
  check_cancelled();
  const at::Tensor copy = copy_checked(name, expected_shape, std::nullopt, dtype);
  return device == at::kCPU ? copy : copy.to(device);
}

at::Tensor Checkpoint::load_part(const std::string& name, const std::vector<int64_t>& expected_shape, int64_t index,
                                 at::ScalarType dtype) const {
  return copy_checked(name, expected_shape, index, dtype);
}

void Checkpoint::release(const std::string& name) const {
  const Place& place = place_of(name);
  if (!gguf_) files_[place.file].release(place.stored);
}

uint64_t Checkpoint::total_bytes() const {
  uint64_t total = 0;
  for (const auto& [name, place] : places_) total += info(name).bytes();
  return total;
}

}  // namespace salient::models
