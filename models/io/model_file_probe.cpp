#include "models/io/model_file_probe.h"

#include <algorithm>
#include <cstring>
#include <span>
#include <string_view>
#include <utility>

#include "common/error.h"
#include "common/file.h"

namespace salient::models {
namespace {

std::string_view text_of(const MappedFile& file) { return {reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size()}; }

// Little-endian values from a header, bounds checked.
class Reader {
 public:
  Reader(std::string_view bytes, std::string where) : bytes_(bytes), where_(std::move(where)) {}

  template <typename T>
  T number() {
    T value;
    std::memcpy(&value, take(sizeof(T)).data(), sizeof(T));
    return value;
  }
  std::string_view text() { return take(number<uint64_t>()); }
  std::string_view take(uint64_t count) {
    if (count > bytes_.size() - position_) {
      fail(ErrorKind::kCorruption, "{}: the GGUF header wants {} bytes at byte {}, the file has {}: it is truncated", where_, count, position_,
           bytes_.size());
    }
    return bytes_.substr(std::exchange(position_, position_ + count), count);
  }
  [[noreturn]] void bad(std::string_view what) const { fail(ErrorKind::kCorruption, "{}: GGUF header: {} before byte {}", where_, what, position_); }

 private:
  std::string_view bytes_;
  std::string where_;
  size_t position_ = 0;
};

constexpr uint32_t kGgufString = 8;
constexpr uint32_t kGgufArray = 9;
// Bytes of the fixed-size metadata types 0..12; 0 for string and array.
constexpr uint64_t kGgufValueBytes[] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};

void skip_value(Reader& reader, uint32_t type, int depth = 0) {
  if (type >= std::size(kGgufValueBytes)) reader.bad("unknown metadata type");
  if (type == kGgufString) {
    reader.text();
  } else if (type == kGgufArray) {
    if (depth > 4) reader.bad("arrays nested too deeply");
    const auto element = reader.number<uint32_t>();
    const auto count = reader.number<uint64_t>();
    if (element >= std::size(kGgufValueBytes)) reader.bad("unknown metadata type");
    if (const uint64_t size = kGgufValueBytes[element]; size > 0) {
      uint64_t bytes = 0;
      if (__builtin_mul_overflow(count, size, &bytes)) reader.bad("array of absurd length");
      reader.take(bytes);
    } else {
      for (uint64_t i = 0; i < count; ++i) skip_value(reader, element, depth + 1);  // each takes bytes, so it ends with the file
    }
  } else {
    reader.take(kGgufValueBytes[type]);
  }
}

struct GgmlType {
  uint32_t number;
  const char* name;
  uint64_t block_weights;
  uint64_t block_bytes;
};
constexpr GgmlType kGgmlTypes[] = {
    {0, "F32", 1, 4},        {1, "F16", 1, 2},        {2, "Q4_0", 32, 18},      {3, "Q4_1", 32, 20},    {6, "Q5_0", 32, 22},    {7, "Q5_1", 32, 24},
    {8, "Q8_0", 32, 34},     {10, "Q2_K", 256, 84},   {11, "Q3_K", 256, 110},   {12, "Q4_K", 256, 144}, {13, "Q5_K", 256, 176}, {14, "Q6_K", 256, 210},
    {16, "IQ2_XXS", 256, 66}, {17, "IQ2_XS", 256, 74}, {18, "IQ3_XXS", 256, 98}, {19, "IQ1_S", 256, 50}, {20, "IQ4_NL", 32, 18}, {21, "IQ3_S", 256, 110},
    {22, "IQ2_S", 256, 82},  {23, "IQ4_XS", 256, 136}, {29, "IQ1_M", 256, 56},  {30, "BF16", 1, 2},     {39, "MXFP4", 32, 17},
};

void add_tensor(GgufSummary& summary, uint32_t type, uint64_t weights) {
  summary.parameters += weights;
  for (const GgmlType& row : kGgmlTypes) {
    if (row.number != type) continue;
    summary.type_bytes[row.name] += weights / row.block_weights * row.block_bytes;
    return;
  }
  summary.type_bytes[fmt::format("type {}", type)] += 0;
}

}  // namespace

std::optional<GgufSummary> read_gguf_summary(const std::filesystem::path& path) {
  const MappedFile file(path);
  Reader reader(text_of(file), path.string());
  if (file.bytes().size() < 4 || reader.take(4) != "GGUF") return std::nullopt;
  GgufSummary summary;
  summary.version = reader.number<uint32_t>();
  if (summary.version < 2 || summary.version > 3) {
    fail(ErrorKind::kUnsupported, "{}: GGUF version {}, supported are 2 and 3", path.string(), summary.version);
  }
  summary.tensors = reader.number<uint64_t>();
  const auto values = reader.number<uint64_t>();
  for (uint64_t i = 0; i < values; ++i) {
    reader.text();
    skip_value(reader, reader.number<uint32_t>());
  }
  for (uint64_t i = 0; i < summary.tensors; ++i) {
    reader.text();
    const auto dimensions = reader.number<uint32_t>();
    if (dimensions > 8) reader.bad("a tensor with more than 8 dimensions");
    uint64_t count = 1;
    for (uint32_t d = 0; d < dimensions; ++d) {
      if (__builtin_mul_overflow(count, reader.number<uint64_t>(), &count)) reader.bad("a tensor of absurd size");
    }
    add_tensor(summary, reader.number<uint32_t>(), count);
    reader.number<uint64_t>();  // offset of the data
  }
  return summary;
}

bool is_torchscript(const std::filesystem::path& path) {
  // The archive's directory is at its end; the end record (22 bytes and a comment) says where it begins. With 64-bit offsets that field is
  // all ones, and the last MiB is searched instead.
  constexpr size_t kEndRecord = 22;
  constexpr size_t kSearched = size_t{1} << 20;
  const MappedFile file(path);
  const std::string_view text = text_of(file);
  if (!text.starts_with(std::string_view("PK\3\4", 4)) || text.size() < kEndRecord) return false;
  const std::string_view tail = text.substr(text.size() - std::min(text.size(), kSearched));
  const size_t end = tail.rfind(std::string_view("PK\5\6", 4));
  if (end == std::string_view::npos || tail.size() - end < kEndRecord) return false;
  uint32_t begin = 0;
  std::memcpy(&begin, tail.data() + end + 16, sizeof(begin));
  const std::string_view directory = begin < text.size() ? text.substr(begin) : tail;
  return directory.find("/constants.pkl") != std::string_view::npos;
}

}  // namespace salient::models
