// The goldens that scripts/goldens/awq_layouts.py makes with AutoAWQ's own packing code.
#pragma once

#include <ATen/Context.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/exp2.h>
#include <ATen/ops/full.h>
#include <ATen/ops/rand.h>
#include <ATen/ops/randint.h>

#include <cstring>
#include <functional>
#include <string>
#include <vector>

#include "common/error.h"
#include "common/file.h"
#include "common/json.h"
#include "quant/affine.h"

namespace salient::quant::test {

struct LayoutCase {
  int64_t group_size = 0;
  QuantizedWeight given;  // what AutoAWQ was given
  Json entry;
  std::string blob;

  // A tensor that AutoAWQ made.
  at::Tensor tensor(const std::string& name) const;
};

inline at::Tensor read_tensor(const Json& entry, const std::string& blob) {
  const std::string dtype = entry.at("dtype").get<std::string>();
  const auto shape = entry.at("shape").get<std::vector<int64_t>>();
  const auto offset = entry.at("offset").get<size_t>();
  if (dtype == "uint4") {
    at::Tensor codes = at::empty(shape, at::kByte);
    auto* data = codes.data_ptr<uint8_t>();
    for (int64_t i = 0; i < codes.numel(); ++i) {
      data[i] = static_cast<uint8_t>((static_cast<uint8_t>(blob.at(offset + static_cast<size_t>(i / 2))) >> (4 * (i % 2))) & 15);
    }
    return codes;
  }
  const at::ScalarType type = dtype == "float16" ? at::kHalf
                              : dtype == "int32" ? at::kInt
                              : dtype == "int16" ? at::kShort
                                                 : at::kByte;
  at::Tensor result = at::empty(shape, type);
  const std::string bytes = blob.substr(offset, result.nbytes());
  if (bytes.size() != result.nbytes()) fail(ErrorKind::kCorruption, "the golden ends early");
  std::memcpy(result.data_ptr(), bytes.data(), bytes.size());
  return result;
}

inline at::Tensor LayoutCase::tensor(const std::string& name) const { return read_tensor(entry.at(name), blob); }

inline std::vector<LayoutCase> layout_cases(const std::string& layout) {
  const std::string base = SALIENT_SOURCE_DIR "/tests/data/awq_layouts/" + layout;
  const std::string blob = read_text_file(base + ".bin");
  const Json index = read_json_file(base + ".json");
  std::vector<LayoutCase> cases;
  for (const Json& entry : index.at("cases")) {
    cases.push_back({entry.at("group_size").get<int64_t>(),
                     {read_tensor(entry.at("codes"), blob), read_tensor(entry.at("zeros"), blob),
                      read_tensor(entry.at("given_scales"), blob).to(at::kFloat)},
                     entry,
                     blob});
  }
  return cases;
}

// Equal to the last bit: at::equal would take 0 and -0 for the same.
inline bool same_bytes(const at::Tensor& a, const at::Tensor& b) {
  return a.scalar_type() == b.scalar_type() && a.sizes() == b.sizes() &&
         std::memcmp(a.contiguous().data_ptr(), b.contiguous().data_ptr(), a.nbytes()) == 0;
}

inline bool same_weight(const QuantizedWeight& a, const QuantizedWeight& b) {
  return same_bytes(a.codes, b.codes) && same_bytes(a.zeros, b.zeros) && same_bytes(a.scales, b.scales);
}

// Seeded. Scales from the smallest float16 to 1000, exact in `dtype`.
inline QuantizedWeight random_weight(int64_t out, int64_t in, int64_t group_size, bool symmetric,
                                     at::ScalarType dtype = at::kHalf) {
  at::manual_seed(static_cast<uint64_t>(out * 1000 + in + group_size));
  const int64_t groups = in / group_size;
  QuantizedWeight weight;
  weight.codes = at::randint(0, 16, {out, in}, at::kByte);
  weight.zeros = symmetric ? at::full({out, groups}, 8, at::kByte) : at::randint(0, 16, {out, groups}, at::kByte);
  weight.scales = at::exp2(at::rand({out, groups}) * 34 - 24).to(dtype).to(at::kFloat);
  return weight;
}

// The error that `body` throws; internal when it throws none.
inline Error error_of(const std::function<void()>& body) {
  try {
    body();
  } catch (const Error& error) {
    return error;
  }
  return {ErrorKind::kInternal, "no error"};
}

}  // namespace salient::quant::test
