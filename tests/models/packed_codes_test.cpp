#include "models/io/packed_codes.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/zeros.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <utility>
#include <variant>
#include <vector>

#include "models/decoder/block_weights.h"
#include "models/io/detect.h"
#include "quant/awq_gemm.h"
#include "quant/awq_gemv.h"
#include "quant/awq_gemv_fast.h"
#include "quant/awq_layout_golden.h"
#include "quant/awq_marlin.h"
#include "quant/pack_quantized.h"
#include "support/temporary_folder.h"
#include "support/thrown_error.h"

namespace salient::models {
namespace {

using quant::QuantizedWeight;
using quant::test::random_weight;
using quant::test::same_weight;
using ::testing::HasSubstr;

using Tensors = std::vector<std::pair<std::string, at::Tensor>>;

constexpr const char* kModule = "model.layers.0.mlp.up_proj";

// A checkpoint of one linear, and no word about how it is quantized.
class OneLinear {
 public:
  explicit OneLinear(const Tensors& tensors) {
    std::vector<NamedTensor> named;
    for (const auto& [part, tensor] : tensors) named.push_back({std::string(kModule) + part, tensor});
    write_safetensors(folder_.path() / "model.safetensors", named);
    write_file(folder_.path() / "config.json", "{}\n");
  }
  Checkpoint checkpoint() const { return Checkpoint(folder_.path()); }
  StoredCodes codes(int64_t out, int64_t in) const { return load_codes(checkpoint(), kModule, out, in); }
  std::string detected() const { return detect_model(folder_.path()).format; }

