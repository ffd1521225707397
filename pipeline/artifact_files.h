// The files of a quantized artifact that are not tensors.
#pragma once

#include <filesystem>
#include <vector>

#include "common/json.h"
#include "quant/spec.h"

namespace salient::pipeline {

// Copies tokenizer, chat template, generation config and training metadata, as far as they are there.
void copy_side_files(const std::filesystem::path& from, const std::filesystem::path& to);

// The source's config.json with dtype float16 and the quantization_config of AutoAWQ's GEMM layout, its dtype and rope in old and new style, so
// that transformers 4 and 5 read the same model.
Json awq_config(Json source_config, const quant::QuantizationSpec& spec);

// {file name: SHA-256} of config.json and every safetensors file of a checkpoint folder.
Json hash_checkpoint_files(const std::filesystem::path& folder);

}  // namespace salient::pipeline
