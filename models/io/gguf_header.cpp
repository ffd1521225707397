#include "models/io/gguf_header.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <limits>
#include <set>
#include <utility>

#include "common/error.h"
#include "common/text.h"

static_assert(std::endian::native == std::endian::little, "GGUF numbers are copied as they are");

namespace salient::models {
namespace {

constexpr std::string_view kMagic = "GGUF";
constexpr std::string_view kAlignmentKey = "general.alignment";
constexpr uint64_t kMaxKeyBytes = 65535;
// The least bytes that a pair and a tensor's info take: more of them than fit into the file cannot be there.
constexpr uint64_t kLeastPairBytes = 8 + 4 + 1;
constexpr uint64_t kLeastInfoBytes = 8 + 4 + 4 + 8;

std::string shown(std::string_view text) { return shorten(one_line(text), 80); }

// Little-endian values, bounds checked.
class Cursor {
 public:
  Cursor(std::string_view bytes, const std::string& where) : bytes_(bytes), where_(where) {}

  template <typename T>
  T number() {
    T value;
    std::memcpy(&value, take(sizeof(T)).data(), sizeof(T));
    return value;
  }
  bool boolean() {
    const auto value = number<uint8_t>();
    if (value > 1) bad("a bool is {}, expected 0 or 1", value);
    return value == 1;
  }
  std::string_view text() { return take(number<uint64_t>()); }
  std::string_view take(uint64_t count) {
    if (count > bytes_.size() - position_) {
      fail(ErrorKind::kCorruption, "{}: the GGUF header wants {} bytes at byte {}, the file has {}: it is truncated", where_, count,
           position_, bytes_.size());
    }
    return bytes_.substr(std::exchange(position_, position_ + count), count);
  }
  // A number of things of at least `least` bytes each.
  uint64_t count(uint64_t least, std::string_view what) {
    const auto value = number<uint64_t>();
    if (value > (bytes_.size() - position_) / least) {
      bad("{} {}, which cannot fit into a file of {} bytes: it is truncated or its header is wrong", value, what, bytes_.size());
    }
    return value;
  }
  uint64_t position() const { return position_; }

  template <typename... Args>
  [[noreturn]] void bad(fmt::format_string<Args...> format, Args&&... args) const {
    fail(ErrorKind::kCorruption, "{}: GGUF header: {} (before byte {})", where_, fmt::format(format, std::forward<Args>(args)...),
         position_);
  }
  const std::string& where() const { return where_; }

