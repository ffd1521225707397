// A model folder as one self-contained TorchScript file: code and weights, run by libtorch's torch.jit.load in Python and C++
// without Salient.
//
// What its methods are: models/torchscript/decoder_node.h. How quantized weights lie in it: models/torchscript/linear_node.h. Only
// ATen's own operators are used. The file also holds config.json and salient.json ({"salient": version, "format": "torchscript",
// "source", "model_type", "dtype", "quantization", "quantized_linears", "float_linears", "max_position_embeddings", "vocab_size"})
// as extra files (torch.jit.load's _extra_files).
//
// libtorch's optimizer brings nothing here and takes its time at the first two calls of a method; with
// torch.jit.optimized_execution(False) it is left out. Do not torch.jit.freeze a quantized module: freezing computes what does not
// depend on the input, which are the dense weights.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>

#include "models/decoder/decoder_config.h"
#include "models/io/checkpoint.h"

namespace salient::models {

struct TorchscriptOptions {
  at::ScalarType dtype =
      at::kFloat;      // float32, bfloat16 or float16: of activations and the cache; logits are float32. Weights stay as stored
  std::string source;  // told in salient.json; empty: the folder's name
};

struct TorchscriptFile {
  uint64_t bytes = 0;
  int64_t quantized_linears = 0;  // experts of a block counted as one
  int64_t float_linears = 0;
};

// Why a model of this configuration cannot be exported, naming the feature; nothing where it can.
std::optional<std::string> torchscript_supports(const DecoderConfig& config);

// Writes `path`, or replaces it. Memory: one linear (converted), and the embedding while it is checked; everything else lies in the
// mapped checkpoint or in scratch space beside `path`, as large as the converted weights, which is gone afterwards. Errors:
// unsupported (see above; formats that load_linear does not read), those of Checkpoint, io.
TorchscriptFile export_torchscript(const Checkpoint& checkpoint, const std::filesystem::path& path,
                                   const TorchscriptOptions& options = {});

}  // namespace salient::models
