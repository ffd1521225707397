// Which block type each tensor of a GGUF file gets: the mixtures that llama.cpp calls Q4_K_M and the like.
// Rules: https://github.com/ggml-org/llama.cpp/blob/master/src/llama-quant.cpp
#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "models/decoder/decoder_config.h"
#include "models/gguf/gguf_tensors.h"
#include "quant/ggml_types.h"

namespace salient::models {

struct GgufFormat {
  std::string_view name;       // of Salient: "gguf-q4_k_m"
  std::string_view file_type;  // of llama.cpp: "Q4_K_M"
  uint32_t file_type_id;       // general.file_type
  quant::GgmlType type;        // what most tensors get
  // What takes its place for tensors that matter more; kF32 = nothing does.
  quant::GgmlType head;           // output.weight, or the embedding where that serves as head
  quant::GgmlType more;           // attn_v (or attn_qkv) and ffn_down of about half of the layers
  quant::GgmlType first;          // attn_v (or attn_qkv) of the first four layers, ffn_down of the first eighth of them
  quant::GgmlType eight_experts;  // attn_output of mixtures of eight
};

// All rows.
std::span<const GgufFormat> gguf_formats();
// By Salient's name; null when there is none.
const GgufFormat* find_gguf_format(std::string_view name);

struct GgufMixtureOptions {
  bool importance = false;  // an importance matrix is used: Q4_0 then has some Q4_1
  bool pure = false;        // every quantizable tensor gets the format's own type
};

// One type for each tensor of the plan, in its order; F32 where it is not quantizable. Rows that are no multiple of a type's block
// get the next type that fits them: Q4_K Q5_0, Q5_K Q5_1, Q6_K Q8_0, and F16 where 32 does not divide them.
std::vector<quant::GgmlType> gguf_mixture(const GgufFormat& format, const DecoderConfig& config,
                                          const std::vector<GgufTensorPlan>& tensors, const GgufMixtureOptions& options = {});

}  // namespace salient::models