 private:
  test::TemporaryFolder folder_;
};

Tensors gemm(const QuantizedWeight& weight) {
  const auto packed = quant::pack_awq_gemm(weight);
  return {{".qweight", packed.qweight}, {".qzeros", packed.qzeros}, {".scales", packed.scales}};
}
Tensors gemv(const QuantizedWeight& weight) {
  const auto packed = quant::pack_awq_gemv(weight);
  return {{".qweight", packed.qweight}, {".qzeros", packed.qzeros}, {".scales", packed.scales}};
}
Tensors gemv_fast(const QuantizedWeight& weight) {
  const auto packed = quant::pack_awq_gemv_fast(weight);
  return {{".qweight", packed.qweight}, {".qzeros", packed.qzeros}, {".scales", packed.scales}};
}
Tensors marlin(const QuantizedWeight& weight) {
  const auto packed = quant::pack_awq_marlin(weight);
  return {{".qweight", packed.qweight}, {".scales", packed.scales}};
}
Tensors compressed(const QuantizedWeight& weight) {
  const auto packed = quant::pack_quantized(weight, 4, /*zero_point=*/true, at::kHalf);
  return {{".weight_packed", packed.packed},
          {".weight_scale", packed.scale},
          {".weight_zero_point", packed.zero_point},
          {".weight_shape", packed.shape}};
}

struct Layout {
  std::string format;
  Tensors (*pack)(const QuantizedWeight& weight);
  bool symmetric;
};
const std::vector<Layout> kLayouts = {{"awq-gemm", gemm, false},
                                      {"awq-gemv", gemv, false},
                                      {"awq-gemv-fast", gemv_fast, false},
                                      {"awq-marlin", marlin, true},
                                      {"compressed-tensors", compressed, false}};

// Nothing says what they are but names and shapes; also where out and in are alike, and where a row is one group.
TEST(PackedCodes, EveryLayoutIsToldFromItsTensors) {
  struct Shape {
    int64_t out, in, group_size;
  };
  for (const Shape& shape : {Shape{64, 64, 32}, Shape{64, 128, 128}, Shape{128, 64, 64}, Shape{256, 1088, 64}, Shape{1024, 128, 32},
                             Shape{192, 3072, 128}}) {
    for (const Layout& layout : kLayouts) {
      const QuantizedWeight weight = random_weight(shape.out, shape.in, shape.group_size, layout.symmetric);
      const OneLinear linear(layout.pack(weight));
      const StoredCodes stored = linear.codes(shape.out, shape.in);
      EXPECT_EQ(stored.layout.format, layout.format) << shape.out << " " << shape.in;
      EXPECT_EQ(stored.layout.group_size, shape.group_size);
      EXPECT_EQ(stored.layout.bits, 4);
      EXPECT_TRUE(same_weight(stored.weight, weight)) << layout.format << " " << shape.out << " " << shape.in;
      EXPECT_EQ(linear.detected(), layout.format);
      LinearSpec spec;
      spec.name = kModule;
      spec.out_features = shape.out;
      spec.in_features = shape.in;
      for (const int bits : {16, 8}) {
        const Linear loaded = load_linear(linear.checkpoint(), spec, at::kFloat, bits);
        EXPECT_EQ(std::holds_alternative<IntegerLinear>(loaded), bits == 8);
        EXPECT_TRUE(at::equal(dense_weight(loaded), quant::dequantize(weight)))
            << layout.format << " " << shape.out << " " << shape.in;
        Linear converted = make_quantized_linear(weight.codes, weight.zeros, weight.scales, {}, shape.group_size, at::kFloat);
        set_activation_bits(converted, bits);
        EXPECT_EQ(loaded.index(), converted.index());
        EXPECT_EQ(memory_bytes(loaded), memory_bytes(converted));
      }
    }
  }
}

// What AutoAWQ itself wrote (scripts/goldens/awq_layouts.py), read as a model's linear.
TEST(PackedCodes, ReadsWhatAutoAwqWrote) {
  for (const auto& [name, format] : {std::pair{"gemv", "awq-gemv"}, {"gemv_fast", "awq-gemv-fast"}, {"marlin", "awq-marlin"}}) {
    int read = 0;
    for (const quant::test::LayoutCase& item : quant::test::layout_cases(name)) {
      Tensors tensors;
      for (const char* part : {"qweight", "qzeros", "scales"}) {
        if (item.entry.contains(part)) tensors.emplace_back(std::string(".") + part, item.tensor(part));
      }
      LinearSpec spec;
      spec.name = kModule;
      spec.out_features = item.given.codes.size(0);
      spec.in_features = item.given.codes.size(1);
      const OneLinear linear(tensors);
      const StoredCodes stored = linear.codes(spec.out_features, spec.in_features);
      EXPECT_EQ(stored.layout.format, format);
      EXPECT_TRUE(same_weight(stored.weight, item.given)) << format << " " << spec.out_features << " " << spec.in_features;
      const Linear loaded = load_linear(linear.checkpoint(), spec, at::kFloat);
      EXPECT_TRUE(is_quantized(loaded));
      EXPECT_TRUE(at::equal(dense_weight(loaded), quant::dequantize(item.given)));
      ++read;
    }
    EXPECT_GT(read, 1) << name;
  }
}

// llm-awq's name of GEMV_FAST's zeros, and its bfloat16.
TEST(PackedCodes, ReadsLlmAwqsSpelling) {
  const QuantizedWeight weight = random_weight(64, 256, 128, false, at::kBFloat16);
  const auto packed = quant::pack_awq_gemv_fast(weight, at::kBFloat16);
  const OneLinear linear({{".qweight", packed.qweight}, {".scaled_zeros", packed.qzeros}, {".scales", packed.scales}});
  EXPECT_TRUE(same_weight(linear.codes(64, 256).weight, weight));
}

TEST(PackedCodes, RefusesWhatItCannotRead) {
  const QuantizedWeight weight = random_weight(64, 256, 128, false);
  const auto message = [](const Tensors& tensors, ErrorKind kind) {
    const OneLinear linear(tensors);
    return test::message_of([&] { linear.codes(64, 256); }, kind);
  };
  // of another shape than config.json says
  EXPECT_THAT(message(gemv(random_weight(128, 256, 128, false)), ErrorKind::kCorruption),
              HasSubstr("is [128, 256] in the layout awq-gemv"));
  // GPTQ
  EXPECT_THAT(message({{".qweight", at::zeros({32, 64}, at::kInt)},
                       {".qzeros", at::zeros({2, 8}, at::kInt)},
                       {".scales", at::ones({2, 64}, at::kHalf)}},
                      ErrorKind::kUnsupported),
              HasSubstr("layout gptq cannot be read"));
  // 8 bits
  EXPECT_THAT(message({{".qweight", at::zeros({256, 16}, at::kInt)},
                       {".qzeros", at::zeros({2, 16}, at::kInt)},
                       {".scales", at::ones({2, 64}, at::kHalf)}},
                      ErrorKind::kUnsupported),
              HasSubstr("8 bits"));
  // padding of no group size
  Tensors odd = gemv(weight);
  for (auto& [part, tensor] : odd)
    if (part != ".qweight") tensor = tensor.repeat({1, 3});
  EXPECT_THAT(message(odd, ErrorKind::kUnsupported), HasSubstr("no group size"));
  // zero points that are none
  Tensors broken = gemv_fast(weight);
  broken[1].second = broken[1].second * 0.7;
  EXPECT_THAT(message(broken, ErrorKind::kCorruption), HasSubstr("expected an integer"));
  // a part that is missing
  Tensors cut = gemv_fast(weight);
  cut.erase(cut.begin() + 1);
  EXPECT_THAT(message(cut, ErrorKind::kUnsupported), HasSubstr("fit no known layout"));
  Tensors infinite = marlin(random_weight(64, 256, 128, true));
  infinite[1].second[1][3] = INFINITY;
  EXPECT_THAT(message(infinite, ErrorKind::kCorruption), HasSubstr("scales"));
}

}  // namespace
}  // namespace salient::models
