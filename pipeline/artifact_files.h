// The files of a quantized artifact that are not tensors.
#pragma once

#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "common/json.h"
#include "quant/spec.h"

namespace salient::pipeline {

// Copies tokenizer, image processor, chat template, generation config and training metadata, as far as they are there.
void copy_side_files(const std::filesystem::path& from, const std::filesystem::path& to);

bool is_side_file(const std::string& name);

// The source's config.json with dtype float16 and the quantization_config of AutoAWQ's GEMM layout, its dtype and rope in old and
// new style, so that transformers 4 and 5 read the same model; a multimodal config keeps its structure, and its nested text model
// is treated alike. `float_modules`: names of linears, and of parts, that are not packed.
Json awq_config(Json source_config, const quant::QuantizationSpec& spec, const std::vector<std::string>& float_modules = {});

// The same for a quantization_config of any format (pipeline/weight_formats.h). `dtype`: of the tensors that are not packed,
// "float16" or "bfloat16"; empty = as the source says. `untied_head`: the artifact has an lm_head of its own, also where the
// source's is its embedding.
Json artifact_config(Json source_config, const Json& quantization_config, const std::string& dtype, bool untied_head = false);

// {file name: SHA-256} of every file in a folder that `counts` is true for.
Json hash_files(const std::filesystem::path& folder, const std::function<bool(const std::string& name)>& counts,
                const std::function<std::string(const std::filesystem::path& file)>& hash = {});

}  // namespace salient::pipeline
