// A model folder in another format, without calibration: weights are taken as they are, float or in codes.
//
//   name         what it becomes                                                             read by
//   gguf-...     model.gguf: f16, bf16, q8_0, q4_0, q4_k_s, q4_k_m, q5_k_m, q6_k (pipeline/export_gguf.h)        llama.cpp and what builds on it
//   awq-..., compressed-tensors  the same codes otherwise arranged (pipeline/convert_codes.h); the model must have codes already, `quantize` makes them
//   float        config.json, safetensors, tokenizer files out of a GGUF file (pipeline/export_float.h)                    transformers, salient quantize
//   torchscript  model.pt, code and weights in one file (models/torchscript/export.h)        torch.jit.load in Python and C++; salient eval
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace salient::pipeline {

struct ExportResult {
  std::vector<std::filesystem::path> files;  // with weights
  uint64_t bytes = 0;                        // of these
  std::vector<std::string> notes;
};

struct ExportOptions {
  std::filesystem::path model_folder;  // or GGUF file
  // A new folder, or with the extension of the format's file (.gguf, .pt) that file alone; it appears whole or not at all.
  std::filesystem::path output;
  std::string source;  // name of the model, for the metadata; empty: the folder's
};

// In the order in which they are listed.
std::vector<std::string> export_formats();

// Into a folder the tokenizer's files, chat template and generation config come along. Errors: invalid argument: an unknown format
// (with the list), an output that exists; unsupported: a TorchScript module; those of the format, before anything is written where
// they can be told.
ExportResult export_model(const ExportOptions& options, std::string_view format);

}  // namespace salient::pipeline
