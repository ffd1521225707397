#include "models/io/safetensors_header.h"

#include <set>

#include "common/error.h"
#include "common/json.h"
#include "models/io/safetensors.h"

namespace salient::models {
namespace {

constexpr size_t kLengthFieldBytes = 8;
constexpr size_t kAlignment = 64;

// A JSON string; unlike dump_json it refuses invalid UTF-8, because two names must never become the same replaced one.
std::string quoted(const std::string& text) {
  try {
    return Json(text).dump();
  } catch (const Json::exception&) {
    fail(ErrorKind::kInvalidArgument, "safetensors header: the name or value {} is not valid UTF-8", dump_json(text));
  }
}

}  // namespace

uint64_t data_bytes(const PlannedTensor& tensor) {
  uint64_t bytes = c10::elementSize(tensor.dtype);
  for (const int64_t size : tensor.shape) {
    if (size < 0 || __builtin_mul_overflow(bytes, static_cast<uint64_t>(size), &bytes)) {
      fail(ErrorKind::kInvalidArgument, "tensor '{}': shape [{}] has no valid size in bytes", tensor.name,
           fmt::join(tensor.shape, ", "));
    }
  }
  return bytes;
}

std::string make_safetensors_header(std::span<const PlannedTensor> tensors, const std::map<std::string, std::string>& metadata) {
  std::string json = "{";
  const auto add = [&json](const std::string& name, const std::string& value) {
    if (json.size() > 1) json += ',';
    json += quoted(name) + ":" + value;
  };
  if (!metadata.empty()) {
    std::string values;
    for (const auto& [key, value] : metadata) values += (values.empty() ? "" : ",") + quoted(key) + ":" + quoted(value);
    add("__metadata__", "{" + values + "}");
  }
  std::set<std::string_view> seen;
  uint64_t begin = 0;
  for (const PlannedTensor& tensor : tensors) {
    if (tensor.name.empty() || tensor.name == "__metadata__" || !seen.insert(tensor.name).second) {
      fail(ErrorKind::kInvalidArgument, "safetensors header: the tensor name '{}' is {}", tensor.name,
           seen.contains(tensor.name) ? "used twice" : "not allowed");
    }
    const uint64_t end = begin + data_bytes(tensor);
    add(tensor.name, fmt::format(R"({{"dtype":"{}","shape":[{}],"data_offsets":[{},{}]}})", safetensors_dtype_name(tensor.dtype),
                                 fmt::join(tensor.shape, ","), begin, end));
    begin = end;
  }
  json += '}';
  const size_t total = (kLengthFieldBytes + json.size() + kAlignment - 1) / kAlignment * kAlignment;
  json.resize(total - kLengthFieldBytes, ' ');

  std::string bytes;
  for (size_t i = 0; i < kLengthFieldBytes; ++i) bytes += static_cast<char>(json.size() >> (8 * i) & 0xff);
  return bytes + json;
}

}  // namespace salient::models