 private:
  std::string_view bytes_;
  const std::string& where_;
  uint64_t position_ = 0;
};

template <typename T>
T read_one(Cursor& cursor) {
  if constexpr (std::is_same_v<T, bool>) {
    return cursor.boolean();
  } else if constexpr (std::is_same_v<T, std::string>) {
    return std::string(cursor.text());
  } else {
    return cursor.number<T>();
  }
}

template <typename T>
std::vector<T> read_many(Cursor& cursor) {
  constexpr uint64_t kLeast = std::is_same_v<T, std::string> ? sizeof(uint64_t) : sizeof(T);
  const uint64_t count = cursor.count(kLeast, "array elements");
  std::vector<T> values;
  values.reserve(count);
  for (uint64_t i = 0; i < count; ++i) values.push_back(read_one<T>(cursor));
  return values;
}

// The alternative of Variant that has this index, read from the file.
template <typename Variant, size_t kIndex = 0>
Variant read_alternative(uint32_t index, Cursor& cursor);

template <typename T>
struct Reader {
  static T read(Cursor& cursor) { return read_one<T>(cursor); }
};
template <typename T>
struct Reader<std::vector<T>> {
  static std::vector<T> read(Cursor& cursor) { return read_many<T>(cursor); }
};
template <>
struct Reader<std::monostate> {
  static std::monostate read(Cursor& cursor) {
    fail(ErrorKind::kUnsupported, "{}: GGUF header: an array of arrays before byte {}; they are not supported", cursor.where(),
         cursor.position());
  }
};
template <>
struct Reader<GgufArray> {
  static GgufArray read(Cursor& cursor) { return read_alternative<GgufArray>(cursor.number<uint32_t>(), cursor); }
};

template <typename Variant, size_t kIndex>
Variant read_alternative(uint32_t index, Cursor& cursor) {
  if constexpr (kIndex == std::variant_size_v<Variant>) {
    cursor.bad("metadata type {}, expected 0 to {}", index, std::variant_size_v<Variant> - 1);
  } else {
    if (index != kIndex) return read_alternative<Variant, kIndex + 1>(index, cursor);
    return Variant(std::in_place_index<kIndex>, Reader<std::variant_alternative_t<kIndex, Variant>>::read(cursor));
  }
}

GgufPair read_pair(Cursor& cursor) {
  GgufPair pair;
  pair.key = cursor.text();
  if (pair.key.size() > kMaxKeyBytes) cursor.bad("a key of {} bytes, expected at most {}", pair.key.size(), kMaxKeyBytes);
  pair.value = with_context(fmt::format("key '{}'", shown(pair.key)),
                            [&] { return read_alternative<GgufValue>(cursor.number<uint32_t>(), cursor); });
  return pair;
}

GgufTensor read_tensor(Cursor& cursor) {
  GgufTensor tensor;
  tensor.name = cursor.text();
  if (tensor.name.size() > kMaxGgufNameBytes) {
    cursor.bad("tensor name '{}' has {} bytes, expected at most {}", shown(tensor.name), tensor.name.size(), kMaxGgufNameBytes);
  }
  const auto dimensions = cursor.number<uint32_t>();
  if (dimensions > kMaxGgufDimensions)
    cursor.bad("tensor '{}' has {} dimensions, expected at most {}", shown(tensor.name), dimensions, kMaxGgufDimensions);
  uint64_t elements = 1;
  for (uint32_t d = 0; d < dimensions; ++d) {
    const auto size = cursor.number<uint64_t>();
    // A dimension of 0 counts as 1: strides are computed from the others.
    if (__builtin_mul_overflow(elements, std::max<uint64_t>(size, 1), &elements) ||
        elements > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) {
      cursor.bad("tensor '{}' has more elements than 2^63", shown(tensor.name));
    }
    tensor.shape.insert(tensor.shape.begin(), static_cast<int64_t>(size));
  }
  tensor.type = static_cast<quant::GgmlType>(cursor.number<uint32_t>());
  tensor.offset = cursor.number<uint64_t>();
  return tensor;
}

bool is_power_of_two(uint64_t value) { return std::has_single_bit(value); }

uint64_t aligned(uint64_t position, uint64_t alignment) { return (position + alignment - 1) / alignment * alignment; }

// 32 when the metadata do not say anything else; nothing when what they say is no power of two.
std::optional<uint64_t> alignment_of(const GgufHeader& header) {
  const GgufValue* value = header.find(kAlignmentKey);
  if (value == nullptr) return 32;
  const auto* number = std::get_if<uint32_t>(value);
  if (number == nullptr || !is_power_of_two(*number)) return std::nullopt;
  return *number;
}

void check_version(uint32_t version, const std::string& where) {
  if (version == 2 || version == 3) return;
  if (__builtin_bswap32(version) == 2 || __builtin_bswap32(version) == 3) {
    throw Error(ErrorKind::kUnsupported, fmt::format("{}: a big-endian GGUF file, supported are little-endian ones", where))
        .with_hint("convert it with gguf-convert-endian of the Python package gguf");
  }
  throw Error(ErrorKind::kUnsupported, fmt::format("{}: GGUF version {}, supported are 2 and 3", where, version))
      .with_hint("convert the model again with a current tool");
}

template <typename T>
void append_number(std::string& bytes, T value) {
  bytes.append(reinterpret_cast<const char*>(&value), sizeof(value));
}

void append_one(std::string& bytes, const std::string& text) {
  append_number<uint64_t>(bytes, text.size());
  bytes += text;
}
void append_one(std::string& bytes, bool value) { bytes += static_cast<char>(value ? 1 : 0); }
void append_one(std::string&, std::monostate) {
  fail(ErrorKind::kInvalidArgument, "GGUF header: an array of arrays, which cannot be written");
}
template <typename T>
void append_one(std::string& bytes, T value) {
  append_number(bytes, value);
}
template <typename T>
void append_one(std::string& bytes, const std::vector<T>& values) {
  append_number<uint64_t>(bytes, values.size());
  for (const auto& value : values) append_one(bytes, static_cast<const T&>(value));
}
void append_one(std::string& bytes, const GgufArray& array) {
  append_number<uint32_t>(bytes, static_cast<uint32_t>(array.index()));
  std::visit([&](const auto& values) { append_one(bytes, values); }, array);
}

template <typename... Args>
[[noreturn]] void refuse(fmt::format_string<Args...> format, Args&&... args) {
  fail(ErrorKind::kInvalidArgument, "GGUF header: {}", fmt::format(format, std::forward<Args>(args)...));
}

void check_tensor(const GgufTensor& tensor) {
  if (tensor.name.empty() || tensor.name.size() > kMaxGgufNameBytes) {
    refuse("tensor name '{}' has {} bytes, expected 1 to {}", tensor.name, tensor.name.size(), kMaxGgufNameBytes);
  }
  if (tensor.shape.empty() || tensor.shape.size() > kMaxGgufDimensions) {
    refuse("tensor '{}' has {} dimensions, expected 1 to {}", tensor.name, tensor.shape.size(), kMaxGgufDimensions);
  }
  if (std::any_of(tensor.shape.begin(), tensor.shape.end(), [](int64_t size) { return size <= 0; })) {
    refuse("tensor '{}' has the shape [{}], expected dimensions of at least 1", tensor.name, fmt::join(tensor.shape, ", "));
  }
}

}  // namespace

const GgufValue* GgufHeader::find(std::string_view key) const {
  const auto it = std::find_if(metadata.begin(), metadata.end(), [&](const GgufPair& pair) { return pair.key == key; });
  return it != metadata.end() ? &it->value : nullptr;
}

uint64_t gguf_data_bytes(const GgufTensor& tensor) {
  const quant::GgmlTypeInfo* info = quant::find_ggml_type(static_cast<uint32_t>(tensor.type));
  if (info == nullptr)
    fail(ErrorKind::kUnsupported, "tensor '{}' has the ggml type {}, which is not known here", shown(tensor.name),
         static_cast<uint32_t>(tensor.type));
  const int64_t columns = tensor.shape.empty() ? 1 : tensor.shape.back();
  if (columns % info->block_elements != 0) {
    fail(ErrorKind::kCorruption, "tensor '{}' has rows of {} elements, expected a multiple of {} for {}", shown(tensor.name),
         columns, info->block_elements, info->name);
  }
  int64_t bytes = columns / info->block_elements;
  bool overflow = __builtin_mul_overflow(bytes, info->block_bytes, &bytes);
  for (size_t d = 0; d + 1 < tensor.shape.size(); ++d) overflow |= __builtin_mul_overflow(bytes, tensor.shape[d], &bytes);
  if (overflow) fail(ErrorKind::kCorruption, "tensor '{}' has more bytes than 2^63", shown(tensor.name));
  return static_cast<uint64_t>(bytes);
}

GgufHeader parse_gguf_header(std::span<const std::byte> file, const std::string& where) {
  Cursor cursor({reinterpret_cast<const char*>(file.data()), file.size()}, where);
  if (cursor.take(kMagic.size()) != kMagic) fail(ErrorKind::kCorruption, "{}: does not begin with \"GGUF\"", where);
  GgufHeader header;
  header.version = cursor.number<uint32_t>();
  check_version(header.version, where);
  const uint64_t tensors = cursor.count(kLeastInfoBytes, "tensors");
  const uint64_t pairs = cursor.count(kLeastPairBytes, "metadata keys");
  std::set<std::string> names;
  for (uint64_t i = 0; i < pairs; ++i) {
    header.metadata.push_back(read_pair(cursor));
    if (!names.insert(header.metadata.back().key).second)
      cursor.bad("key '{}' is there twice, expected each key once", shown(header.metadata.back().key));
  }
  names.clear();
  for (uint64_t i = 0; i < tensors; ++i) {
    header.tensors.push_back(read_tensor(cursor));
    if (!names.insert(header.tensors.back().name).second)
      cursor.bad("tensor '{}' is there twice, expected each name once", shown(header.tensors.back().name));
  }
  const std::optional<uint64_t> alignment = alignment_of(header);
  if (!alignment) cursor.bad("{} is no u32 power of two", kAlignmentKey);
  header.alignment = *alignment;
  header.data_begin = aligned(cursor.position(), header.alignment);
  return header;
}

std::string make_gguf_header(GgufHeader& header) {
  header.version = 3;
  const std::optional<uint64_t> alignment = alignment_of(header);
  if (!alignment) refuse("{} must be a u32 power of two", kAlignmentKey);
  header.alignment = *alignment;

  std::string bytes(kMagic);
  append_number<uint32_t>(bytes, header.version);
  append_number<uint64_t>(bytes, header.tensors.size());
  append_number<uint64_t>(bytes, header.metadata.size());
  std::set<std::string_view> names;
  for (const GgufPair& pair : header.metadata) {
    if (pair.key.empty() || pair.key.size() > kMaxKeyBytes)
      refuse("a key of {} bytes, expected 1 to {}", pair.key.size(), kMaxKeyBytes);
    if (!names.insert(pair.key).second) refuse("key '{}' is there twice", pair.key);
    append_one(bytes, pair.key);
    append_number<uint32_t>(bytes, static_cast<uint32_t>(pair.value.index()));
    std::visit([&](const auto& value) { append_one(bytes, value); }, pair.value);
  }
  names.clear();
  uint64_t offset = 0;
  for (GgufTensor& tensor : header.tensors) {
    check_tensor(tensor);
    if (!names.insert(tensor.name).second) refuse("tensor '{}' is there twice", tensor.name);
    tensor.offset = offset;
    try {
      offset = aligned(offset + gguf_data_bytes(tensor), header.alignment);
    } catch (const Error& error) {
      refuse("{}", error.message());
    }
    append_one(bytes, tensor.name);
    append_number<uint32_t>(bytes, static_cast<uint32_t>(tensor.shape.size()));
    for (auto size = tensor.shape.rbegin(); size != tensor.shape.rend(); ++size) append_number<int64_t>(bytes, *size);
    append_number<uint32_t>(bytes, static_cast<uint32_t>(tensor.type));
    append_number<uint64_t>(bytes, tensor.offset);
  }
  header.data_begin = aligned(bytes.size(), header.alignment);
  bytes.resize(header.data_begin, '\0');
  return bytes;
}

}  // namespace salient::models
