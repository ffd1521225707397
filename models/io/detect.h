// Which format a model folder is in, and by which evidence.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "quant/spec.h"

namespace salient::models {

struct Evidence {
  std::string source;   // "config.json quantization_config"
  std::string finding;  // "awq-gemm, 4 bits, group 128, zero points"
};

struct DetectedModel {
  // "float", "awq-gemm", "awq-gemv", "awq-gemv-fast", "awq-marlin", "compressed-tensors", "gptq", "gguf", "torchscript", "unknown"
  std::string format = "unknown";
  // How the codes were chosen: "none", "awq", "gptq", "rtn", ..., "unknown".
  std::string method = "none";
  // Only for packed integer weights whose bits and group size are known. Bits of activations and KV cache are 16 (not quantized)
  // unless the checkpoint's metadata says otherwise. Layers of several kinds: the most frequent one.
  std::optional<quant::QuantizationSpec> spec;
  std::string version;      // of the format, as the checkpoint spells it: "gemm", "pack-quantized 0.12.2", "GGUF 3"; may be empty
  uint64_t disk_bytes = 0;  // of the weight files
  uint64_t parameters = 0;  // weights that the model has, packed ones counted unpacked; 0 when it cannot be told
  std::map<std::string, uint64_t> dtype_bytes;  // "BF16" -> bytes of tensor data; for GGUF its types ("Q4_K")
  int64_t quantized_linears = 0;
  int64_t unquantized_linears =
      0;  // two-dimensional float weights that are not embeddings; of a multimodal model, those of its text model
  std::vector<Evidence> evidence;  // config.json, quant_config.json, quantization_metadata.json, tensors, other files, folder name
  std::vector<std::string> contradictions;  // "group_size: tensors say 128 (...), config.json says 64"
};

// `folder`: a model folder, or a single GGUF or safetensors file. A LoRA adapter is what its base is. Reads config files and the
// headers of weight files, of tensors weight_shape only. Where sources disagree, tensor names and shapes win over what files say,
// and those over the folder's name; every disagreement is reported, and so is a GGUF file whose data are cut off or of unknown
// types. Errors: not found; corruption (a broken file is named); unsupported with code SALIENT_DETECTION_FAILED when nothing is
// found that says what the model is, or when it claims to be quantized in a way that is not known here.
DetectedModel detect_model(const std::filesystem::path& folder);

}  // namespace salient::models
