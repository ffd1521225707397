// Linears as TorchScript: float weights as the checkpoint stores them, quantized ones as codes that are dequantized with ATen's
// operators when they run.
//
//   FloatLinear   weight  float [out, in], as stored
//   PackedLinear  codes   uint8 [out, in / 2]: of each group of g codes, byte i holds code i in its low and code i + g / 2 in its high four bits
//                 scales  float [out, groups], as stored where that is a float type; zeros: uint8 [out, groups]
//   ByteLinear    codes   uint8 [out, in], one code in a byte; scales and zeros as above
// and bias [out] where there is one. W[n, k] = (code[n, k] - zero[n, k / g]) * scale[n, k / g], in float32. Example: one group of
// the codes 1, 2, 3, 4 is the bytes 31 42 (hexadecimal). Those of experts have another dimension in front, for the expert, and its
// index as the second argument of forward.
//
// Weights that are not in the type that runs are converted or dequantized a block of rows at a time, kBlockElements of them.
#pragma once

#include <cstdint>
#include <vector>

#include "models/decoder/block_layout.h"
#include "models/io/checkpoint.h"
#include "models/torchscript/scratch_file.h"
#include "models/torchscript/script_node.h"

namespace salient::models {

inline constexpr int64_t kBlockElements = int64_t{1} << 20;

// What every node of an export is made from.
struct NodeSource {
  const Checkpoint& checkpoint;
  const DecoderConfig& config;
  at::ScalarType dtype;  // of activations
  ScratchFile& scratch;
};

// Whole float tensors stay views of the mapped checkpoint; they are read once to refuse NaN and infinity. Others are read,
// converted and put aside one at a time. Errors: those of load_linear.
ScriptNode linear_node(const NodeSource& source, const LinearSpec& spec);
// The same linear of all experts in one node. Errors: also unsupported where they are not all in one format.
ScriptNode experts_linear_node(const NodeSource& source, const std::vector<LinearSpec>& experts);
// A FloatLinear of a tensor that is there already: a head that shares the embedding.
ScriptNode float_linear_node(const at::Tensor& weight, const at::Tensor& bias);

}  // namespace salient::models
