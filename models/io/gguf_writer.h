// Writes a GGUF file from front to back, holding no tensor. The format: models/io/gguf_header.h.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "models/io/gguf_header.h"

namespace salient::models {

// All metadata, names, types and shapes are known beforehand, so the header is written first and final; then the data come in the
// order of the tensors. Call order: append* finish. The file appears whole or not at all: a writer destroyed before finish() leaves
// nothing behind.
class GgufWriter {
 public:
  // tensors: their offsets are filled in here. Errors: invalid argument for what readers would refuse (make_gguf_header); io (code
  // DISK_FULL) when the file is larger than what is free.
  GgufWriter(const std::filesystem::path& path, std::vector<GgufPair> metadata, std::vector<GgufTensor> tensors);
  ~GgufWriter();
  GgufWriter(const GgufWriter&) = delete;
  GgufWriter& operator=(const GgufWriter&) = delete;

  // The next bytes of the tensor, whole or in parts: uint8 as quant::quantize_ggml returns them, or the torch dtype that the type
  // is (float32, float16, bfloat16). Any device and strides. Errors: invalid argument for another tensor than the one whose turn it
  // is, another dtype, or more bytes than are missing; io.
  void append(const std::string& name, const at::Tensor& data);

  // Bytes of the whole file.
  uint64_t file_bytes() const;

  // Flushes and renames the file to its name, opens it again and compares its header. Errors: invalid argument when data are
  // missing; io.
  void finish();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace salient::models
