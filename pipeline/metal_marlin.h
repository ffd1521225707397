// The AWQ functions of Metal Marlin (RESMP-DEV/metal-marlin, docs/concepts/awq.md) under their names: 4-bit symmetric codes, eight
// to a word, with the scales that protect the most important input channels. Matrices are laid out as there: [in_features,
// out_features].
//
//   Q        uint32  [padded_in/8, out]       bits 4i .. 4i+3 of word (k, n) hold input channel 8k+i of output n, as code + 7 (code -7 .. 7; 8 at most)
//   scales   float16 [padded_in/group, out]
//   zeros    float16 [padded_in/group, out]   0 unless asymmetric
//   q_scale  float16 [in]                     what each input channel was multiplied by before rounding; 1 for those not protected
//   weight = ((nibble - 7) * scales + zeros) / q_scale;   padded_in: in rounded up to a multiple of the group size, with rows of zeros
// Example: codes -7, -6, ..., 0 of input channels 0..7 make the word 0x76543210.
//
// One thing differs from Metal Marlin, on purpose: its q_scale is one factor for each *output*, which the group scales cancel
// exactly, so that its ratio, method and activations change nothing but the mask. Here q_scale is AWQ's factor of each input
// channel (Lin et al., arXiv 2306.00978), and the settings do what its guide says. awq_dequantize reads both kinds.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "common/json.h"

