#include "models/gguf/imatrix.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/isfinite.h>
#include <ATen/ops/ones_like.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/where.h>

#include <algorithm>
#include <cstring>

#include "common/error.h"
#include "common/file.h"
#include "models/io/gguf.h"
#include "models/io/gguf_writer.h"

namespace salient::models {
namespace {

constexpr std::string_view kSums = ".in_sum2";
constexpr std::string_view kCounts = ".counts";

bool usable(const at::Tensor& values) { return at::isfinite(values).logical_and(values >= 0).all().item<bool>(); }

class DatReader {
 public:
  DatReader(std::span<const std::byte> bytes, std::string where) : bytes_(bytes), where_(std::move(where)) {}

  bool at_end() const { return position_ == bytes_.size(); }
  int32_t integer() {
    int32_t value = 0;
    std::memcpy(&value, take(sizeof value), sizeof value);
    return value;
  }
  int32_t count(std::string_view what) {
    const int32_t value = integer();
    if (value < 0) fail(ErrorKind::kCorruption, "{}: {} {} before byte {}, expected a count", where_, value, what, position_);
    return value;
  }
  std::string text() {
    const auto length = static_cast<size_t>(count("characters"));
    return {reinterpret_cast<const char*>(take(length)), length};
  }
  at::Tensor floats(int64_t number) {
    const std::byte* const from = take(static_cast<size_t>(number) * sizeof(float));
    at::Tensor values = at::empty({1, number}, at::kFloat);
    if (number > 0) std::memcpy(values.mutable_data_ptr<float>(), from, static_cast<size_t>(number) * sizeof(float));
    return values;
  }

 private:
  const std::byte* take(size_t size) {
    if (size > bytes_.size() - position_)
      fail(ErrorKind::kCorruption, "{}: {} bytes are wanted at byte {}, the file has {}: it is truncated, or no importance matrix",
           where_, size, position_, bytes_.size());
    const std::byte* const from = bytes_.data() + position_;
    position_ += size;
    return from;
  }

  std::span<const std::byte> bytes_;
  std::string where_;
  size_t position_ = 0;
};

Imatrix read_dat(const std::filesystem::path& path) {
  const MappedFile file(path);
  DatReader reader(file.bytes(), path.string());
  Imatrix result;
  const int32_t entries = reader.count("entries");
  for (int32_t i = 0; i < entries; ++i) {
    const std::string name = reader.text();
    const int32_t calls = reader.count("calls");
    const int32_t values = reader.count("values");
    // The number of tokens is not in the file; the calls stand for it, which leaves the means as they are.
    ImatrixEntry entry{reader.floats(values), at::tensor({static_cast<float>(calls)})};
    if (!usable(entry.sum_of_squares))
      fail(ErrorKind::kCorruption, "{}: '{}' has numbers that are not finite or negative", path.string(), name);
    if (!result.entries.emplace(name, std::move(entry)).second)
      fail(ErrorKind::kCorruption, "{}: '{}' is there twice", path.string(), name);
  }
  if (reader.at_end()) return result;
  result.chunk_count = reader.count("chunks");
  if (!reader.at_end()) result.datasets.push_back(reader.text());
  return result;
}

Imatrix read_gguf(const std::filesystem::path& path) {
  const GgufFile file(path);
  const std::string where = path.string();
  Imatrix result;
  if (const auto* const type = find_gguf_value<std::string>(file.header(), "general.type"); type == nullptr || *type != "imatrix")
    fail(ErrorKind::kCorruption, "{}: general.type is {}, expected imatrix: this is another kind of GGUF file", where,
         type == nullptr ? "missing" : "'" + *type + "'");
  if (const auto* const datasets = find_gguf_value<std::vector<std::string>>(file.header(), "imatrix.datasets"))
    result.datasets = *datasets;
  if (const auto* const count = find_gguf_value<uint32_t>(file.header(), "imatrix.chunk_count")) result.chunk_count = *count;
  if (const auto* const size = find_gguf_value<uint32_t>(file.header(), "imatrix.chunk_size")) result.chunk_size = *size;
  for (const GgufTensor& tensor : file.header().tensors) {
    if (!tensor.name.ends_with(kSums)) continue;
    const std::string name = tensor.name.substr(0, tensor.name.size() - kSums.size());
    const GgufTensor* const counts = file.find(name + std::string(kCounts));
    if (counts == nullptr) fail(ErrorKind::kCorruption, "{}: '{}' has sums and no counts", where, name);
    if (tensor.shape.empty() || tensor.shape.back() == 0) {
      fail(ErrorKind::kCorruption, "{}: '{}' is [{}], expected sums for one column or more", where, tensor.name,
           fmt::join(tensor.shape, ", "));
    }
    const at::Tensor sums = file.read(tensor.name);
    ImatrixEntry entry{sums.reshape({-1, sums.size(-1)}), file.read(counts->name).reshape({-1})};
    if (entry.sum_of_squares.size(0) != entry.counts.size(0))
      fail(ErrorKind::kCorruption, "{}: '{}' has sums of {} matrices and counts of {}", where, name, entry.sum_of_squares.size(0),
           entry.counts.size(0));
    if (!usable(entry.sum_of_squares) || !usable(entry.counts))
      fail(ErrorKind::kCorruption, "{}: '{}' has numbers that are not finite or negative", where, name);
    result.entries.emplace(name, std::move(entry));
  }
  return result;
}

}  // namespace

void write_imatrix(const std::filesystem::path& path, const Imatrix& imatrix) {
  std::vector<GgufTensor> tensors;
  for (const auto& [name, entry] : imatrix.entries) {
    const at::Tensor& sums = entry.sum_of_squares;
    if (sums.dim() != 2 || entry.counts.dim() != 1 || entry.counts.size(0) != sums.size(0))
      fail(ErrorKind::kInvalidArgument, "importance of '{}': expected sums [matrices, columns] and counts [matrices]", name);
    if (!usable(sums) || !usable(entry.counts))
      fail(ErrorKind::kInvalidArgument, "importance of '{}': numbers that are not finite or negative", name);
    tensors.push_back({name + std::string(kSums), quant::GgmlType::kF32, sums.sizes().vec()});
    tensors.push_back({name + std::string(kCounts), quant::GgmlType::kF32, {sums.size(0), 1}});
  }
  std::vector<GgufPair> metadata{{"general.type", std::string("imatrix")},
                                 {"imatrix.datasets", GgufArray(imatrix.datasets)},
                                 {"imatrix.chunk_count", static_cast<uint32_t>(imatrix.chunk_count)},
                                 {"imatrix.chunk_size", static_cast<uint32_t>(imatrix.chunk_size)}};
  GgufWriter writer(path, std::move(metadata), std::move(tensors));
  for (const auto& [name, entry] : imatrix.entries) {
    writer.append(name + std::string(kSums), entry.sum_of_squares.to(at::kFloat));
    writer.append(name + std::string(kCounts), entry.counts.to(at::kFloat).reshape({-1, 1}));
  }
  writer.finish();
}

Imatrix read_imatrix(const std::filesystem::path& path) {
  bool gguf = false;
  {
    const MappedFile file(path);
    gguf = file.bytes().size() >= 4 && std::memcmp(file.bytes().data(), "GGUF", 4) == 0;
  }
  return gguf ? read_gguf(path) : read_dat(path);
}

at::Tensor imatrix_importance(const ImatrixEntry& entry) {
  const at::Tensor counts = entry.counts.reshape({-1, 1});
  return at::where(counts > 0, entry.sum_of_squares / counts.clamp_min(1), at::ones_like(entry.sum_of_squares));
}

}  // namespace salient::models
