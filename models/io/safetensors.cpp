#include "models/io/safetensors.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>
#include <c10/core/ScalarType.h>

#include <algorithm>
#include <cstring>
#include <limits>
#include <set>
#include <span>
#include <string_view>
#include <utility>

#include "common/error.h"
#include "common/json.h"
#include "common/json_depth.h"
#include "models/io/safetensors_header.h"

namespace salient::models {
namespace {

constexpr uint64_t kLengthBytes = 8;
constexpr uint64_t kMaxHeaderBytes = 100'000'000;  // the reference implementation's limit
constexpr std::string_view kMetadataKey = "__metadata__";

struct DtypeRow {
  std::string_view name;
  at::ScalarType dtype;
};
constexpr DtypeRow kDtypes[] = {
    {"F64", at::kDouble}, {"F32", at::kFloat},  {"F16", at::kHalf},   {"BF16", at::kBFloat16}, {"I64", at::kLong},
    {"I32", at::kInt},    {"I16", at::kShort},  {"I8", at::kChar},    {"U8", at::kByte},       {"BOOL", at::kBool},
    {"U16", at::kUInt16}, {"U32", at::kUInt32}, {"U64", at::kUInt64},
};
constexpr std::string_view kKnownUnsupportedDtypes[] = {"F8_E4M3", "F8_E5M2", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ",
                                                        "F4",      "F6_E2M3", "F6_E3M2", "C64"};

std::string supported_dtypes() {
  std::string list;
  for (const DtypeRow& row : kDtypes) list += fmt::format("{}{}", list.empty() ? "" : ", ", row.name);
  return list;
}

std::string shape_text(const std::vector<int64_t>& shape) { return fmt::format("[{}]", fmt::join(shape, ", ")); }

// Parses the header and refuses a name or a key that occurs twice, which the JSON library would silently resolve to the last one.
Json parse_header(std::string_view text, const std::string& where) {
  std::set<std::string> names;
  std::set<std::string> keys;  // of the tensor being read
  std::string duplicate;
  const auto watch = [&](int depth, Json::parse_event_t event, Json& value) {
    if (event == Json::parse_event_t::key && depth == 1) {
      keys.clear();
      if (!names.insert(value.get<std::string>()).second && duplicate.empty()) duplicate = value.get<std::string>();
    } else if (event == Json::parse_event_t::key && depth == 2) {
      if (!keys.insert(value.get<std::string>()).second && duplicate.empty()) duplicate = value.get<std::string>();
    }
    return true;
  };
  Json header = is_too_deep_json(text) ? Json(Json::value_t::discarded)
                                       : Json::parse(text.begin(), text.end(), watch, /*allow_exceptions=*/false);
  if (header.is_discarded()) parse_json(text, where);  // fails with line and column
  if (!duplicate.empty())
    fail(ErrorKind::kCorruption, "{}: the header has '{}' twice, expected each name once", where, dump_json(Json(duplicate)));
  if (!header.is_object())
    fail(ErrorKind::kCorruption, "{}: the header is a JSON {}, expected an object", where, header.type_name());
  return header;
}

// A dimension or offset: an integer in 0..2^63-1.
uint64_t read_size(const Json& value, const std::string& where, std::string_view what) {
  if (!value.is_number_unsigned() || value.get<uint64_t>() > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) {
    fail(ErrorKind::kCorruption, "{}: {} is {}, expected an integer from 0 to 2^63-1", where, what, dump_json(value).substr(0, 60));
  }
  return value.get<uint64_t>();
}

// `data_begin`: where the data starts in the file; `data_bytes`: how many bytes of data the file has.
TensorInfo parse_tensor(const Json& entry, const std::string& where, uint64_t data_begin, uint64_t data_bytes) {
  TensorInfo info{};
  info.dtype = with_context(where, [&] { return parse_safetensors_dtype(require<std::string>(entry, "dtype", "header")); });
  const Json shape = require<Json>(entry, "shape", where);
  const Json offsets = require<Json>(entry, "data_offsets", where);
  if (!shape.is_array()) fail(ErrorKind::kCorruption, "{}: shape is {}, expected a list", where, dump_json(shape).substr(0, 60));
  if (!offsets.is_array() || offsets.size() != 2) {
    fail(ErrorKind::kCorruption, "{}: data_offsets is {}, expected [begin, end]", where, dump_json(offsets).substr(0, 60));
  }

  // Dimensions of 0 count as 1 for the overflow check: strides are computed from them too.
  uint64_t bound = c10::elementSize(info.dtype);
  uint64_t expected_bytes = bound;
  for (const Json& dimension : shape) {
    const uint64_t size = read_size(dimension, where, "a dimension");
    info.shape.push_back(static_cast<int64_t>(size));
    expected_bytes *= size;
    if (__builtin_mul_overflow(bound, std::max<uint64_t>(size, 1), &bound) ||
        bound > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) {
      fail(ErrorKind::kCorruption, "{}: shape {} has more bytes than 2^63", where, dump_json(shape).substr(0, 200));
    }
  }

  const uint64_t begin = read_size(offsets[0], where, "data_offsets[0]");
  const uint64_t end = read_size(offsets[1], where, "data_offsets[1]");
  if (begin > end) fail(ErrorKind::kCorruption, "{}: data_offsets [{}, {}] run backwards", where, begin, end);
  if (end > data_bytes) {
    fail(ErrorKind::kCorruption,
         "{}: data ends at byte {} of the data, but the file has only {} bytes of data: it is truncated or its header is wrong",
         where, end, data_bytes);
  }
  if (end - begin != expected_bytes) {
    fail(ErrorKind::kCorruption, "{}: data_offsets give {} bytes, but {} {} needs {}", where, end - begin,
         safetensors_dtype_name(info.dtype), shape_text(info.shape), expected_bytes);
  }
  info.begin = data_begin + begin;
  info.end = data_begin + end;
  return info;
}

// The tensors, ordered by offset, must fill the data exactly.
void check_layout(const std::map<std::string, TensorInfo>& tensors, const std::string& where, uint64_t data_begin,
                  uint64_t file_bytes) {
  std::vector<std::pair<std::string_view, const TensorInfo*>> order;
  for (const auto& [name, info] : tensors) order.emplace_back(name, &info);
  std::sort(order.begin(), order.end(), [](const auto& a, const auto& b) {
    return std::pair(a.second->begin, a.second->end) < std::pair(b.second->begin, b.second->end);
  });
  uint64_t expected = data_begin;
  std::string_view previous = "the header";
  for (const auto& [name, info] : order) {
    if (info->begin != expected) {
      fail(ErrorKind::kCorruption, "{}: tensor '{}' begins at byte {}, but '{}' ends at byte {}: the data {}", where, name,
           info->begin, previous, expected, info->begin < expected ? "overlaps" : "has a hole");
    }
    expected = info->end;
    previous = name;
  }
  if (expected != file_bytes) {
    fail(ErrorKind::kCorruption, "{}: the last tensor ends at byte {}, but the file has {} bytes", where, expected, file_bytes);
  }
}

}  // namespace

std::string safetensors_dtype_name(at::ScalarType dtype) {
  for (const DtypeRow& row : kDtypes) {
    if (row.dtype == dtype) return std::string(row.name);
  }
  fail(ErrorKind::kUnsupported, "safetensors files here cannot hold {}, only {}", c10::toString(dtype), supported_dtypes());
}

at::ScalarType parse_safetensors_dtype(const std::string& name) {
  for (const DtypeRow& row : kDtypes) {
    if (row.name == name) return row.dtype;
  }
  const bool known =
      std::find(std::begin(kKnownUnsupportedDtypes), std::end(kKnownUnsupportedDtypes), name) != std::end(kKnownUnsupportedDtypes);
  if (known)
    fail(ErrorKind::kUnsupported, "dtype {} is not supported, only {}; convert the checkpoint to BF16 first", name,
         supported_dtypes());
  fail(ErrorKind::kUnsupported, "unknown dtype {}, supported are {}", dump_json(Json(name)).substr(0, 60), supported_dtypes());
}

SafetensorsFile::SafetensorsFile(const std::filesystem::path& path) : file_(std::make_shared<const MappedFile>(path)) {
  const std::string where = path.string();
  const std::span<const std::byte> bytes = file_->bytes();
  if (bytes.size() < kLengthBytes) {
    fail(ErrorKind::kCorruption, "{}: the file has {} bytes, expected at least {} for the header's length: it is truncated", where,
         bytes.size(), kLengthBytes);
  }
  uint64_t header_bytes = 0;
  for (size_t i = 0; i < kLengthBytes; ++i) header_bytes |= std::to_integer<uint64_t>(bytes[i]) << (8 * i);
  if (header_bytes > kMaxHeaderBytes) {
    fail(ErrorKind::kCorruption, "{}: the header's length is {} bytes, expected at most {}: not a safetensors file", where,
         header_bytes, kMaxHeaderBytes);
  }
  if (header_bytes > bytes.size() - kLengthBytes) {
    fail(ErrorKind::kCorruption, "{}: the header should have {} bytes, but only {} follow: the file is truncated", where,
         header_bytes, bytes.size() - kLengthBytes);
  }
  const std::string_view text(reinterpret_cast<const char*>(bytes.data()) + kLengthBytes, header_bytes);
  if (text.empty() || text.front() != '{') {
    fail(ErrorKind::kCorruption, "{}: the header does not begin with '{{': not a safetensors file", where);
  }
  const Json header = parse_header(text, where);

  const uint64_t data_begin = kLengthBytes + header_bytes;
  for (const auto& [name, entry] : header.items()) {
    if (name == kMetadataKey) {
      if (!entry.is_object())
        fail(ErrorKind::kCorruption, "{}: __metadata__ is a JSON {}, expected an object of strings", where, entry.type_name());
      for (const auto& [key, value] : entry.items()) metadata_[key] = require<std::string>(entry, key, where + ": __metadata__");
    } else {
      tensors_.emplace(name,
                       parse_tensor(entry, fmt::format("{}: tensor '{}'", where, name), data_begin, bytes.size() - data_begin));
    }
  }
  check_layout(tensors_, where, data_begin, bytes.size());
}

const TensorInfo& SafetensorsFile::info(const std::string& name) const {
  const auto it = tensors_.find(name);
  if (it == tensors_.end()) fail(ErrorKind::kNotFound, "{}: no tensor '{}' among its {}", path().string(), name, tensors_.size());
  return it->second;
}

at::Tensor SafetensorsFile::view(const std::string& name) const {
  const TensorInfo& tensor = info(name);
  const auto options = at::TensorOptions().dtype(tensor.dtype);
  if (tensor.bytes() == 0) return at::empty(tensor.shape, options);
  const std::byte* data = file_->bytes().data() + tensor.begin;
  if (reinterpret_cast<uintptr_t>(data) % c10::elementSize(tensor.dtype) != 0) {
    at::Tensor copy = at::empty(tensor.shape, options);
    std::memcpy(copy.data_ptr(), data, tensor.bytes());
    return copy;
  }
  return at::from_blob(
      const_cast<std::byte*>(data), tensor.shape, [file = file_](void*) {}, options);
}

void SafetensorsFile::release(const std::string& name) const {
  const TensorInfo& tensor = info(name);
  file_->release(tensor.begin, tensor.bytes());
}

void write_safetensors(const std::filesystem::path& path, const std::vector<NamedTensor>& tensors,
                       const std::map<std::string, std::string>& metadata) {
  std::vector<PlannedTensor> planned;
  for (const NamedTensor& tensor : tensors)
    planned.push_back({tensor.name, tensor.tensor.scalar_type(), tensor.tensor.sizes().vec()});
  std::map<std::string, std::string> all_metadata = metadata;
  all_metadata.emplace("format", "pt");
  const std::string header = with_context(path.string(), [&] { return make_safetensors_header(planned, all_metadata); });

  AtomicFile file(path);
  file.write(header);
  for (const NamedTensor& tensor : tensors) {
    const at::Tensor data = tensor.tensor.contiguous();
    file.write(std::span(static_cast<const std::byte*>(data.const_data_ptr()), data.nbytes()));
  }
  file.commit();
}

}  // namespace salient::models