namespace salient::metal_marlin {

inline constexpr double kAwqSalientRatio = 0.01;
inline constexpr int64_t kAwqDefaultGroupSize = 128;
inline constexpr std::string_view kAwqQuantType = "awq_int4";

// How an input channel's importance comes out of its activations. mean: of |x|, the cheapest, blind to rare outliers; max: of |x|,
// sees every outlier, at the mercy of one; rms: sqrt(mean x^2), what the output error itself goes by.
enum class ActivationMethod { kMean, kMax, kRms };
std::string_view to_string(ActivationMethod method);
// "mean", "max" or "rms". Errors: invalid argument.
ActivationMethod parse_activation_method(std::string_view name);

// activations: any float dtype [..., in_features], at least two dimensions and one row. Returns float32 [in_features], not
// negative. Errors: invalid argument for the shape; corruption for NaN or Inf, with the channel.
at::Tensor compute_activation_stats(const at::Tensor& activations, ActivationMethod method = ActivationMethod::kRms);

struct SalientWeights {
  at::Tensor salient_mask;            // bool [in_features, out_features]
  at::Tensor per_channel_importance;  // float32 [in_features]: the statistics divided by the largest of them
};

// The floor(in x out x salient_ratio) weights of largest |weight| x importance of their channel, and those equal to the last of
// them; never one whose product is 0. weights: [in, out]; activation_stats: [in]; salient_ratio: 0 .. 1. Errors: invalid argument;
// corruption for NaN or Inf.
SalientWeights find_salient_weights(const at::Tensor& weights, const at::Tensor& activation_stats,
                                    double salient_ratio = kAwqSalientRatio);

struct AwqQuantizeOptions {
  int64_t group_size = kAwqDefaultGroupSize;  // input channels that share a scale: a multiple of 8, or -1 = one group
  double salient_ratio = kAwqSalientRatio;  // share of the input channels that may be scaled, 0 .. 1; above 0 at least one channel
  ActivationMethod activation_method = ActivationMethod::kRms;
  int scale_grid = 20;      // factors tried for each channel: (statistic / median statistic)^(i / scale_grid), i = 0 .. scale_grid
  bool zero_point = false;  // true: ranges need not be symmetric, `zeros` says by how much. Metal Marlin has only false
};

struct AwqResult {
  at::Tensor Q;
  at::Tensor scales;
  at::Tensor zeros;
  at::Tensor q_scale;
  double quantization_error = 0;  // sum of squared differences of the weights, as in Metal Marlin
  double salient_ratio = 0;       // as asked for
  double output_error = 0;        // mean squared norm of the output's change over the activation rows
  double rtn_output_error = 0;    // the same with every q_scale 1; never smaller
  int64_t salient_channels = 0;   // input channels that were tried
  int64_t scaled_channels = 0;    // of these, with a q_scale that is not 1
};

// Channels are taken from the most important down, by activation_method; each gets the factor that leaves the least output error on
// `activations` with the factors chosen before it, 1 included. So a larger salient_ratio never gives a larger output error, and
// none gives more than rounding to nearest. weights: [in, out], any float dtype; activations: [..., in], or the statistics [in]
// alone (channels then count as uncorrelated). Errors: invalid argument for shapes and options; corruption for NaN or Inf.
AwqResult awq_quantize(const at::Tensor& weights, const at::Tensor& activations, const AwqQuantizeOptions& options = {});

struct AwqMeta {
  int64_t in_features = 0;
  int64_t out_features = 0;
  int64_t group_size = kAwqDefaultGroupSize;
  std::string quant_type = std::string(kAwqQuantType);
};

// Metal Marlin's q_scale is told by its length where in and out differ; `q_scale_of_outputs` says so for a square matrix.
// Returns [in_features, out_features]. Errors: invalid argument for shapes that do not fit each other.
at::Tensor awq_dequantize(const at::Tensor& packed, const at::Tensor& scales, const at::Tensor& zeros, const at::Tensor& q_scale,
                          const AwqMeta& meta, at::ScalarType weights_dtype = at::kHalf, bool q_scale_of_outputs = false);

// ---- whole models: metal_marlin_model.cpp ----

// How a file lays its matrices out. auto: [out, in] in safetensors files, as Hugging Face stores linears; [in, out] in .npz files.
enum class WeightLayout { kAuto, kInOut, kOutIn };
WeightLayout parse_weight_layout(std::string_view name);  // "auto", "in_out", "out_in"

struct AwqModelOptions {
  AwqQuantizeOptions quantize;
  WeightLayout layout = WeightLayout::kAuto;
  bool allow_missing = false;  // matrices without activations are rounded to nearest; false: an error that names them
  bool compressed = false;     // .npz output: deflated
  bool dry_run = false;        // everything is checked and counted, nothing quantized or written
  bool verbose = true;         // a line for each file and a summary in the log
};

// Quantizes all matrices of a model: tensors with two dimensions and "weight" in the name, but none with "embed", "norm", "bias" or
// "lm_head" in it; where the group size does not divide the input channels, or 8 the outputs, the tensor is kept and counted as
// skipped. One tensor is in memory at a time. model_path: a .safetensors or .npz file, or a folder of .safetensors files.
// output_path: a folder, for <stem>.awq.safetensors (or .awq.npz) each; or a name ending in .npz, for one archive of all. A matrix
// `w` becomes w (Q), w.scales, w.zeros, w.q_scale; metadata (safetensors) or the array "awq_metadata" (JSON in uint8) hold
// quant_type, group_size, salient_ratio, activation_method, weight_layout. activations_path: .npz of arrays [..., in] or [in],
// named as the matrix, with or without ".weight". Returns quantized_count, skipped_count, original_bytes, quantized_bytes,
// compression_ratio, quant_type, group_size, salient_ratio as Metal Marlin, and activation_method, rounded_to_nearest, files,
// layers [{name, in_features, out_features, output_error, rtn_output_error, salient_channels, scaled_channels}]. Errors: not found;
// those of the files; invalid argument, naming the tensor, for activations of another width.
Json awq_quantize_model(const std::filesystem::path& model_path, const std::filesystem::path& output_path,
                        const std::filesystem::path& activations_path, const AwqModelOptions& options = {});

// The inverse, file by file, for what awq_quantize_model wrote: matrices in their first layout. dtype: float16 or float32 (bfloat16
// in safetensors). output_path: a folder, for <stem>.safetensors or <stem>.npz. Returns dequantized_count, kept_count, files.
Json awq_dequantize_model(const std::filesystem::path& model_path, const std::filesystem::path& output_path,
                          at::ScalarType weights_dtype = at::kHalf);

// The matrices that awq_quantize_model would quantize, [in, out], one at a time: for each, visit(name, matrix, activations).
// Activations are undefined where the file has none.
struct ModelMatrix {
  std::string name;
  at::Tensor weights;
  at::Tensor activations;
};
void for_each_matrix(const std::filesystem::path& model_path, const std::filesystem::path& activations_path,
                     const AwqModelOptions& options, const std::function<void(const ModelMatrix&)>& visit);

}  // namespace salient::metal_marlin
