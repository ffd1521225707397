// Which tensors a GGUF file of a model has, and from which tensors of the Hugging Face checkpoint each is made.
// Names: https://github.com/ggml-org/llama.cpp/blob/master/gguf-py/gguf/tensor_mapping.py
//
//   blk.3.attn_q.weight        <- model.layers.3.self_attn.q_proj.weight, rows of each head reordered where the architecture
//                                 rotates neighbours
//   blk.3.ffn_down_exps.weight <- model.layers.3.mlp.experts.0.down_proj.weight, ...experts.1..., stacked
//   blk.3.attn_norm.weight     <- 1 + model.layers.3.input_layernorm.weight for Gemma
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <vector>

#include "models/decoder/decoder_config.h"

namespace salient::models {

enum class GgufTransform : uint8_t {
  kNone,
  kRopeRows,  // rows in the order of rope_row_order(rows, heads)
  kAddOne,    // 1 is added to each value
};

struct GgufTensorPlan {
  std::string name;            // of the GGUF file
  std::vector<int64_t> shape;  // torch's order; of experts [experts, out, in]
  bool quantizable = false;    // false: must be stored as F32
  std::vector<std::string>
      sources{};  // tensors of the checkpoint: one; of experts one for each element of the first dimension; none: `values`
  GgufTransform transform = GgufTransform::kNone;
  int64_t heads = 0;            // of kRopeRows
  std::vector<float> values{};  // what follows from config.json: divisors of rotary frequencies

  bool stacked() const { return shape.size() == 3; }
};

struct GgufPlan {
  std::string architecture;             // general.architecture
  std::vector<GgufTensorPlan> tensors;  // in the order of the file: those outside of blocks, then block by block
  std::vector<std::string> notes;       // what llama.cpp leaves out; to be shown to the user
};

// `config`: as load_decoder_config gives it, its names being those of the checkpoint. Tied embeddings have one tensor. Errors:
// unsupported (choose_gguf_graph: models/gguf/gguf_graphs.h, names that are too long); internal for a tensor without a GGUF name.
GgufPlan plan_gguf_tensors(const DecoderConfig& config);

// Hugging Face's row that each row of the GGUF tensor is: int64 [rows]. Of the d rows of a head, row 2j is row j and row 2j + 1 is
// row d / 2 + j. Reorders weights, biases and rows of quantized bytes alike: at::index_select(weight, 0, order). Errors: internal
// for rows that the heads do not divide.
at::Tensor rope_row_order(int64_t rows, int64_t heads);
// The way back: GGUF's row that each row of the Hugging Face tensor is.
at::Tensor rope_row_order_inverse(int64_t rows, int64_t heads);

// What the file holds, made of one source's values (of one expert where they are stacked) in any float type; kAddOne gives float32.
// Errors: internal for another number of values than planned.
at::Tensor to_gguf(const GgufTensorPlan& plan, const at::Tensor& source);
// And back: values of the file's tensor or of one expert of it.
at::Tensor from_gguf(const GgufTensorPlan& plan, const at::Tensor& stored);

}  // namespace salient::models
