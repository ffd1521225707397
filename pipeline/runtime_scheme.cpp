#include "pipeline/runtime_scheme.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/full.h>

#include <algorithm>
#include <array>
#include <limits>
#include <string_view>

#include "common/error.h"
#include "models/decoder/block.h"
#include "quant/int8_rows.h"

namespace salient::pipeline {
namespace {

bool has_kv_scales(const models::DecoderConfig& config, int64_t block, const AwqOptions& options) {
  return written_runtime_bits(options).kv_bits.has_value() &&
         config.layers[static_cast<size_t>(block)].attention != models::AttentionKind::kLinear;
}

// x: [rows, heads, tokens, dim]
double largest_magnitude(const at::Tensor& x, const at::Tensor& counted) {
  const at::Tensor tokens = x.transpose(1, 2).flatten(0, 1);
  return (counted.defined() ? tokens.index_select(0, counted) : tokens).abs().max().item<double>();
}

at::Tensor scale_of(double largest, at::ScalarType dtype) {
  // compressed-tensors' own choice where nothing was seen; smaller numbers could become 0 in half precision.
  const double scale = std::max<double>(largest / quant::kCompressedTensorsHalfRange, std::numeric_limits<float>::epsilon());
  return at::full({1}, scale, dtype);
}

}  // namespace

models::RuntimeBits written_runtime_bits(const AwqOptions& options) {
  models::RuntimeBits bits;
  if (!options.write_runtime_bits) return bits;
  if (options.spec.activation_bits == 8) bits.activation_bits = 8;
  if (options.spec.kv_cache_bits == 8) bits.kv_bits = 8;
  return bits;
}

std::string runtime_text(const models::RuntimeBits& bits) {
  std::string text;
  if (bits.activation_bits) text = fmt::format("{}-bit activations", *bits.activation_bits);
  if (bits.kv_bits) text += fmt::format("{}an {}-bit KV cache", text.empty() ? "" : " and ", *bits.kv_bits);
  return text;
}

void check_runtime_scheme(const AwqOptions& options) {
  if (!options.write_runtime_bits) return;
  if (options.format != WeightFormat::kCompressedTensors || options.export_compatible) {
    throw Error(ErrorKind::kUnsupported,
                "write_runtime_bits: only compressed-tensors has a place for the bits of activations and KV cache")
        .with_hint(
            "use format compressed-tensors; in every other format the bits stand in quantization_metadata.json, and engines are "
            "told when they start");
  }
  for (const auto& [name, bits] : {std::pair<std::string_view, int>{"activation_bits", options.spec.activation_bits},
                                   std::pair<std::string_view, int>{"kv_cache_bits", options.spec.kv_cache_bits}}) {
    if (bits != 8 && bits != 16)
      fail(ErrorKind::kUnsupported, "write_runtime_bits: {} is {}, only 8 (written) and 16 (as computed) are supported", name,
           bits);
  }
  const models::RuntimeBits bits = written_runtime_bits(options);
  if (!bits.activation_bits && !bits.kv_bits)
    fail(ErrorKind::kInvalidArgument,
         "write_runtime_bits: activation_bits and kv_cache_bits are both 16, there is nothing to write");
}

std::vector<models::PlannedTensor> plan_kv_scales(const models::DecoderConfig& config, int64_t block, const AwqOptions& options,
                                                  const StoredDtype& stored) {
  if (!has_kv_scales(config, block, options)) return {};
  const std::string module = models::attention_module(config, block);
  std::vector<models::PlannedTensor> tensors;
  for (const char* part : {".k_scale", ".v_scale"}) tensors.push_back({module + part, stored(module + part), {1}});
  return tensors;
}

void store_kv_scales(const models::DecoderConfig& config, int64_t block, const AwqOptions& options, const CalibrationPass& pass,
                     const models::BlockWeights& weights, const RowReader& input, const StoredDtype& stored,
                     const TensorSink& sink) {
  if (!has_kv_scales(config, block, options)) return;
  const models::BlockWeights moved = models::to_device(weights, pass.device());
  const models::BlockObserver nobody;
  double keys = 0;
  double values = 0;
  pass.for_each_batch([&](const CalibrationPass::Batch& batch) {
    models::KvCacheLayer cache = models::make_cache_layer(config, block, batch.count, pass.width(), at::kFloat, pass.device());
    models::AttentionCall call = pass.call(moved, block, nobody);
    call.cache = &cache;
    models::attention_half(call, input(batch.begin, batch.count).to(pass.device()));
    keys = std::max(keys, largest_magnitude(cache.keys, batch.counted));
    values = std::max(values, largest_magnitude(cache.values, batch.counted));
  });
  if (pass.ranks() != nullptr) {
    std::array<double, 2> largest = {keys, values};
    pass.ranks()->max(largest);
    keys = largest[0];
    values = largest[1];
  }
  const std::string module = models::attention_module(config, block);
  sink.put(module + ".k_scale", scale_of(keys, stored(module + ".k_scale")));
  sink.put(module + ".v_scale", scale_of(values, stored(module + ".v_scale")));
}

}  // namespace salient::pipeline
